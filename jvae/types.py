"""The words of every other module: arrays, batches, what losses and models return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Key = jax.Array
"""A PRNG key, or an array of them with one key per example; see `jvae.keys`."""
Params = Mapping[str, Any]
"""The trained parameters of a model: Flax's 'params' collection."""
State = Mapping[str, Any]
"""A model's other collections ('batch_stats', ...), `{}` if it has none."""
Batch = Mapping[str, Array]
"""'image' or 'tokens', and if they exist 'label', 'length', 'mask', each [B, ...]."""
Coefficients = Mapping[str, Any]
"""Scalars by name that the trainer may anneal: 'beta', 'free_bits', ..."""
Metrics = dict[str, Array]


class Aux(NamedTuple):
    """What a loss returns beside its value.

    Attributes:
      metrics: scalars by name, every unweighted term of the loss among them.
      state: the model's updated collections, `{}` if it has none.
    """

    metrics: Metrics
    state: State


class Inference(NamedTuple):
    """One draw of a model's latents for each example, and what it costs.

    Attributes:
      latents: whatever the model's `likelihood` takes; leaves are [B, ...].
      kl: [B, groups], in nats: KL(q(z|x) || p(z)) split into the finest groups that
        the model offers (the dimensions of a diagonal posterior, the groups of a
        hierarchical one). Closed form where there is one, else log q - log p at the
        draw.
      log_ratio: [B], log q(z|x) - log p(z) at the draw, always; importance weights
        are made of it. A latent that is summed over, not drawn, is in `kl` alone.
    """

    latents: Any
    kl: Array
    log_ratio: Array


class Views(NamedTuple):
    """What an encoder makes of each example, for objectives that compare parts of it.

    Attributes:
      inference: a draw of the code z, [B, D], and what it costs.
      vector: [B, F], one view of the whole example.
      map: [B, h, w, C], views of its places.
    """

    inference: Inference
    vector: Array
    map: Array


LossFn = Callable[[Params, State, Key, Batch, Coefficients], tuple[Array, Aux]]
"""loss(params, state, key, batch, coefficients) -> (scalar, Aux); pure."""


def batch_size(batch: Batch) -> int:
    """Returns B, the number of rows of `batch` (masked ones included)."""
    return jax.tree.leaves(batch)[0].shape[0]


def float_dtype(*trees: Any) -> Any:
    """Returns float64 if any array of the trees is in float64, else float32.

    What goes in decides the precision of what comes out: JAX's own default, float64
    wherever JAX_ENABLE_X64 is set, is used nowhere.
    """
    is_double = any(a.dtype == jnp.float64 for a in jax.tree.leaves(trees))
    return jnp.float64 if is_double else jnp.float32


def at_least_float32(x: Array) -> Array:
    """Returns x in float32, or in float64 if that is what it is in."""
    return x.astype(float_dtype(x))
