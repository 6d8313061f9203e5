"""Convolutions in the forms that are fast on CPU."""

from __future__ import annotations

import functools
from typing import Any

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
from jvae.layers.pointwise import cpu_row_product
from jvae.layers.resize import space_to_depth
from jvae.types import Array

THIN = 8
"""Channels, of the side that has fewer, of convolutions that are products on CPU.

A 3x3 one to 4 channels with its gradients, 64 maps of 16x16x64, takes 2.6 ms so and
6.5 ms by XLA's convolutions (2 cores).
"""


def xla_convolution(
    x: Array, kernel: Array, stride: int, padding: Any, groups: int = 1
) -> Array:
    """Returns XLA's own convolution; `groups` of channels are convolved apart."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def product(x: Array, kernel: Array, *, stride: int, in_loop: bool) -> Array:
    """Returns the 'SAME' convolution; see `jvae.layers.convolution`."""
    if _is_pointwise(kernel.shape, stride):
        return cpu_row_product(x, kernel[0, 0])
    if _has_own_gradients(kernel.shape, stride, in_loop):
        return _own_product(x, kernel)
    if in_loop:
        return _loop_strided(x, kernel, stride)
    return xla_convolution(x, kernel, stride, "SAME")


def to_x(g: Array, kernel: Array, *, like: Like, **options: Any) -> Array:
    """Returns the gradient of x."""
    if _has_own_gradients(kernel.shape, **options):
        return _own_to_x(g, kernel, like=like)
    return transpose_to_x(product, g, kernel, like=like, **options)


def to_kernel(x: Array, g: Array, *, like: Like, **options: Any) -> Array:
    """Returns the gradient of the kernel."""
    if _has_own_gradients(like.shape, **options):
        return _own_to_kernel(x, g, like=like)
    return transpose_to_kernel(product, x, g, like=like, **options)


def upsampled(x: Array, kernel: Array, *, in_loop: bool) -> Array:
    """Returns the transposed convolution, a small stride-1 one for every phase."""
    b, h, w, _ = x.shape
    rows, columns = (_phases(size) for size in kernel.shape[:2])
    y = jnp.stack(
        [jnp.stack([_phase(x, kernel, r, c) for c in columns], 3) for r in rows], 2
    )
    return y.reshape(b, 2 * h, 2 * w, kernel.shape[3])


def _is_pointwise(shape: Shape, stride: int) -> bool:
    return shape[:2] == (1, 1) and stride == 1


def _has_own_gradients(shape: Shape, stride: int, in_loop: bool) -> bool:
    """Returns whether XLA's gradients of a convolution would be slow."""
    if stride != 1 or _is_pointwise(shape, stride):
        return False
    return in_loop or shape[2] > shape[3] or _is_thin(shape)


def _shifted(x: Array, pads: list[tuple[int, int]]) -> Array:
    """Returns [B, H, W, kh kw C], patches of all places; kh is the sum of pads + 1."""
    kh, kw = (sum(pad) + 1 for pad in pads)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    h, w = x.shape[1:3]
    shifts = [padded[:, i : i + h, j : j + w, :] for i in range(kh) for j in range(kw)]
    return jnp.concatenate(shifts, axis=-1)


def _same(size: int) -> tuple[int, int]:
    """Returns the 'SAME' padding of a stride-1 kernel of this size."""
    return (size - 1) // 2, size // 2


def _is_thin(shape: Shape) -> bool:
    """Returns whether a kernel of this shape has few channels on a side."""
    return min(shape[2:]) <= THIN


def _same_size(x: Array, kernel: Array, pads: list[tuple[int, int]]) -> Array:
    """Returns the stride-1 convolution with padding after which it is as large as x.

    One with few channels on a side is one matrix product: every tap of the kernel needs
    moved maps, and those of the thin side are soon moved.
    """
    if not _is_thin(kernel.shape):
        return xla_convolution(x, kernel, 1, pads)
    kh, kw, c_in, c_out = kernel.shape
    if c_in <= c_out:
        matrix = kernel.reshape(-1, c_out)
        return cpu_row_product(_shifted(x, pads), matrix)
    matrix = kernel.transpose(2, 0, 1, 3).reshape(c_in, -1)
    taps = cpu_row_product(x, matrix)
    taps = taps.reshape(*x.shape[:3], kh, kw, c_out)
    padded = jnp.pad(taps, ((0, 0), *pads, (0, 0), (0, 0), (0, 0)))
    h, w = x.shape[1:3]
    moved = [
        padded[:, i : i + h, j : j + w, i, j] for i in range(kh) for j in range(kw)
    ]
    return sum(moved[1:], moved[0])


def _own_product(x: Array, kernel: Array) -> Array:
    """A stride-1 'SAME' convolution for CPU, its gradients fast in a loop too."""
    return _same_size(x, kernel, [_same(size) for size in kernel.shape[:2]])


def _own_to_x(g: Array, kernel: Array, *, like: Like) -> Array:
    """Returns dL/dx, a convolution with the flipped kernel."""
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    return _same_size(g, flipped, [_same(size)[::-1] for size in kernel.shape[:2]])


