"""Samplers by name, and the codes that they are fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jvae import keys, registry
from jvae.data.sources import Source
from jvae.errors import ConfigError, require
from jvae.pretrained.samplers.flow import fit_flow
from jvae.pretrained.samplers.mixture import fit_gaussian, fit_mixture
from jvae.pretrained.samplers.neighbors import fit_neighbors
from jvae.pretrained.trained_model import TrainedModel
from jvae.types import Array, Batch, Key, batch_size

SAMPLERS: dict[str, Callable[..., Any]] = {
    "gaussian": fit_gaussian,
    "gmm": fit_mixture,
    "neighbours": fit_neighbors,
    "flow": fit_flow,
}
"""What is fitted to codes [N, D], by name."""


def build(name: str, codes: np.ndarray, seed: int = 0, **options: Any) -> Any:
    """Returns the sampler `name`, fitted to codes.

    Args:
      name: a key of `SAMPLERS`.
      codes: [N, D].
      seed: of the fit.
      **options: the function's own.

    Raises:
      ConfigError: unknown name or option, or an option out of range.
    """
    function = registry.resolve(SAMPLERS, name, "sampler")
    registry.check(function, options, "sampler", skip=("codes", "seed"))
    return function(codes, seed, **options)


def training_codes(
    trained: TrainedModel,
    source: Source,
    *,
    key: Key,
    batch_size: int = 256,
    num_examples: int = 10_000,
) -> np.ndarray:
    """Returns [N, D], one draw of q(z|x) for each of the first examples of a split.

    Draws and not means, as a decoder has learned to read draws.

    Args:
      trained: a model whose codes are vectors of real numbers, with one prior.
      source: the training split.
      key: of the transform and of the draws.
      batch_size: of all devices together; the result does not depend on it.
      num_examples: at most so many.

    Raises:
      ConfigError: a model of another kind.
    """
    check_samplable(trained)
    require(num_examples >= 2, "num_examples", "be at least 2", num_examples)
    counts = {"batch_size": batch_size, "num_examples": min(num_examples, len(source))}
    terms = trained.map_examples(posterior_draws, source, key=key, **counts)
    if terms.ndim != 2:
        raise ConfigError(f"codes are not vectors, but {list(terms.shape[1:])} each")
    return terms


def check_samplable(trained: TrainedModel) -> None:
    """Raises ConfigError for a model whose codes no sampler here can stand for."""
    model = trained.model
    name, why = type(model).__name__, None
    if not (model.offers("posterior") and model.offers("decode")):
        why = "has not one q(z|x) and a decoder"
    elif trained.has_uniform_prior:
        why = "has codes that are no real vectors"
    elif model.num_classes is not None:
        why = "has a prior for each class"
    elif model.is_lossless:
        why = "is a flow, whose prior is exact"
    if why is not None:
        raise ConfigError(f"{name} {why}: no sampler can be fitted")


def posterior_draws(trained: TrainedModel, key: Key, batch: Batch) -> Array:
    """Returns a draw of q(z|x) of every image, [B, ...]."""

    def draw(model, batch, key):
        return model.posterior(batch).sample_and_log_prob(key)[0]

    each = keys.per_example(key, batch_size(batch))
    return trained.call(draw, batch, each)
