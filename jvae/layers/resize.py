"""Maps of another height and width."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jvae.types import Array


def double_nearest(x: Array) -> Array:
    """Returns [B, 2H, 2W, C], every place four times."""
    b, h, w, c = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return wide.reshape(b, 2 * h, 2 * w, c)


def double_bilinear(x: Array) -> Array:
    """Returns [B, 2H, 2W, C], linear between the places; corners stay corners.

    Output i of an axis of n places is at (n - 1) / (2 n - 1) i of the input.
    """
    rows, columns = (jnp.asarray(_weights(size), x.dtype) for size in x.shape[1:3])
    return jnp.einsum("th,uw,bhwc->btuc", rows, columns, x)


def _weights(size: int) -> np.ndarray:
    """Returns [2 size, size], how much of every input an output takes."""
    place = np.arange(2 * size) * (size - 1) / (2 * size - 1)
    distance = np.abs(place[:, None] - np.arange(size)[None, :])
    return np.maximum(1.0 - distance, 0.0).astype(np.float32)


def space_to_depth(x: Array, block: int = 2) -> Array:
    """Returns [B, H/b, W/b, b*b*C], channels ordered (row phase, column phase, C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // block, block, w // block, block, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // block, w // block, -1)


def depth_to_space(x: Array, block: int = 2) -> Array:
    """Returns [B, H*b, W*b, C/(b*b)], the inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, block, block, c // block**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * block, w * block, -1)
