"""Latents: from the outputs of an encoder to q(z|x), and the prior that goes with it.

Each is a small frozen object with

  num_outputs(dim)       how many numbers the encoder's last layer must give
  event_shape(dim)       the shape of one example's latents
  layer()                a module on these numbers (and the mask), None for most
  flows(dim)             bijections that make q(z|x) and p(z), None for most
  posterior(outputs, batch), prior(batch, dim)   distribution objects
  uniform_prior          whether the prior is uniform, so that no temperature acts on it
  coefficients           what a trainer may anneal, {} for most

and `between(start, end, fraction)`, where the straight line leaves their space.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import jax.numpy as jnp
from flax import linen as nn

from jvae import fields
from jvae.distributions import (
    DiagGaussian,
    GumbelSoftmax,
    UniformOnSphere,
    VonMisesFisher,
    slerp,
)
from jvae.distributions.von_mises_fisher import check_concentration
from jvae.errors import require
from jvae.flows import VectorSteps
from jvae.flows.coupling import Kind
from jvae.models.normalisation import KlFloor, MeanNorm, MomentNorm, Variance
from jvae.types import Array, Batch, batch_size

MIN_LOG_VAR, MAX_LOG_VAR = -15.0, 10.0
MIN_TEMPERATURE = 1e-3
"""Below it a relaxed draw is one-hot in float32 and its gradients are 0 or huge."""


class Flows(NamedTuple):
    """Bijections [B, D] -> [B, D] around the Gaussians of a latent, None for none.

    Attributes:
      posterior: from a draw of the Gaussian, and cond, to z.
      prior: from z to a standard Gaussian.
    """

    posterior: VectorSteps | None = None
    prior: VectorSteps | None = None


class Latent(Protocol):
    """What a VAE asks of its latents, see the top of the file."""

    @property
    def uniform_prior(self) -> bool:
        """Whether the prior is uniform."""

    @property
    def coefficients(self) -> dict[str, float]:
        """Coefficients that the trainer may anneal, and their fixed values."""

    def num_outputs(self, dim: int) -> int:
        """Returns how many numbers parametrise q(z|x)."""

    def event_shape(self, dim: int) -> tuple[int, ...]:
        """Returns the shape of one example's latents."""

    def layer(self) -> nn.Module | None:
        """Returns a module (outputs, mask [B] or None) -> outputs; None for none."""

    def flows(self, dim: int) -> Flows:
        """Returns the flows of q(z|x) and of p(z)."""

    def posterior(self, outputs: Array, batch: Batch) -> Any:
        """Returns q(z|x) from [B, num_outputs(dim)] in float32."""

    def prior(self, batch: Batch, dim: int) -> Any:
        """Returns p(z), one for each row of the batch."""


class NoFlows:
    """Latents that no flow moves."""

    def flows(self, dim: int) -> Flows:
        """Returns none."""
        return Flows()


class NoLayer(NoFlows):
    """Latents whose parameters are the encoder's outputs as they are."""

    def layer(self) -> None:
        """None."""
        return


@dataclasses.dataclass(frozen=True)
class GaussianLatent(NoFlows):
    """q(z|x) = N(mean, diag var), the log variance within [-15, 10]; p(z) = N(0, I).

    Attributes:
      make_layer: what makes the module that means and log variances go through.
    """

    make_layer: Callable[[], nn.Module] | None = None
    uniform_prior: ClassVar[bool] = False

    def layer(self) -> nn.Module | None:
        """Returns a normalisation, see `jvae.models.normalisation`; None for none."""
        return None if self.make_layer is None else self.make_layer()

    @property
    def coefficients(self) -> dict[str, float]:
        """None."""
        return {}

    def num_outputs(self, dim: int) -> int:
        """Returns 2 D, means and log variances."""
        return 2 * dim

    def event_shape(self, dim: int) -> tuple[int, ...]:
        """Returns (D,)."""
        return (dim,)

    def posterior(self, outputs: Array, batch: Batch) -> DiagGaussian:
        """Returns q(z|x), [B, D]."""
        mean, log_var = jnp.split(outputs, 2, axis=-1)
        return DiagGaussian(mean, jnp.clip(log_var, MIN_LOG_VAR, MAX_LOG_VAR))

    def prior(self, batch: Batch, dim: int) -> DiagGaussian:
        """Returns N(0, I), [B, D]."""
        return DiagGaussian.standard(batch_size(batch), dim)


