"""What every kind of latents is."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from flax import linen as nn

from jvae.flows import VectorSteps
from jvae.types import Array, Batch


class Flows(NamedTuple):
    """Bijections [B, D] -> [B, D] around the Gaussians of a latent, None for none.

    Attributes:
      posterior: from a draw of the Gaussian, and cond, to z.
      prior: from z to a standard Gaussian.
    """

    posterior: VectorSteps | None = None
    prior: VectorSteps | None = None


class Latent(Protocol):
    """What a VAE asks of its latents, see `jvae.models.latents`."""

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
