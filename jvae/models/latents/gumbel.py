"""Categorical latents, relaxed in training."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from jvae.distributions import GumbelSoftmax
from jvae.errors import require
from jvae.models.latents.base import NoLayer
from jvae.types import Array, Batch, batch_size

MIN_TEMPERATURE = 1e-3
"""Below it a relaxed draw is one-hot in float32 and its gradients are 0 or huge."""


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
        logits = outputs.reshape(outputs.shape[0], -1, self.num_values)
        return GumbelSoftmax(logits, _temperature(batch))

    def prior(self, batch: Batch, dim: int) -> GumbelSoftmax:
        """Returns uniform variables, [B, D, K], relaxed as the posterior is."""
        shape = (batch_size(batch), dim, self.num_values)
        return GumbelSoftmax.uniform(*shape, _temperature(batch))


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


def _temperature(batch: Batch) -> Array | None:
    """Returns batch['temperature'] [B], None if it has none."""
    if "temperature" not in batch:
        return None
    return jnp.maximum(batch["temperature"], MIN_TEMPERATURE)  # blanked rows have 0
