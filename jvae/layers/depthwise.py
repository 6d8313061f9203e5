"""Depthwise convolutions: a kernel of its own for every channel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jvae.layers.bilinear import (
    Bilinear,
    Form,
    Like,
    Shape,
    transpose_to_kernel,
    transpose_to_x,
)
from jvae.layers.cpu_convolutions import xla_convolution
from jvae.types import Array

DENSE_PLACES = 49
"""Maps of so many places are multiplied as a whole, on CPU."""
TERMS = 32
"""Products that are summed at once in the gradient of a kernel."""


def depthwise_convolution(x: Array, kernel: Array) -> Array:
    """Returns the 'SAME' convolution of every channel of x [B, H, W, C] by itself.

    On CPU small maps are a product with one matrix [H W, H W] for every channel, and
    large ones a sum of shifted products, whose gradients are in the same form: of 64
    maps of 32x32x96 all three take 40 ms on two cores, and XLA's own form ten times
    that.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, 1, C], h and w odd.
    """
    return _depthwise(x, kernel)


def _grouped(x: Array, kernel: Array) -> Array:
    return xla_convolution(x, kernel, 1, "SAME", groups=x.shape[-1])


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


def _shifted(x: Array, kernel: Array) -> Array:
    """The same as a sum of shifted products."""
    kh, kw = kernel.shape[:2]
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    terms = [
        padded[:, i : i + h, j : j + w] * kernel[i, j, 0].reshape(1, 1, 1, -1)
        for i in range(kh)
        for j in range(kw)
    ]
    return sum(terms[1:], terms[0])


def _shifted_to_kernel(x: Array, g: Array, like: Like) -> Array:
    """Returns [h, w, 1, C], the sum over places of g times what each tap sees of x.

    XLA:CPU sums over all axes but the last one number at a time. So a few places are
    done at once, for all images and taps, and added to what those before them gave: a
    sum of shifted products again, with images and taps in the place of places.
    """
    kh, kw = like.shape[:2]
    b, h, w, c = g.shape
    width = _divisor(w, TERMS)
    height = _divisor(h, TERMS // width)
    padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))

    def add(total, block):
        row, column = block // (w // width) * height, block % (w // width) * width
        start, size = (0, row, column, 0), (b, height + kh - 1, width + kw - 1, c)
        window = jax.lax.dynamic_slice(padded, start, size)
        here = jax.lax.dynamic_slice(g, start, (b, height, width, c))
        terms = [
            window[:, i : i + kh, j : j + kw] * here[:, i : i + 1, j : j + 1]
            for i in range(height)
            for j in range(width)
        ]
        return total + sum(terms[1:], terms[0]), None

    blocks = jnp.arange(h * w // (height * width))
    start = jnp.zeros((b, kh, kw, c), jnp.result_type(x, g))
    total = jax.lax.scan(add, start, blocks)[0]
    return total.sum(0)[:, :, None]


def _divisor(size: int, most: int) -> int:
    """Returns the largest divisor of `size` that is at most `most`."""
    return max(n for n in range(1, min(size, most) + 1) if size % n == 0)


def _is_small(shape: Shape) -> bool:
    """Returns whether maps of this shape are multiplied as a whole."""
    return shape[1] * shape[2] <= DENSE_PLACES


def _cpu_product(x: Array, kernel: Array) -> Array:
    return (_dense if _is_small(x.shape) else _shifted)(x, kernel)


def _cpu_to_x(g: Array, kernel: Array, *, like: Like) -> Array:
    if _is_small(like.shape):
        return transpose_to_x(_dense, g, kernel, like=like)
    return _shifted(g, jnp.flip(kernel, (0, 1)))


def _cpu_to_kernel(x: Array, g: Array, *, like: Like) -> Array:
    if _is_small(x.shape):
        return transpose_to_kernel(_dense, x, g, like=like)
    return _shifted_to_kernel(x, g, like)


_depthwise = Bilinear(
    "depthwise_convolution",
    Form(_grouped),
    cpu=Form(_cpu_product, _cpu_to_x, _cpu_to_kernel),
)
