"""Statistics of normalisation layers, measured anew over a whole split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jvae.data.sources import Source
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Array, Batch, Key

COLLECTION = "batch_stats"


def recomputed_statistics(
    trained: TrainedModel, source: Source, **examples: Unpack[Examples]
) -> TrainedModel:
    """Returns the model with the statistics of a split in place of running ones.

    Running statistics are averages over the last steps of training, of parameters that
    have changed since; those of averaged parameters were never measured at all. The
    inputs of a layer are what the layers before it make of a batch in training.

    Args:
      trained: the model; one without such layers is returned as it is.
      source: the training split, say.
      **examples: which examples, and the key of the transform and of draws.
    """
    if COLLECTION not in trained.state:
        return trained
    # The first round is about the running values, the second about its own result: a
    # variance about a point far from the mean is lost in float32.
    for _ in range(2):
        sums = trained.mean_over_batches(_moments, source, **examples)
        about = jax.device_get(trained.state[COLLECTION])
        measured = _by_layer(_statistics, sums, about)
        state = {**trained.state, COLLECTION: jax.tree.map(jnp.asarray, measured)}
        trained = dataclasses.replace(trained, state=state)
    return trained


def _moments(trained: TrainedModel, key: Key, batch: Batch) -> dict[str, Any]:
    """Returns of every layer numbers whose means over examples make its statistics.

    A layer turns its running value r into m r + (1 - m) b, b the value of the batch:
    from r = 0 and an r about as large as b both m and b are known.
    """
    reference = trained.state[COLLECTION]

    def after(old):
        variables = {**trained.variables, COLLECTION: old}
        _, new = trained.model.apply(variables, batch, key, mutable=[COLLECTION])
        return new[COLLECTION]

    def of_batch(at_zero, start, at_start):
        return at_zero / (1.0 - (at_start - at_zero) / start)

    at_zero = after(jax.tree.map(jnp.zeros_like, reference))
    start = jax.tree.map(lambda a: 1.0 + 100.0 * jnp.abs(a), at_zero)
    values = jax.tree.map(of_batch, at_zero, start, after(start))
    return _by_layer(_additive, values, reference)


def _by_layer(function: Any, tree: Mapping[str, Any], other: Mapping[str, Any]) -> Any:
    """Returns the tree with `function` applied to the statistics of each layer."""
    if any(isinstance(value, Mapping) for value in tree.values()):
        return {n: _by_layer(function, tree[n], other[n]) for n in tree}
    return function(tree, other)


def _additive(
    layer: Mapping[str, Array], about: Mapping[str, Array]
) -> dict[str, Array]:
    """Returns statistics of a batch as means over its examples."""
    if "var" in layer:
        square = layer["var"] + jnp.square(layer["mean"] - about["mean"])
        return {"mean": layer["mean"], "square": square}
    return {"exp": jnp.exp(layer["log_mean"] - about["log_mean"])}


def _statistics(
    layer: Mapping[str, np.ndarray], about: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the statistics that means over all examples make."""
    if "square" in layer:
        var = layer["square"] - np.square(layer["mean"] - about["mean"])
        return {"mean": layer["mean"], "var": np.maximum(var, 0.0)}
    return {"log_mean": about["log_mean"] + np.log(layer["exp"])}


def sampled(
    trained: TrainedModel,
    *,
    key: Key,
    temperature: float = 1.0,
    num_passes: int = 500,
    batch_size: int = 16,
) -> TrainedModel:
    """Returns the model with the statistics of its own samples, in layers they pass.

    In a deep hierarchy the layers of the top-down pass see other values when latents
    come from the prior, and others at a temperature. Each pass samples images as in
    training, where layers use the statistics of the batch and move the running ones
    towards them. For samples alone: likelihoods belong to the statistics of data.

    Vahdat & Kautz, 2020, https://arxiv.org/abs/2007.03898.

    Args:
      trained: the model, with `generate`; without such layers it is returned as it is.
      key: of the draws.
      temperature: of the samples.
      num_passes: how many.
      batch_size: images in each.
    """
    if COLLECTION not in trained.state:
        return trained
    for number in range(num_passes):
        new = trained.run(
            _sampled, jax.random.fold_in(key, number), temperature, size=batch_size
        )
        state = {**trained.state, COLLECTION: new}
        trained = dataclasses.replace(trained, state=state)
    return trained


def _sampled(trained: TrainedModel, key: Key, temperature: Array, *, size: int) -> Any:
    """Returns the statistics after one pass."""
    arguments = (key, size, temperature)
    return trained.call("generate", *arguments, mutable=[COLLECTION])[1][COLLECTION]