@dataclasses.dataclass(frozen=True)
class FlowLatent(NoLayer):
    """Gaussians that flows turn into q(z|x), into N(0, I) of p(z), or both.

    Attributes:
      posterior_depth: steps between the encoder's Gaussian and z, 0 for none.
      prior_depth: steps between z and N(0, I), 0 for none.
      hidden: widths within the couplings.
      coupling: 'additive' or 'affine'.
      context: numbers of the encoder that the posterior's couplings see.
    """

    posterior_depth: int
    prior_depth: int
    hidden: tuple[int, ...]
    coupling: Kind
    context: int
    uniform_prior: ClassVar[bool] = False
    coefficients: ClassVar[dict[str, float]] = {}

    def num_outputs(self, dim: int) -> int:
        """Returns 2 D, means and log variances, and the context."""
        return 2 * dim + self.context

    def event_shape(self, dim: int) -> tuple[int, ...]:
        """Returns (D,)."""
        return (dim,)

    def flows(self, dim: int) -> Flows:
        """Returns the flows that have steps."""
        widths: dict[str, Any] = {"hidden": self.hidden, "coupling": self.coupling}
        of_posterior = of_prior = None
        if self.posterior_depth:
            widths_too = {**widths, "cond_features": self.context or None}
            of_posterior = VectorSteps(dim, self.posterior_depth, **widths_too)
        if self.prior_depth:
            of_prior = VectorSteps(dim, self.prior_depth, **widths)
        return Flows(of_posterior, of_prior)

    def posterior(self, outputs: Array, batch: Batch) -> DiagGaussian:
        """Returns the Gaussian, [B, D], before its flow."""
        size = outputs.shape[-1] - self.context
        return GaussianLatent().posterior(outputs[:, :size], batch)

    def cond(self, outputs: Array) -> Array | None:
        """Returns the context, [B, F], None for none."""
        return outputs[:, outputs.shape[-1] - self.context :] if self.context else None

    def prior(self, batch: Batch, dim: int) -> DiagGaussian:
        """Returns N(0, I), [B, D], behind its flow."""
        return GaussianLatent().prior(batch, dim)


def _temperature(batch: Batch) -> Array | None:
    """Returns batch['temperature'] [B], None if it has none."""
    if "temperature" not in batch:
        return None
    return jnp.maximum(batch["temperature"], MIN_TEMPERATURE)  # blanked rows have 0


@dataclasses.dataclass(frozen=True)
class GumbelLatent(NoLayer):
    """q(z|x) a product of D categorical variables of K values; p(z) uniform.

    With batch['temperature'] [B], which `losses.build` fills in from its coefficient
    'temperature', draws are relaxed and differentiable. Without it (evaluation,
    `jvae.restore`) the latents are one-hot and bounds are those of the discrete model.

    Attributes:
      num_values: K.
      temperature: the relaxation in training, unless a schedule anneals it.
    """

    num_values: int
    temperature: float
    uniform_prior: ClassVar[bool] = True

    @property
    def coefficients(self) -> dict[str, float]:
        """The temperature."""
        return {"temperature": self.temperature}

    def num_outputs(self, dim: int) -> int:
        """Returns D K logits."""
        return dim * self.num_values

    def event_shape(self, dim: int) -> tuple[int, ...]:
        """Returns (D, K)."""
        return (dim, self.num_values)

    def posterior(self, outputs: Array, batch: Batch) -> GumbelSoftmax:
        """Returns q(z|x), [B, D, K], relaxed if the batch has a temperature."""
        logits = outputs.reshape(len(outputs), -1, self.num_values)
        return GumbelSoftmax(logits, _temperature(batch))

    def prior(self, batch: Batch, dim: int) -> GumbelSoftmax:
        """Returns uniform variables, [B, D, K], relaxed as the posterior is."""
        shape = (batch_size(batch), dim, self.num_values)
        return GumbelSoftmax.uniform(*shape, _temperature(batch))


