"""What every kind of latents is."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from flax import linen as nn

from jvae.flows import VectorSteps
from jvae.types import Array, Coefficients


class Flows(NamedTuple):
    """Bijections [B, D] -> [B, D] around the Gaussians of a latent, None for none.

    Attributes:
      posterior: from a draw of the Gaussian, and cond, to z.
      prior: from z to a standard Gaussian.
    """

    posterior: VectorSteps | None = None
    prior: VectorSteps | None = None


class Latent:
    """Latents of a VAE: q(z|x) of what an encoder says, and p(z).

    The base of all, with defaults; see `jvae.models.latents`.
    """

    uniform_prior: ClassVar[bool] = False

    @property
    def coefficients(self) -> dict[str, float]:
        """What a trainer may anneal, and its fixed values."""
        return {}

    def num_outputs(self, dim: int) -> int:
        """Returns how many numbers parametrise q(z|x)."""
        raise NotImplementedError

    def event_shape(self, dim: int) -> tuple[int, ...]:
        """Returns the shape of one example's latents."""
        return (dim,)

    def layer(self) -> nn.Module | None:
        """Returns a module (outputs, mask [B] or None) -> outputs; None for none."""
        return None

    def flows(self, dim: int) -> Flows:
        """Returns the flows of q(z|x) and of p(z)."""
        return Flows()

    def cond(self, outputs: Array) -> Array | None:
        """Returns what the flow of q(z|x) reads of x, [B, F], None for nothing."""
        return None

    def posterior(self, outputs: Array, annealed: Coefficients) -> Any:
        """Returns q(z|x).

        Args:
          outputs: [B, num_outputs(dim)] in float32.
          annealed: values of `coefficients` in training, {} outside of it.
        """
        raise NotImplementedError

    def prior(self, size: int, dim: int, annealed: Coefficients) -> Any:
        """Returns p(z), one for each of `size` examples."""
        raise NotImplementedError

    def interpolate(self, start: Array, end: Array, fraction: Array) -> Array:
        """Returns latents between two: on the straight line."""
        return (1.0 - fraction) * start + fraction * end
