"""Latents: from the outputs of an encoder to q(z|x), and the prior that goes with it.

Each is a small frozen object that derives from `Latent` and has `num_outputs`,
`posterior` and `prior`; the other members have defaults:

  num_outputs(dim)       how many numbers the encoder's last layer must give
  posterior(outputs, annealed), prior(size, dim, annealed)   distribution objects
  event_shape(dim)       the shape of one example's latents, (dim,)
  layer()                a module on these numbers (and the mask), None for most
  flows(dim)             bijections that make q(z|x) and p(z), none for most
  uniform_prior          whether the prior is uniform, so that no temperature acts on it
  coefficients           what a trainer may anneal, {} for most
  interpolate(start, end, fraction)   the straight line, unless it leaves their space
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jvae import registry
from jvae.errors import require
from jvae.models.latents.base import Flows, Latent
from jvae.models.latents.flows import FlowLatent, flow
from jvae.models.latents.gaussians import (
    MAX_LOG_VAR,
    MIN_LOG_VAR,
    GaussianLatent,
    delta_gaussian,
    gaussian,
    moment_gaussian,
    normalized_gaussian,
)
from jvae.models.latents.gumbel import MIN_TEMPERATURE, GumbelLatent, gumbel_softmax
from jvae.models.latents.sphere import SphereLatent, von_mises_fisher

__all__ = [
    "LATENTS",
    "MAX_LOG_VAR",
    "MIN_LOG_VAR",
    "MIN_TEMPERATURE",
    "FlowLatent",
    "Flows",
    "GaussianLatent",
    "GumbelLatent",
    "Latent",
    "SphereLatent",
    "build",
]

LATENTS: dict[str, Callable[..., Any]] = {
    "gaussian": gaussian,
    "normalized_gaussian": normalized_gaussian,
    "moment_gaussian": moment_gaussian,
    "delta_gaussian": delta_gaussian,
    "flow": flow,
    "gumbel_softmax": gumbel_softmax,
    "von_mises_fisher": von_mises_fisher,
    "normalised_gaussian": normalized_gaussian,  # its name in 0.1.0
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
    built = registry.build_part(LATENTS, "model.latent", latent)
    has_means = num_classes is None or isinstance(built, GaussianLatent)
    rule = "be None unless model.latent is 'gaussian'"
    require(has_means, "model.num_classes", rule, num_classes)
    if isinstance(built, SphereLatent):
        where, rule = "model.latent_dim", "be at least 2 on a sphere"
        require(latent_dim >= 2, where, rule, latent_dim)
    return built
