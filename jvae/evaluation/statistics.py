"""Statistics of normalisation layers, measured anew over a whole split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jvae.data.sources import Source
from jvae.evaluation.subject import Subject, over_batches
from jvae.types import Array, Batch, Key, Params, State

COLLECTION = "batch_stats"


def recomputed(
    subject: Subject,
    source: Source,
    *,
    batch_size: int,
    key: Key,
    num_examples: int | None = None,
) -> Subject:
    """Returns the subject with the statistics of a split in place of running ones.

    Running statistics are averages over the last steps of training, of parameters that
    have changed since; those of averaged parameters were never measured at all. The
    inputs of a layer are what the layers before it make of a batch in training.

    Args:
      subject: the model; one without such layers is returned as it is.
      source: the training split, say.
      batch_size: of all devices together.
      key: of the transform and of draws.
      num_examples: how many, the first of the split; None for all.
    """
    if COLLECTION not in subject.state:
        return subject
    sums = over_batches(
        subject,
        _moments,
        source,
        batch_size=batch_size,
        key=key,
        num_examples=num_examples,
    )
    state = {**subject.state, COLLECTION: _by_layer(sums, _statistics)}
    return dataclasses.replace(subject, state=jax.tree.map(jnp.asarray, state))


def _moments(
    model: Any, params: Params, state: State, key: Key, batch: Batch
) -> dict[str, Any]:
    """Returns of every layer numbers whose means over examples make its statistics.

    A layer turns its running value r into m r + (1 - m) b, b the value of the batch:
    from r = 0 and r = 1 both m and b are known.
    """

    def after(start):
        old = jax.tree.map(lambda a: jnp.full_like(a, start), state[COLLECTION])
        variables = {"params": params, **state, COLLECTION: old}
        _, new = model.apply(variables, batch, key, mutable=[COLLECTION])
        return new[COLLECTION]

    def of_batch(from_zero, from_one):
        return from_zero / (1.0 - (from_one - from_zero))

    values = jax.tree.map(of_batch, after(0.0), after(1.0))
    return _by_layer(values, _additive)


def _by_layer(tree: Mapping[str, Any], function: Any) -> dict[str, Any]:
    """Returns the tree with `function` applied to the statistics of each layer."""
    if any(isinstance(value, Mapping) for value in tree.values()):
        return {name: _by_layer(value, function) for name, value in tree.items()}
    return function(tree)


def _additive(layer: Mapping[str, Array]) -> dict[str, Array]:
    """Returns statistics of a batch as means over its examples."""
    if "var" in layer:
        square = layer["var"] + jnp.square(layer["mean"])
        return {"mean": layer["mean"], "square": square}
    return {"exp": jnp.exp(layer["log_mean"])}


def _statistics(layer: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the statistics that means over all examples make."""
    if "square" in layer:
        var = np.maximum(layer["square"] - np.square(layer["mean"]), 0.0)
        return {"mean": layer["mean"], "var": var}
    return {"log_mean": np.log(layer["exp"])}
