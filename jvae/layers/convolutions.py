"""Convolutions, each in the form that is fast on its backend."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae.layers.loops import in_loop_on_cpu
from jvae.layers.pointwise import by_rows
from jvae.types import Array


def _convolve(x: Array, kernel: Array, stride: int, padding: Any) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


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


@jax.custom_vjp
def _loop_convolution(x: Array, kernel: Array) -> Array:
    """A stride-1 'SAME' convolution whose gradients XLA:CPU runs fast in a loop."""
    return _convolve(x, kernel, 1, "SAME")


def _loop_convolution_forward(x, kernel):
    return _loop_convolution(x, kernel), (x, kernel)


def _loop_convolution_backward(residuals, g):
    x, kernel = residuals
    kh, kw, c_in, c_out = kernel.shape
    # dL/dx is a convolution with the flipped kernel, dL/dw one matrix product.
    flipped = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    pads = [_same(kh), _same(kw)]
    mirrored = [pad[::-1] for pad in pads]
    dx = _convolve(g, flipped, 1, mirrored)
    rows, g_rows = x.reshape(-1, c_in), g.reshape(-1, c_out)
    if c_in <= c_out:
        patches = _shifted(x, pads).reshape(-1, kh * kw * c_in)
        return dx, (patches.T @ g_rows).reshape(kernel.shape)
    # What moves x to one side moves g to the other: the patches of the thinner one.
    patches = _shifted(g, mirrored).reshape(-1, kh * kw * c_out)
    dw = (rows.T @ patches).reshape(c_in, kh, kw, c_out)
    return dx, jnp.flip(dw.transpose(1, 2, 0, 3), (0, 1))


_loop_convolution.defvjp(_loop_convolution_forward, _loop_convolution_backward)


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


def convolution(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Returns the 'SAME' convolution of x [B, H, W, I] with kernel [h, w, I, O].

    A 1x1 kernel is a matrix product of the channels. Inside a loop on CPU (see `scan`)
    a larger stride-1 convolution carries its own gradient, and a strided one is a
    stride-1 convolution of the space-to-depth image.
    """
    if kernel.shape[:2] == (1, 1) and stride == 1:
        return by_rows(lambda rows: rows @ kernel[0, 0], x)
    if not in_loop_on_cpu():
        return _convolve(x, kernel, stride, "SAME")
    if stride == 1:
        return _loop_convolution(x, kernel)
    return _loop_strided(x, kernel, stride)


