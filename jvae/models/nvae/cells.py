"""Residual cells: of ordinary convolutions bottom-up, of depthwise ones top-down."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn

from jvae import layers
from jvae.models.nvae.convolutions import Convolution
from jvae.types import Array, at_least_float32

Cells = Literal["batch_norm", "plain"]
Resize = Literal["none", "down", "up"]


@dataclasses.dataclass(frozen=True)
class Style:
    """What all cells of a model have in common.

    Attributes:
      cells: 'batch_norm', with BatchNorm before every convolution and a tenth of the
        branch added (NVAE); or 'plain', without, each branch's last convolution made
        small at the start in place of it (VDVAE; Child, 2021,
        https://arxiv.org/abs/2011.10650).
      depth: cells on the longest path, of which 'plain' ones start 1 / sqrt(depth) as
        large.
      dtype: of the computation within cells, None for that of input and parameters;
        parameters, statistics and the numbers of distributions are float32.
    """

    cells: Cells = "batch_norm"
    depth: int = 1
    dtype: Any = None

    @property
    def has_norm(self) -> bool:
        """Whether cells have BatchNorm."""
        return self.cells == "batch_norm"

    def norm(self, x: Array, mask: Array | None) -> Array:
        """Returns x normalised, where cells do so; for `nn.compact` methods."""
        if not self.has_norm:
            return x
        norm = layers.BatchNorm(momentum=0.95, epsilon=1e-5, dtype=self.dtype)
        return norm(x, mask)

    def before_norm(self, features: int, size: int, **fields: Any) -> Convolution:
        """Returns a convolution that a BatchNorm follows, where cells have one."""
        bias = not self.has_norm
        return Convolution(
            features, size, use_bias=bias, weight_norm=False, dtype=self.dtype, **fields
        )

    def head(self, features: int, size: int) -> Convolution:
        """Returns a convolution of numbers of a distribution: in float32 at least.

        Rounded to bfloat16, a mean of 3 would be off by half of the least deviation.
        """
        return self.convolution(features, size, dtype=None)

    def convolution(self, features: int, size: int, **fields: Any) -> Convolution:
        """Returns a convolution that no BatchNorm follows."""
        kind = {"weight_norm": self.has_norm, "dtype": self.dtype, **fields}
        return Convolution(features, size, **kind)

    @property
    def last_scale(self) -> float:
        """Factor on the last convolution of a branch at the start."""
        return 1.0 if self.has_norm else self.depth**-0.5

    @property
    def branch_scale(self) -> float:
        """Factor on a branch."""
        return 0.1 if self.has_norm else 1.0


class SqueezeExcite(nn.Module):
    """x times a factor for every channel, which all places decide together.

    Hu et al., 2018, https://arxiv.org/abs/1709.01507.

    Attributes:
      dtype: of the computation; None for that of input and parameters.
    """

    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns [B, H, W, C]."""
        channels = x.shape[-1]
        squeezed = at_least_float32(x).mean((1, 2))
        hidden = nn.Dense(max(channels // 16, 4), dtype=self.dtype)(squeezed)
        gate = nn.sigmoid(nn.Dense(channels, dtype=self.dtype)(nn.relu(hidden)))
        return x * gate[:, None, None, :]


class HalvingSkip(nn.Module):
    """swish, then a 1x1 convolution of each pixel phase: [B, H/2, W/2, 2C].

    Attributes:
      style: of the model.
    """

    style: Style

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the phases' outputs one after another."""
        x, quarter = nn.swish(x), x.shape[-1] // 2
        phases = ((0, 0), (1, 1), (0, 1), (1, 0))
        parts = [
            self.style.convolution(quarter, 1)(x[:, i::2, j::2]) for i, j in phases
        ]
        return jnp.concatenate(parts, axis=-1)


class BottomUpCell(nn.Module):
    """skip(x) + branch(x), the branch two 3x3 convolutions and squeeze-and-excitation.

    Attributes:
      style: of the model.
      resize: 'none', or 'down' to halve the map and double its channels.
    """

    style: Style
    resize: Resize = "none"

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Returns [B, H, W, C] or [B, H/2, W/2, 2C]; `mask` [B] is for BatchNorm."""
        style, down = self.style, self.resize == "down"
        features = 2 * x.shape[-1] if down else x.shape[-1]
        first = style.convolution(features, 3, stride=2 if down else 1)
        y = first(nn.swish(style.norm(x, mask)))
        last = style.convolution(features, 3, scale=style.last_scale)
        y = last(nn.swish(style.norm(y, mask)))
        y = SqueezeExcite(style.dtype)(y)
        skip = HalvingSkip(style)(x) if down else x
        return skip + style.branch_scale * y


class TopDownCell(nn.Module):
    """skip(x) + branch(x), the branch an inverted bottleneck around a depthwise 5x5.

    Attributes:
      style: of the model.
      expansion: channels within for each of the input.
      resize: 'none', or 'up' to double the map and halve its channels.
    """

    style: Style
    expansion: int = 6
    resize: Resize = "none"

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Returns [B, H, W, C] or [B, 2H, 2W, C/2]; `mask` [B] is for BatchNorm."""
        style, up = self.style, self.resize == "up"
        hidden = self.expansion * x.shape[-1]
        features = x.shape[-1] // 2 if up else x.shape[-1]
        y = layers.double_nearest(x) if up else x
        y = style.before_norm(hidden, 1)(style.norm(y, mask))
        y = nn.swish(style.norm(y, mask))
        y = style.before_norm(hidden, 5, depthwise=True)(y)
        y = nn.swish(style.norm(y, mask))
        y = style.before_norm(features, 1, scale=style.last_scale)(y)
        y = SqueezeExcite(style.dtype)(style.norm(y, mask))
        skip = x
        if up:
            wide = layers.double_bilinear(x)
            skip = style.convolution(features, 1, use_bias=False)(wide)
        return skip + style.branch_scale * y
