"""Random numbers in bulk: those of jax.random, in one pass.

They are the same under JAX's default, `jax_threefry_partitionable`. On CPU JAX computes
its generator as a loop whose every turn reads and writes whole arrays. Written out it
fuses with what uses the numbers: a batch of 128x28x28 is binarised in 0.12 ms in place
of 0.62, and compiles in 0.08 s in place of 0.22 (two cores).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jvae.types import Array, Key

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def bits(key: Key, shape: Sequence[int]) -> Array:
    """Returns uniform uint32 words, `jax.random.bits(key, shape)`.

    Args:
      key: one key; another generator than JAX's default is left to JAX.
      shape: of fewer than 2^32 words.
    """
    if jax.random.key_impl(key) != "threefry2x32":
        return jax.random.bits(key, shape, jnp.uint32)
    counts = jnp.arange(math.prod(shape), dtype=jnp.uint32)
    high, low = cipher(jax.random.key_data(key), jnp.zeros_like(counts), counts)
    return (high ^ low).reshape(shape)


def uniform(key: Key, shape: Sequence[int]) -> Array:
    """Returns float32 multiples of 2^-23 in [0, 1), `jax.random.uniform(key, shape)`.

    Args:
      key: one key.
      shape: of the draws.
    """
    one = jnp.uint32(0x3F800000)  # 1.0; the words become its mantissa
    mantissa = bits(key, shape) >> jnp.uint32(9)
    return jax.lax.bitcast_convert_type(mantissa | one, jnp.float32) - 1.0


def uniform16(key: Key, shape: Sequence[int]) -> Array:
    """Returns float32 multiples of 2^-16 in [0, 1).

    A level of 8 bits and such a number are added exactly in float32.

    Args:
      key: one key.
      shape: of the draws.
    """
    return (bits(key, shape) & jnp.uint32(0xFFFF)).astype(jnp.float32) / 2.0**16


def normal(key: Key, shape: Sequence[int]) -> Array:
    """Returns float32 draws of N(0, 1), `jax.random.normal(key, shape)`.

    Args:
      key: one key.
      shape: of the draws.
    """
    least = np.nextafter(np.float32(-1.0), np.float32(0.0))
    u = uniform(key, shape) * (np.float32(1.0) - least) + least
    return np.float32(math.sqrt(2.0)) * jax.lax.erf_inv(jnp.maximum(least, u))


@functools.partial(jax.jit, inline=True)  # traced once for a shape: it is long
def cipher(key: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Returns the words x, y enciphered by Threefry-2x32 of 20 rounds.

    Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405.

    Args:
      key: uint32 [2].
      x: uint32, any shape.
      y: uint32, of that shape.
    """
    words = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY)
    x, y = x + words[0], y + words[1]
    for group in range(5):
        for turn in ROTATIONS[group % 2]:
            x = x + y
            y = x ^ (y << jnp.uint32(turn) | y >> jnp.uint32(32 - turn))
        x = x + words[(group + 1) % 3]
        y = y + words[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y