def _own_to_kernel(x: Array, g: Array, *, like: Like) -> Array:
    gradient = _thin_gradient if _is_thin(like.shape) else _thick_gradient
    return gradient(x, g, like.shape)


_own_convolution = Bilinear(
    "own_convolution", Form(_own_product, _own_to_x, _own_to_kernel)
)


def _thin_gradient(x: Array, g: Array, shape: Shape) -> Array:
    """Returns dL/dw, one matrix product with the patches of the thinner side."""
    kh, kw, c_in, c_out = shape
    pads = [_same(kh), _same(kw)]
    if c_in <= c_out:
        patches = _shifted(x, pads).reshape(-1, kh * kw * c_in)
        return (patches.T @ g.reshape(-1, c_out)).reshape(shape)
    # What moves x to one side moves g to the other.
    patches = _shifted(g, [pad[::-1] for pad in pads]).reshape(-1, kh * kw * c_out)
    dw = (x.reshape(-1, c_in).T @ patches).reshape(c_in, kh, kw, c_out)
    return jnp.flip(dw.transpose(1, 2, 0, 3), (0, 1))


def _thick_gradient(x: Array, g: Array, shape: Shape) -> Array:
    """Returns dL/dw, a convolution of maps with maps whose channels are the examples.

    The maps are those of the side with fewer channels: 10 to 30% faster. Behind the
    barrier XLA sees an ordinary convolution. Left to itself it folds the transposes
    into it, and computes that 20 to 50 times slower inside a while loop.
    """
    c_in, c_out = shape[2:]
    pads = [_same(size) for size in shape[:2]]
    if c_in > c_out:  # what moves x to one side moves g to the other
        maps, kernels, pads = g, x, [pad[::-1] for pad in pads]
    else:
        maps, kernels = x, g
    maps, kernels = jax.lax.optimization_barrier(
        (maps.transpose(3, 1, 2, 0), kernels.transpose(1, 2, 0, 3))
    )
    dw = xla_convolution(maps, kernels, 1, pads)
    if c_in > c_out:
        return jnp.flip(dw, (1, 2)).transpose(1, 2, 3, 0)
    return dw.transpose(1, 2, 0, 3)


def _loop_strided(x: Array, kernel: Array, stride: int) -> Array:
    """A strided 'SAME' convolution as a stride-1 one of the space-to-depth image."""
    kh, kw = kernel.shape[:2]
    h, w = x.shape[1:3]
    above, beside = (_strided_same(n, k, stride)[0] for n, k in ((h, kh), (w, kw)))
    out = [-(-n // stride) for n in (h, w)]
    taps = [-(-k // stride) for k in (kh, kw)]
    # Pad so that output i reads rows stride*i ... of the padded image, then fold.
    rows, columns = ((n + t - 1) * stride for n, t in zip(out, taps, strict=True))
    pads = [(above, rows - h - above), (beside, columns - w - beside)]
    folded = space_to_depth(_pad_or_crop(x, pads), stride)
    full = jnp.pad(
        kernel, ((0, taps[0] * stride - kh), (0, taps[1] * stride - kw), (0, 0), (0, 0))
    )
    c_in, c_out = kernel.shape[2:]
    small = full.reshape(taps[0], stride, taps[1], stride, c_in, c_out)
    small = small.transpose(0, 2, 1, 3, 4, 5).reshape(*taps, -1, c_out)
    y = _own_convolution(folded, small)
    top, left = (_same(t)[0] for t in taps)
    return y[:, top : top + out[0], left : left + out[1]]


def _strided_same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Returns XLA's 'SAME' padding of one axis."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad_or_crop(x: Array, pads: list[tuple[int, int]]) -> Array:
    return jax.lax.pad(
        x, jnp.zeros((), x.dtype), [(0, 0, 0), *((a, b, 0) for a, b in pads), (0, 0, 0)]
    )


def _phase(x: Array, kernel: Array, row: dict, column: dict) -> Array:
    """Returns [B, H, W, O], the outputs of one phase of rows and one of columns.

    Args:
      x: [B, H, W, I].
      kernel: [h, w, I, O].
      row: {offset of the input: tap of the kernel}, offsets ascending.
      column: the same.
    """
    if not row or not column:  # a kernel of one tap leaves every other output empty
        return jnp.zeros((*x.shape[:3], kernel.shape[3]), x.dtype)
    taps = kernel[np.array([*row.values()])][:, np.array([*column.values()])]
    return xla_convolution(x, taps, 1, [(-min(o), max(o)) for o in (row, column)])


@functools.cache
def _phases(size: int) -> tuple[dict[int, int], dict[int, int]]:
    """Returns {offset of the input: tap} for the even and the odd outputs of an axis.

    Output o of a stride-2 transposed convolution sums kernel[k] x[(o + k - pad) / 2]
    over the k that make the index whole. For phase p = o % 2 that is the input at
    offset (p + k - pad) / 2 from o // 2.
    """
    pad = size - 1 if size < 2 else -(-size // 2)
    even, odd = (
        {(p + k - pad) // 2: k for k in range(size) if (p + k - pad) % 2 == 0}
        for p in (0, 1)
    )
    return even, odd
