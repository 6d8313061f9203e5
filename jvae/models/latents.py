"""Latents: from the outputs of an encoder to q(z|x), and the prior that goes with it.

Each is a small frozen object with

  num_outputs(dim)       how many numbers the encoder's last layer must give
  event_shape(dim)       the shape of one example's latents
  posterior(outputs, batch), prior(batch, dim)   distribution objects
  uniform_prior          whether the prior is uniform, so that no temperature acts on it
  coefficients           what a trainer may anneal, {} for most

and `between(start, end, fraction)`, where the straight line leaves their space.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import jax.numpy as jnp

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
from jvae.types import Array, Batch, batch_size

MIN_LOG_VAR, MAX_LOG_VAR = -15.0, 10.0
MIN_TEMPERATURE = 1e-3
"""Below it a relaxed draw is one-hot in float32 and its gradients are 0 or huge."""


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

    def posterior(self, outputs: Array, batch: Batch) -> Any:
        """Returns q(z|x) from [B, num_outputs(dim)] in float32."""

    def prior(self, batch: Batch, dim: int) -> Any:
        """Returns p(z), one for each row of the batch."""


@dataclasses.dataclass(frozen=True)
class GaussianLatent:
    """q(z|x) = N(mean, diag var), the log variance within [-15, 10]; p(z) = N(0, I)."""

    uniform_prior: ClassVar[bool] = False

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


def _temperature(batch: Batch) -> Array | None:
    """Returns batch['temperature'] [B], None if it has none."""
    if "temperature" not in batch:
        return None
    return jnp.maximum(batch["temperature"], MIN_TEMPERATURE)  # blanked rows have 0


@dataclasses.dataclass(frozen=True)
class GumbelLatent:
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
class SphereLatent:
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
