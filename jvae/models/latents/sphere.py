"""Latents that are directions."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp

from jvae import registry
from jvae.distributions import UniformOnSphere, VonMisesFisher, slerp
from jvae.distributions.von_mises_fisher import MAX_CONCENTRATION
from jvae.models.latents.base import Latent
from jvae.ranges import Gt, Le
from jvae.types import Array, Coefficients


@dataclasses.dataclass(frozen=True)
class SphereLatent(Latent):
    """q(z|x) von Mises-Fisher on the unit sphere in D dimensions; p(z) uniform on it.

    Attributes:
      concentration: kappa, fixed, so the KL is a constant and cannot collapse.
    """

    concentration: float
    uniform_prior: ClassVar[bool] = True

    def num_outputs(self, dim: int) -> int:
        """Returns D, a direction before it is normalised."""
        return dim

    def posterior(self, outputs: Array, annealed: Coefficients) -> VonMisesFisher:
        """Returns q(z|x), [B, D]."""
        square = jnp.square(outputs).sum(-1, keepdims=True)
        # Where all outputs are 0, as in a blanked row, there is no direction; the first
        # axis then, without the nan that the norm has for a gradient there.
        is_zero = square < 1e-24
        axis = jnp.zeros_like(outputs).at[:, 0].set(1.0)
        unit = outputs / jnp.sqrt(jnp.where(is_zero, 1.0, square))
        return VonMisesFisher(jnp.where(is_zero, axis, unit), self.concentration)

    def prior(self, size: int, dim: int, annealed: Coefficients) -> UniformOnSphere:
        """Returns the uniform distribution, [B, D]."""
        return UniformOnSphere(size, dim)

    def interpolate(self, start: Array, end: Array, fraction: Array) -> Array:
        """Returns points on the great circle between unit vectors."""
        return slerp(start, end, fraction)


@registry.checked("model.latent")
def von_mises_fisher(
    concentration: Annotated[float, Gt(0), Le(MAX_CONCENTRATION)] = 20.0,
) -> SphereLatent:
    """Returns directions in `latent_dim` dimensions.

    Args:
      concentration: kappa, fixed: the larger, the narrower q(z|x) and the larger the
        KL, which is the same for every x.

    Raises:
      ConfigError: a concentration that is not within (0, 1e5].
    """
    return SphereLatent(float(concentration))
