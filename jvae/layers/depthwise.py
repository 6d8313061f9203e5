"""Depthwise convolutions: a kernel of its own for every channel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jvae.types import Array

DENSE_PLACES = 64
"""Maps of so many places are multiplied as a whole, on CPU."""


def depthwise_convolution(x: Array, kernel: Array) -> Array:
    """Returns the 'SAME' convolution of every channel of x [B, H, W, C] by itself.

    On CPU small maps are a product with one matrix [H W, H W] for every channel, and
    large ones a sum of shifted products. XLA's own form takes 4 times as long there.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, 1, C], h and w odd.
    """
    if jax.default_backend() != "cpu":
        return _grouped(x, kernel)
    if x.shape[1] * x.shape[2] <= DENSE_PLACES:
        return _dense(x, kernel)
    return _shifted(x, kernel)


def _grouped(x: Array, kernel: Array) -> Array:
    """The same by XLA's own convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _dense(x: Array, kernel: Array) -> Array:
    """The same as a product over all places, one matrix for every channel."""
    b, h, w, c = x.shape
    rows = _taps(h, kernel.shape[0]).astype(kernel.dtype)
    columns = _taps(w, kernel.shape[1]).astype(kernel.dtype)
    by_column = jnp.einsum("klc,uvl->kcuv", kernel[:, :, 0], columns)
    matrix = jnp.einsum("kcuv,stk->csutv", by_column, rows).reshape(c, h * w, h * w)
    channels_first = x.reshape(b, h * w, c).transpose(2, 0, 1)
    y = jax.lax.batch_matmul(channels_first, matrix)
    return y.transpose(1, 2, 0).reshape(b, h, w, c)


def _taps(size: int, width: int) -> np.ndarray:
    """Returns [size, size, width], 1 where tap k of output t reads input s."""
    offset = np.arange(size)[:, None] - np.arange(size)[None, :] + width // 2
    return (offset[..., None] == np.arange(width)).astype(np.float32)


def _shifts(x: Array, kernel: Array) -> list[list[Array]]:
    """Returns what every tap of the kernel sees of x."""
    kh, kw = kernel.shape[:2]
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    return [[padded[:, i : i + h, j : j + w] for j in range(kw)] for i in range(kh)]


@jax.custom_vjp
def _shifted(x: Array, kernel: Array) -> Array:
    """The same as a sum of shifted products, whose gradients are others."""
    shifts = _shifts(x, kernel)
    terms = [
        seen * kernel[i, j, 0].reshape(1, 1, 1, -1)
        for i, row in enumerate(shifts)
        for j, seen in enumerate(row)
    ]
    return sum(terms[1:], terms[0])


def _shifted_forward(x, kernel):
    return _shifted(x, kernel), (x, kernel)


def _shifted_backward(residuals, g):
    x, kernel = residuals
    dx = _shifted(g, jnp.flip(kernel, (0, 1)))
    sums = [[(seen * g).sum((0, 1, 2)) for seen in row] for row in _shifts(x, kernel)]
    dw = jnp.stack([jnp.stack(row) for row in sums])
    return dx, dw[:, :, None].astype(kernel.dtype)


_shifted.defvjp(_shifted_forward, _shifted_backward)