def _loop_strided(x: Array, kernel: Array, stride: int) -> Array:
    """A strided 'SAME' convolution as a stride-1 one of the space-to-depth image."""
    kh, kw = kernel.shape[:2]
    h, w = x.shape[1:3]
    before = [_strided_same(n, k, stride)[0] for n, k in ((h, kh), (w, kw))]
    out = [-(-n // stride) for n in (h, w)]
    taps = [-(-k // stride) for k in (kh, kw)]
    # Pad so that output i reads rows stride*i ... of the padded image, then fold.
    rows, columns = ((n + t - 1) * stride for n, t in zip(out, taps, strict=True))
    pads = [(before[0], rows - h - before[0]), (before[1], columns - w - before[1])]
    folded = space_to_depth(_pad_or_crop(x, pads), stride)
    full = jnp.pad(
        kernel,
        ((0, taps[0] * stride - kh), (0, taps[1] * stride - kw), (0, 0), (0, 0)),
    )
    c_in, c_out = kernel.shape[2:]
    small = full.reshape(taps[0], stride, taps[1], stride, c_in, c_out)
    small = small.transpose(0, 2, 1, 3, 4, 5).reshape(*taps, -1, c_out)
    y = _loop_convolution(folded, small)
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


def upsampling_convolution(x: Array, kernel: Array) -> Array:
    """Returns the stride-2 'SAME' transposed convolution, [B, 2H, 2W, O].

    Equal to `jax.lax.conv_transpose(x, kernel, (2, 2), 'SAME')` with kernel
    [h, w, I, O]. On CPU, where its gradient is 20 to 60 times slower than an ordinary
    convolution's, it is a stride-1 convolution to 4 O channels and depth-to-space.
    """
    if jax.default_backend() != "cpu":
        return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME")
    (row_taps, row_pad), (column_taps, column_pad) = map(_phases, kernel.shape[:2])
    c_in, c_out = kernel.shape[2:]
    zero = jnp.zeros((1, *kernel.shape[1:]), kernel.dtype)
    by_row = jnp.concatenate([kernel, zero])[jnp.asarray(row_taps)]
    zero = jnp.zeros((*by_row.shape[:2], 1, *kernel.shape[2:]), kernel.dtype)
    by_both = jnp.concatenate([by_row, zero], 2)[:, :, jnp.asarray(column_taps)]
    # [row tap, row phase, column tap, column phase, I, O] -> [h, w, I, 4 O]
    small = by_both.transpose(0, 2, 4, 1, 3, 5)
    small = small.reshape(len(row_taps), len(column_taps), c_in, 4 * c_out)
    if not in_loop_on_cpu():
        return depth_to_space(_convolve(x, small, 1, [row_pad, column_pad]))
    (top, bottom), (left, right) = row_pad, column_pad
    h, w = x.shape[1] + top + bottom, x.shape[2] + left + right
    padded = jnp.pad(x, ((0, 0), row_pad, column_pad, (0, 0)))
    y = _loop_convolution(padded, small)
    row, column = (_same(n)[0] for n in small.shape[:2])
    h, w = h - small.shape[0] + 1, w - small.shape[1] + 1  # the 'VALID' part
    return depth_to_space(y[:, row : row + h, column : column + w])


@functools.cache
def _phases(size: int) -> tuple[list[list[int]], tuple[int, int]]:
    """Returns which kernel tap each output phase applies at each input offset.

    Output o of a stride-2 transposed convolution sums kernel[k] x[(o + k - pad) / 2]
    over the k that make the index whole. For phase p = o % 2 and offset t that is
    k = 2 t + pad - p; taps outside the kernel point at the appended zero, index `size`.

    Returns:
      ([offset][phase] -> tap, (padding before, padding after)).
    """
    pad = size - 1 if size < 2 else -(-size // 2)
    reach = [
        t
        for t in range(-size, size + 1)
        if any(0 <= 2 * t + pad - p < size for p in (0, 1))
    ]
    taps = [
        [2 * t + pad - p if 0 <= 2 * t + pad - p < size else size for p in (0, 1)]
        for t in reach
    ]
    return taps, (-reach[0], reach[-1])


class Conv(nn.Module):
    """A 'SAME' convolution with bias, [B, H, W, I] -> [B, H/s, W/s, features].

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      stride: 1, or 2 to halve height and width.
      dtype: of the computation; parameters are float32.
      kernel_init: initialiser of the kernel.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the convolution of x."""
        kernel, bias = _weights(self, x.shape[-1])
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        return convolution(x, kernel, self.stride) + bias.reshape(1, 1, 1, -1)


class ConvTranspose(nn.Module):
    """A stride-2 'SAME' transposed convolution with bias, to [B, 2H, 2W, features].

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      dtype: of the computation; parameters are float32.
      kernel_init: initialiser of the kernel.
    """

    features: int
    kernel_size: int = 3
    dtype: Any = jnp.float32
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the transposed convolution of x."""
        kernel, bias = _weights(self, x.shape[-1])
        x, kernel, bias = (a.astype(self.dtype) for a in (x, kernel, bias))
        return upsampling_convolution(x, kernel) + bias.reshape(1, 1, 1, -1)


def _weights(layer: Conv | ConvTranspose, c_in: int) -> tuple[Array, Array]:
    shape = (layer.kernel_size, layer.kernel_size, c_in, layer.features)
    kernel = layer.param("kernel", layer.kernel_init, shape)
    bias = layer.param("bias", nn.initializers.zeros, (layer.features,))
    return kernel, bias
