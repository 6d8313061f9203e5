"""Gaussian latents with flows around them."""

from __future__ import annotations

import dataclasses
from typing import Any

from jvae import registry
from jvae.distributions import DiagGaussian
from jvae.errors import require
from jvae.flows import VectorSteps
from jvae.flows.coupling import Kind
from jvae.models.latents.base import Flows, Latent
from jvae.models.latents.gaussians import GaussianLatent
from jvae.ranges import NonNegativeInt, Widths
from jvae.types import Array, Coefficients


@dataclasses.dataclass(frozen=True)
class FlowLatent(Latent):
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

    def num_outputs(self, dim: int) -> int:
        """Returns 2 D, means and log variances, and the context."""
        return 2 * dim + self.context

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

    def posterior(self, outputs: Array, annealed: Coefficients) -> DiagGaussian:
        """Returns the Gaussian, [B, D], before its flow."""
        size = outputs.shape[-1] - self.context
        return GaussianLatent().posterior(outputs[:, :size], annealed)

    def cond(self, outputs: Array) -> Array | None:
        """Returns the context, [B, F], None for none."""
        return outputs[:, outputs.shape[-1] - self.context :] if self.context else None

    def prior(self, size: int, dim: int, annealed: Coefficients) -> DiagGaussian:
        """Returns N(0, I), [B, D], behind its flow."""
        return GaussianLatent().prior(size, dim, annealed)


@registry.checked("model.latent")
def flow(
    posterior_depth: NonNegativeInt = 0,
    prior_depth: NonNegativeInt = 4,
    hidden: Widths = (64,),
    coupling: Kind = "affine",
    context: NonNegativeInt = 16,
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
    some = posterior_depth + prior_depth > 0
    require(some, "model.latent.prior_depth", "be positive without another flow", 0)
    context = context if posterior_depth else 0
    return FlowLatent(posterior_depth, prior_depth, tuple(hidden), coupling, context)
