"""A checksum of every array, the same however the array is spread over devices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jvae.types import Array

UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}
"""The word that a number of so many bytes is read as; one of 8 bytes as two."""


def checksum(array: Array) -> Array:
    """Returns a uint32 that changes with any bit, and with the order, of `array`.

    Every word is mixed with its position, so that each bit of it changes about half of
    the bits of the result (the finaliser of MurmurHash3, Appleby 2011), and the results
    are added modulo 2^32: integer sums do not depend on the order of summation, so
    neither sharding nor the number of devices matters.

    Args:
      array: any shape, any dtype, PRNG keys included.
    """
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    words = jax.lax.bitcast_convert_type(array, UNSIGNED[array.dtype.itemsize])
    words = words.reshape(-1).astype(jnp.uint32)
    position = jax.lax.iota(jnp.uint32, words.size)
    factor = (position * jnp.uint32(2654435761) + jnp.uint32(1)) | jnp.uint32(1)
    mixed = (words + jnp.uint32(0x9E3779B9)) * factor
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


@jax.jit
def _checksums(leaves: list[Array]) -> list[Array]:
    return [checksum(leaf) for leaf in leaves]


def checksums(tree: Any) -> dict[str, int]:
    """Returns the checksum of every array of a pytree, by path 'a/b/kernel'.

    A small computation on the devices that hold the arrays; waits for them.
    """
    paths, leaves = [], []
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        paths.append(jax.tree_util.keystr(path, simple=True, separator="/"))
        leaves.append(leaf)
    sums = jax.device_get(_checksums(leaves))
    return {path: int(value) for path, value in zip(paths, sums, strict=True)}
