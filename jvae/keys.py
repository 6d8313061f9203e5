"""Keys of draws, one per example.

A draw for example i uses key i, so that its value does not depend on how a batch is
chunked, vmapped or sharded. Wherever a function takes "a key", it takes one key (then
example i uses key i of `split(key, B)`) or an array of B keys, typed or legacy.
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


def typed(key: Key) -> Key:
    """Returns keys as `jax.random.key` makes them.

    Legacy ones, of `jax.random.PRNGKey`, are wrapped: uint32 [2] is one key, [B, 2] are
    B keys.
    """
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if is_typed else jax.random.wrap_key_data(key)


def per_example(key: Key, num_examples: int) -> Key:
    """Returns [B] keys: `key` itself if it is one per example, else its split.

    Args:
      key: one key, or [B] keys.
      num_examples: B.

    Raises:
      ValueError: `key` is an array of another number of keys.
    """
    key = typed(key)
    if key.ndim == 0:
        return jax.random.split(key, num_examples)
    if key.shape != (num_examples,):
        raise ValueError(
            f"key must be one key or {num_examples} keys, got shape {key.shape}."
        )
    return key


def split_each(key: Key, num: int) -> Key:
    """Returns [num, B] keys: every one of the [B] keys split into `num`."""
    return swapped(jax.vmap(lambda k: jax.random.split(k, num))(typed(key)))


def swapped(key: Key) -> Key:
    """Returns typed keys [A, B] as [B, A].

    Swapped as numbers: JAX_DEBUG_KEY_REUSE takes a transpose of keys for a use of them.
    """
    data = jax.random.key_data(key).swapaxes(0, 1)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def at_indices(key: Key, indices: Array) -> Key:
    """Returns [B] keys for the examples with these [B] positions in a data set.

    Evaluation uses them: an example keeps its draws whatever the batch size.
    """
    key = typed(key)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))