@dataclasses.dataclass(frozen=True)
class SphereLatent(NoLayer):
    """q(z|x) von Mises-Fisher on the unit sphere in D dimensions; p(z) uniform on it.

    Attributes:
      concentration: kappa, fixed, so the KL is a constant and cannot collapse.
    """

    concentration: float
    uniform_prior: ClassVar[bool] = True

    @property
    def coefficients(self) -> dict[str, float]:
        """None."""
        return {}

    def num_outputs(self, dim: int) -> int:
        """Returns D, a direction before it is normalised."""
        return dim

    def event_shape(self, dim: int) -> tuple[int, ...]:
        """Returns (D,)."""
        return (dim,)

    def posterior(self, outputs: Array, batch: Batch) -> VonMisesFisher:
        """Returns q(z|x), [B, D]."""
        square = jnp.square(outputs).sum(-1, keepdims=True)
        # Where all outputs are 0, as in a blanked row, there is no direction; the first
        # axis then, without the nan that the norm has for a gradient there.
        is_zero = square < 1e-24
        axis = jnp.zeros_like(outputs).at[:, 0].set(1.0)
        unit = outputs / jnp.sqrt(jnp.where(is_zero, 1.0, square))
        return VonMisesFisher(jnp.where(is_zero, axis, unit), self.concentration)

    def prior(self, batch: Batch, dim: int) -> UniformOnSphere:
        """Returns the uniform distribution, [B, D]."""
        return UniformOnSphere(batch_size(batch), dim)

    def between(self, start: Array, end: Array, fraction: Array) -> Array:
        """Returns points on the great circle between unit vectors."""
        return slerp(start, end, fraction)


def gaussian() -> GaussianLatent:
    """Returns a diagonal Gaussian against N(0, I)."""
    return GaussianLatent()


def normalised_gaussian(gamma: float = 0.6) -> GaussianLatent:
    """Returns Gaussians whose means are normalised over the batch (BN-VAE).

    So KL(q(z|x) || p(z)) is in the mean over a batch at least D gamma^2 / 2 nats.

    Args:
      gamma: standard deviation of the means over the batch, fixed.

    Raises:
      ConfigError: gamma is not positive.
    """
    where = "model.latent.gamma"
    require(0.0 < gamma < math.inf, where, "be positive and finite", gamma)
    return GaussianLatent(functools.partial(MeanNorm, float(gamma)))


def moment_gaussian(tau: float = 0.5, variance: Variance = "signed") -> GaussianLatent:
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
    require(0.0 < tau < 1.0, "model.latent.tau", "be within (0, 1)", tau)
    return GaussianLatent(functools.partial(MomentNorm, float(tau), variance))


def delta_gaussian(delta: float = 0.15) -> GaussianLatent:
    """Returns Gaussians each dimension of which has a KL of at least `delta` nats.

    For every x, not only in the mean: the means keep away from 0 as far as that takes
    (after Razavi et al., 2019, https://arxiv.org/abs/1901.03416).

    Args:
      delta: nats that every dimension costs at least.

    Raises:
      ConfigError: delta is not positive.
    """
    where = "model.latent.delta"
    require(0.0 < delta < math.inf, where, "be positive and finite", delta)
    return GaussianLatent(functools.partial(KlFloor, float(delta)))


