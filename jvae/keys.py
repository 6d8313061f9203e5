"""Keys of draws, one per example.

A draw for example i uses key i, so that its value does not depend on how a batch is
chunked, vmapped or sharded. Wherever a function takes "a key", it takes one key (then
example i uses key i of `split(key, B)`) or an array of B keys.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jvae.errors import require
from jvae.types import Array, Key

NUM_SEEDS = 2**32
"""JAX takes larger seeds modulo this number, so that they would repeat."""


def of_seed(seed: int) -> Key:
    """Returns the key of a seed.

    Raises:
      ConfigError: it is not in 0 .. 2^32 - 1.
    """
    require(0 <= seed < NUM_SEEDS, "seed", f"be in 0 .. {NUM_SEEDS - 1}", seed)
    return jax.random.key(seed)


def per_example(key: Key, num_examples: int) -> Key:
    """Returns [B] keys: `key` itself if it is one per example, else its split.

    Args:
      key: one typed key, or [B] keys.
      num_examples: B.

    Raises:
      ValueError: `key` is an array of another number of keys.
    """
    if key.ndim == 0:
        return jax.random.split(key, num_examples)
    if key.shape != (num_examples,):
        raise ValueError(
            f"key must be one key or {num_examples} keys, got shape {key.shape}."
        )
    return key


def split_each(key: Key, num: int) -> Key:
    """Returns [num, B] keys: every one of the [B] keys split into `num`."""
    return jax.vmap(lambda k: jax.random.split(k, num), out_axes=1)(key)


def at_indices(key: Key, indices: Array) -> Key:
    """Returns [B] keys for the examples with these [B] positions in a data set.

    Evaluation uses them: an example keeps its draws whatever the batch size.
    """
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))
