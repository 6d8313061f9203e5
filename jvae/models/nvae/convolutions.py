"""Convolutions with weight normalisation, and the kernels of a whole model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from flax.traverse_util import flatten_dict

from jvae import layers
from jvae.types import Array, Params

Order = Literal["", "strict", "causal"]
"""Which inputs an output sees: all; those before it in raster order; itself too."""

INIT = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
"""Uniform within 1 / sqrt(fan in) of zero."""


class Convolution(nn.Module):
    """A 'SAME' convolution [B, H, W, I] -> [B, H, W, features].

    With `weight_norm` the kernel of output o is exp(g_o) v_o / (|v_o| + 1e-5), and g
    starts where that is about v (Salimans & Kingma, 2016,
    https://arxiv.org/abs/1602.07868).

    Attributes:
      features: output channels.
      kernel_size: height and width of the kernel.
      stride: 1, or 2 to halve height and width.
      use_bias: whether there is a bias.
      weight_norm: whether lengths and directions of kernels are apart.
      depthwise: whether every channel is convolved by itself.
      order: which inputs an output sees.
      scale: of the kernel at the start.
      dtype: of the computation; None for that of input and parameters (float32).
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    use_bias: bool = True
    weight_norm: bool = True
    depthwise: bool = False
    order: Order = ""
    scale: float = 1.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the convolution of x."""
        inputs = 1 if self.depthwise else x.shape[-1]
        shape = (self.kernel_size, self.kernel_size, inputs, self.features)
        parts = (self.order, "depthwise" if self.depthwise else "", "kernel")
        name = "_".join(filter(None, parts))  # says how it is to be masked

        kernel = self.param(name, _scaled(self.scale), shape)
        masked = kernel * _mask(name, shape)
        log_gain = None
        if self.weight_norm:
            log_gain = self.param("log_gain", lambda key: jnp.log(_norm(masked) + 0.01))
        weight = _effective(masked, log_gain)

        x, weight = promote_dtype(x, weight, dtype=self.dtype)
        if self.depthwise:
            y = layers.depthwise_convolution(x, weight)
        else:
            y = layers.convolution(x, weight, self.stride)

        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.features,), jnp.float32)
            y = y + bias.astype(y.dtype).reshape(1, 1, 1, -1)
        return y


def _scaled(scale: float) -> Callable:
    """Returns the initializer of kernels, times a factor."""
    return lambda key, shape: scale * INIT(key, shape, jnp.float32)


def _mask(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns [h, w, I, O], 1 where an output sees an input, by the kernel's name."""
    kh, kw, inputs, outputs = shape[-4:]
    mask = np.ones((kh, kw, inputs, outputs), np.float32)
    order = name.split("_")[0]
    if order not in ("strict", "causal"):
        return mask
    mask[kh // 2 + 1 :] = 0.0
    mask[kh // 2, kw // 2 + 1 :] = 0.0
    if "depthwise" in name:
        mask[kh // 2, kw // 2] = float(order == "causal")
        return mask
    # Channels stand in blocks, one for each of the variables of a place.
    variables = min(inputs, outputs)
    read = np.arange(inputs)[:, None] * variables // inputs
    write = np.arange(outputs)[None, :] * variables // outputs
    mask[kh // 2, kw // 2] = read < write if order == "strict" else read <= write
    return mask


def _norm(kernel: Array) -> Array:
    """Returns [..., O], lengths of the kernels [..., h, w, I, O] of every output."""
    squares = jnp.square(kernel).sum((-4, -3, -2))
    # The gradient of a root at 0 is nan, and a masked output may have no input.
    return jnp.where(squares > 0.0, jnp.sqrt(jnp.where(squares > 0.0, squares, 1.0)), 0)


def _effective(kernel: Array, log_gain: Array | None) -> Array:
    """Returns the kernel that is convolved with, [..., h, w, I, O]."""
    if log_gain is None:
        return kernel
    factor = jnp.exp(log_gain) / (_norm(kernel) + 1e-5)
    return kernel * factor[..., None, None, None, :]


def conv_kernels(params: Params) -> dict[str, Array]:
    """Returns {path: [K, O, I h w]}, the kernels of all convolutions as matrices.

    Masked and normalised as they are used; K of them where layers are stacked, else
    one. Fully connected layers, whose kernels have two axes, are not among them.

    Args:
      params: of a model, or part of it.
    """
    kernels, flat = {}, flatten_dict(params, sep=".")
    for path, value in flat.items():
        name = path.rpartition(".")[2]
        if name.endswith("kernel") and value.ndim >= 4:
            masked = value * jnp.broadcast_to(_mask(name, value.shape), value.shape)
            weight = _effective(masked, flat.get(path.removesuffix(name) + "log_gain"))
            kh, kw, inputs, outputs = value.shape[-4:]
            rows = weight.reshape(-1, kh * kw * inputs, outputs)
            kernels[path] = rows.swapaxes(-1, -2)
    return kernels


def norm_scales(params: Params) -> dict[str, Array]:
    """Returns {path: [K, C]}, the scales of all BatchNorm layers, K stacked in one.

    Args:
      params: of a model, or part of it.
    """
    return {
        path: value.reshape(-1, value.shape[-1])
        for path, value in flatten_dict(params, sep=".").items()
        if path.rpartition(".")[2] == "scale"
    }