def flow(
    posterior_depth: int = 0,
    prior_depth: int = 4,
    hidden: Sequence[int] = (64,),
    coupling: Kind = "affine",
    context: int = 16,
) -> FlowLatent:
    """Returns Gaussians that flows make more flexible.

    Args:
      posterior_depth: steps of a flow from the encoder's Gaussian to z; 0 for none,
        then q(z|x) is that Gaussian.
      prior_depth: steps of a flow between z and N(0, I); 0 for none, then p(z) is that.
      hidden: widths of the layers within the couplings.
      coupling: 'additive' or 'affine'.
      context: numbers that the encoder gives the posterior's couplings to see.

    Raises:
      ConfigError: a number out of range, or no flow at all.
    """
    where = "model.latent"
    counts = {"posterior_depth": posterior_depth, "prior_depth": prior_depth}
    for name, count in {**counts, "context": context}.items():
        require(count >= 0, f"{where}.{name}", "be at least 0", count)
    some = posterior_depth + prior_depth > 0
    require(some, f"{where}.prior_depth", "be positive without another flow", 0)
    widths_ok = all(width >= 1 for width in hidden)
    require(widths_ok, f"{where}.hidden", "hold widths of at least 1", tuple(hidden))
    context = context if posterior_depth else 0
    return FlowLatent(posterior_depth, prior_depth, tuple(hidden), coupling, context)


def gumbel_softmax(num_values: int = 10, temperature: float = 1.0) -> GumbelLatent:
    """Returns `latent_dim` categorical variables, relaxed in training.

    Args:
      num_values: values of each variable, K.
      temperature: of the relaxation in training; config.schedules.temperature anneals
        it. Evaluation and sampling use one-hot codes.

    Raises:
      ConfigError: fewer than two values, or a temperature that is not positive.
    """
    require(num_values >= 2, "model.latent.num_values", "be at least 2", num_values)
    where, rule = "model.latent.temperature", f"be at least {MIN_TEMPERATURE}"
    require(temperature >= MIN_TEMPERATURE, where, rule, temperature)
    return GumbelLatent(num_values, float(temperature))


def von_mises_fisher(concentration: float = 20.0) -> SphereLatent:
    """Returns directions in `latent_dim` dimensions.

    Args:
      concentration: kappa, fixed: the larger, the narrower q(z|x) and the larger the
        KL, which is the same for every x.

    Raises:
      ConfigError: a concentration that is not within (0, 1e5].
    """
    check_concentration(concentration, "model.latent.concentration")
    return SphereLatent(float(concentration))


LATENTS: dict[str, Callable[..., Any]] = {
    "gaussian": gaussian,
    "normalised_gaussian": normalised_gaussian,
    "moment_gaussian": moment_gaussian,
    "delta_gaussian": delta_gaussian,
    "flow": flow,
    "gumbel_softmax": gumbel_softmax,
    "von_mises_fisher": von_mises_fisher,
}


def build(
    latent: str | Mapping[str, Any], latent_dim: int, num_classes: int | None = None
) -> Latent:
    """Returns latents from their name, or from {'name': ..., fields}.

    Args:
      latent: see above.
      latent_dim: dimensions or variables that they will have.
      num_classes: of a conditional model, None for another.

    Raises:
      ConfigError: an unknown name or field, latents of impossible dimension, or class
        means for latents that are not Gaussian.
    """
    if isinstance(latent, str):
        latent = {"name": latent}
    if "name" not in latent:
        latent = {"name": "", **latent}
    built = fields.build(LATENTS, "model.latent", **latent)
    has_means = num_classes is None or isinstance(built, GaussianLatent)
    rule = "be None unless model.latent is 'gaussian'"
    require(has_means, "model.num_classes", rule, num_classes)
    if isinstance(built, SphereLatent):
        where, rule = "model.latent_dim", "be at least 2 on a sphere"
        require(latent_dim >= 2, where, rule, latent_dim)
    return built
