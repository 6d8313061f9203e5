"""Convolutions, each in the form that is fast on the platform it is compiled for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jvae.layers import cpu_convolutions as cpu
from jvae.layers.bilinear import Bilinear, Form, Function, transpose_to_kernel
from jvae.layers.cpu_convolutions import xla_convolution
from jvae.layers.loops import in_loop
from jvae.types import Array


def convolution(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Returns the 'SAME' convolution of x [B, H, W, I] with kernel [h, w, I, O].

    On CPU a 1x1 kernel is a matrix product of the channels, and a larger one with few
    channels on a side is one too (`cpu_convolutions.THIN`); a stride-1 convolution to
    fewer channels, and inside a loop (see `scan`) any stride-1 one, has gradients of
    its own, and a strided one in a loop is a stride-1 convolution of the space-to-depth
    image.
    """
    return _convolution(x, kernel, stride=stride, in_loop=in_loop())


def _default_product(x: Array, kernel: Array, *, stride: int, in_loop: bool) -> Array:
    return xla_convolution(x, kernel, stride, "SAME")


_convolution = Bilinear(
    "convolution",
    Form(_default_product),
    cpu=Form(cpu.product, cpu.to_x, cpu.to_kernel),
)


def upsampling_convolution(x: Array, kernel: Array) -> Array:
    """Returns the stride-2 'SAME' transposed convolution, [B, 2H, 2W, O].

    Equal to `jax.lax.conv_transpose(x, kernel, (2, 2), 'SAME')` with kernel
    [h, w, I, O]. The gradients are those of the stride-2 convolution that it is the
    transpose of: XLA's own are many times slower on CPU, and reverse the maps on
    others. On CPU every phase of the output is a small stride-1 convolution.
    """
    return _upsampling(x, kernel, in_loop=in_loop())


def _turned(kernel: Array) -> Array:
    """Returns the kernel of the convolution that a transposed one is of."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def _upsampling_form(upsampled: Function, convolved: Function) -> Form:
    """Returns the form of a transposed convolution with a form of the convolution.

    <g, up(x, kernel)> = <halved(g, kernel), x>, as one is the transpose of the other.
    """

    def halved(g, kernel, *, in_loop):
        return convolved(g, _turned(kernel), stride=2, in_loop=in_loop)

    def to_x(g, kernel, *, like, in_loop):
        return halved(g, kernel, in_loop=in_loop)

    def to_kernel(x, g, *, like, in_loop):
        return transpose_to_kernel(halved, g, x, like=like, in_loop=in_loop)

    return Form(upsampled, to_x, to_kernel)


def _default_upsampled(x: Array, kernel: Array, *, in_loop: bool) -> Array:
    return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME")


_upsampling = Bilinear(
    "upsampling_convolution",
    _upsampling_form(_default_upsampled, _default_product),
    cpu=_upsampling_form(cpu.upsampled, cpu.product),
)


class Conv(nn.Module):
    """A 'SAME' convolution with bias, [B, H, W, I] -> [B, H/s, W/s, features].

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      stride: 1, or 2 to halve height and width.
      dtype: of the computation; None for that of input and parameters (float32).
      kernel_init: initializer of the kernel.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: Any = None
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the convolution of x."""
        x, kernel, bias = _inputs(self, x)
        return convolution(x, kernel, self.stride) + bias.reshape(1, 1, 1, -1)


class ConvTranspose(nn.Module):
    """A stride-2 'SAME' transposed convolution with bias, to [B, 2H, 2W, features].

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      dtype: of the computation; None for that of input and parameters (float32).
      kernel_init: initializer of the kernel.
    """

    features: int
    kernel_size: int = 3
    dtype: Any = None
    kernel_init: Callable = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the transposed convolution of x."""
        x, kernel, bias = _inputs(self, x)
        return upsampling_convolution(x, kernel) + bias.reshape(1, 1, 1, -1)


def _inputs(layer: Conv | ConvTranspose, x: Array) -> tuple[Array, Array, Array]:
    """Returns x, kernel and bias in the dtype of the layer."""
    shape = (layer.kernel_size, layer.kernel_size, x.shape[-1], layer.features)
    kernel = layer.param("kernel", layer.kernel_init, shape, jnp.float32)
    bias = layer.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=layer.dtype)
    return x, kernel, bias
