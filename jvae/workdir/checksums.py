"""A checksum of every array, the same however the array is spread over devices."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jvae.types import Array

WORDS = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint32"}
"""The word that a number of so many bytes is read as; one of 8 bytes as two."""
ON_HOST = 2**20
"""Bytes below which an array is summed by NumPy: compiling would take longer."""


def path_name(path: tuple) -> str:
    """Returns 'params/encoder/Dense_0/kernel' for a key path of a pytree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a pytree by path, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


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
    words = jax.lax.bitcast_convert_type(array, WORDS[array.dtype.itemsize])
    return _sum(words.reshape(-1).astype(jnp.uint32), jnp)


def _sum(words: Any, xp: ModuleType) -> Any:
    """Returns the checksum of words uint32 [N], by NumPy or by JAX."""
    position = xp.arange(words.size, dtype=xp.uint32)
    factor = (position * xp.uint32(2654435761) + xp.uint32(1)) | xp.uint32(1)
    mixed = (words + xp.uint32(0x9E3779B9)) * factor
    mixed = (mixed ^ (mixed >> 16)) * xp.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * xp.uint32(0xC2B2AE35)
    return xp.sum(mixed ^ (mixed >> 16), dtype=xp.uint32)


def _on_host(array: np.ndarray) -> int:
    """Returns the same checksum of an array that the host holds."""
    array = np.ascontiguousarray(array).reshape(-1)
    words = array.view(WORDS[array.dtype.itemsize]).astype(np.uint32)
    return int(_sum(words, np))


@jax.jit
def _checksums(leaves: dict[str, Array]) -> dict[str, Array]:
    return {path: checksum(leaf) for path, leaf in leaves.items()}


def checksums(tree: Any) -> dict[str, int]:
    """Returns the checksum of every array of a pytree, by path 'a/b/kernel'.

    Of large arrays a computation on the devices that hold them, of small ones on the
    host. Waits for them.
    """
    leaves = by_path(tree)
    small = {path: leaf for path, leaf in leaves.items() if _is_small(leaf)}
    large = {path: leaf for path, leaf in leaves.items() if path not in small}

    sums = {path: _on_host(leaf) for path, leaf in jax.device_get(small).items()}
    if large:
        found = jax.device_get(_checksums(large))
        sums |= {path: int(value) for path, value in found.items()}
    return {path: sums[path] for path in leaves}


def _is_small(leaf: Array) -> bool:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return False
    is_here = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable
    return is_here and leaf.nbytes < ON_HOST
