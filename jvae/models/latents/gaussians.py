"""Gaussian latents, as they are or normalised over the batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn

from jvae import registry
from jvae.distributions import DiagGaussian
from jvae.models.latents.base import Latent
from jvae.models.latents.normalization import KlFloor, MeanNorm, MomentNorm, Variance
from jvae.ranges import Gt, Lt, PositiveFloat
from jvae.types import Array, Coefficients

MIN_LOG_VAR, MAX_LOG_VAR = -15.0, 10.0


@dataclasses.dataclass(frozen=True)
class GaussianLatent(Latent):
    """q(z|x) = N(mean, diag var), the log variance within [-15, 10]; p(z) = N(0, I).

    Attributes:
      make_layer: what makes the module that means and log variances go through.
    """

    make_layer: Callable[[], nn.Module] | None = None

    def layer(self) -> nn.Module | None:
        """Returns a layer of `jvae.models.latents.normalization`; None for none."""
        return None if self.make_layer is None else self.make_layer()

    def num_outputs(self, dim: int) -> int:
        """Returns 2 D, means and log variances."""
        return 2 * dim

    def posterior(self, outputs: Array, annealed: Coefficients) -> DiagGaussian:
        """Returns q(z|x), [B, D]."""
        mean, log_var = jnp.split(outputs, 2, axis=-1)
        return DiagGaussian(mean, jnp.clip(log_var, MIN_LOG_VAR, MAX_LOG_VAR))

    def prior(self, size: int, dim: int, annealed: Coefficients) -> DiagGaussian:
        """Returns N(0, I), [B, D]."""
        return DiagGaussian.standard(size, dim)


def gaussian() -> GaussianLatent:
    """Returns a diagonal Gaussian against N(0, I)."""
    return GaussianLatent()


@registry.checked("model.latent")
def normalized_gaussian(gamma: PositiveFloat = 0.6) -> GaussianLatent:
    """Returns Gaussians whose means are normalised over the batch (BN-VAE).

    So KL(q(z|x) || p(z)) is in the mean over a batch at least D gamma^2 / 2 nats.

    Args:
      gamma: standard deviation of the means over the batch, fixed.

    Raises:
      ConfigError: gamma is not positive.
    """
    return GaussianLatent(functools.partial(MeanNorm, float(gamma)))


@registry.checked("model.latent")
def moment_gaussian(
    tau: Annotated[float, Gt(0), Lt(1)] = 0.5, variance: Variance = "signed"
) -> GaussianLatent:
    """Returns Gaussians whose means and variances add up to 1 over the batch.

    So q(z), the mixture of all q(z|x), has the first two moments of N(0, I), and the KL
    is in the mean at least -D log(1 - tau) / 2 nats.

    Args:
      tau: the least share of the means in the variance of q(z), within (0, 1).
      variance: 'signed', normalised standard deviations of either sign, as in Su, 2020,
        or 'positive', variances over their mean.

    Raises:
      ConfigError: tau out of range.
    """
    return GaussianLatent(functools.partial(MomentNorm, float(tau), variance))


@registry.checked("model.latent")
def delta_gaussian(delta: PositiveFloat = 0.15) -> GaussianLatent:
    """Returns Gaussians each dimension of which has a KL of at least `delta` nats.

    For every x, not only in the mean: the means keep away from 0 as far as that takes
    (after Razavi et al., 2019, https://arxiv.org/abs/1901.03416).

    Args:
      delta: nats that every dimension costs at least.

    Raises:
      ConfigError: delta is not positive.
    """
    return GaussianLatent(functools.partial(KlFloor, float(delta)))
