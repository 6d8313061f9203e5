"""Categorical latents, relaxed in training."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar

import jax.numpy as jnp

from jvae import registry
from jvae.distributions import GumbelSoftmax
from jvae.models.latents.base import Latent
from jvae.ranges import Ge
from jvae.types import Array, Coefficients

MIN_TEMPERATURE = 1e-3
"""Below it a relaxed draw is one-hot in float32 and its gradients are 0 or huge."""


@dataclasses.dataclass(frozen=True)
class GumbelLatent(Latent):
    """q(z|x) a product of D categorical variables of K values; p(z) uniform.

    With the coefficient 'temperature', as `losses.build` gives it to a model, draws are
    relaxed and differentiable. Without it (evaluation, `jvae.restore`) the latents are
    one-hot and bounds are those of the discrete model.

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

    def posterior(self, outputs: Array, annealed: Coefficients) -> GumbelSoftmax:
        """Returns q(z|x), [B, D, K], relaxed if there is a temperature."""
        logits = outputs.reshape(outputs.shape[0], -1, self.num_values)
        return GumbelSoftmax(logits, _temperature(annealed, logits.shape[0]))

    def prior(self, size: int, dim: int, annealed: Coefficients) -> GumbelSoftmax:
        """Returns uniform variables, [B, D, K], relaxed as the posterior is."""
        shape = (size, dim, self.num_values)
        return GumbelSoftmax.uniform(*shape, _temperature(annealed, size))


@registry.checked("model.latent")
def gumbel_softmax(
    num_values: Annotated[int, Ge(2)] = 10,
    temperature: Annotated[float, Ge(MIN_TEMPERATURE)] = 1.0,
) -> GumbelLatent:
    """Returns `latent_dim` categorical variables, relaxed in training.

    Args:
      num_values: values of each variable, K.
      temperature: of the relaxation in training; config.schedules.temperature anneals
        it. Evaluation and sampling use one-hot codes.

    Raises:
      ConfigError: fewer than two values, or a temperature that is not positive.
    """
    return GumbelLatent(num_values, float(temperature))


def _temperature(annealed: Coefficients, size: int) -> Array | None:
    """Returns the temperature of every example, [B]; None if there is none."""
    if "temperature" not in annealed:
        return None
    each = jnp.full(size, annealed["temperature"], jnp.float32)
    return jnp.maximum(each, MIN_TEMPERATURE)
