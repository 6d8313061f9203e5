"""Couplings: one half of the channels moves the other, which leaves it as it is."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from jvae import layers
from jvae.flows.bijection import Bijection, no_change
from jvae.types import Array

Kind = Literal["additive", "affine"]

MAX_LOG_SCALE = 2.0
"""An affine coupling's scales are within exp(-2) and exp(2)."""

COUPLED = "coupled"
"""Name, for `jax.checkpoint`, of what the networks of couplings say."""


class Coupling(Bijection):
    """(a, b) -> (a, scale(a) b + shift(a)), channels halved.

    'additive' has scale 1 and keeps volumes (NICE; Dinh et al., 2014,
    https://arxiv.org/abs/1410.8516). 'affine' has log scale 2 tanh(h / 2) of what the
    network says, h, which bounds it: the inverse stays accurate (RealNVP; Dinh et al.,
    2016, https://arxiv.org/abs/1605.08803).

    Attributes:
      net: (a, outputs, cond) -> [B, ..., outputs]; begins at zero, as then the coupling
        does.
      kind: 'additive' or 'affine'.
    """

    net: nn.Module
    kind: Kind = "affine"

    def _move(self, a: Array, width: int, cond: Array | None) -> tuple[Any, Array]:
        """Returns (log scale or None, shift), each [B, ..., width]."""
        outputs = width if self.kind == "additive" else 2 * width
        said = checkpoint_name(self.net(a, outputs, cond), COUPLED)
        if self.kind == "additive":
            return None, said
        log_scale, shift = jnp.split(said, 2, axis=-1)
        return MAX_LOG_SCALE * jnp.tanh(log_scale / MAX_LOG_SCALE), shift

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B])."""
        a, b = _halves(x)
        log_scale, shift = self._move(a, b.shape[-1], cond)
        if log_scale is None:
            return jnp.concatenate([a, b + shift], axis=-1), no_change(x)
        b = b * jnp.exp(log_scale) + shift
        log_det = log_scale.reshape(x.shape[0], -1).sum(-1)
        return jnp.concatenate([a, b], axis=-1), log_det

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        a, b = _halves(y)
        log_scale, shift = self._move(a, b.shape[-1], cond)
        b = b - shift
        if log_scale is not None:
            b = b * jnp.exp(-log_scale)
        return jnp.concatenate([a, b], axis=-1)


def _halves(x: Array) -> tuple[Array, Array]:
    """Returns the first half of the channels, rounded up, and the others."""
    half = -(-x.shape[-1] // 2)
    return x[..., :half], x[..., half:]


class ConvNet(nn.Module):
    """3x3, 1x1 and 3x3 convolutions, the last of which begins at zero.

    Attributes:
      hidden: channels between them.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: Array, outputs: int, cond: Array | None = None) -> Array:
        """Returns [B, H, W, outputs]; `cond` [B, H, W, F] stands beside x."""
        if cond is not None:
            x = jnp.concatenate([x, cond], axis=-1)
        init = nn.initializers.he_normal()
        x = nn.relu(layers.Conv(self.hidden, 3, kernel_init=init)(x))
        x = nn.relu(layers.Dense(self.hidden, kernel_init=init)(x))
        zeros = nn.initializers.zeros
        return layers.Conv(outputs, 3, kernel_init=zeros)(x)


class DenseNet(nn.Module):
    """Fully connected layers, the last of which begins at zero.

    Attributes:
      hidden: widths of the layers before it.
    """

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, outputs: int, cond: Array | None = None) -> Array:
        """Returns [B, outputs]; `cond` [B, F] stands beside x."""
        if cond is not None:
            x = jnp.concatenate([x, cond], axis=-1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, kernel_init=nn.initializers.he_normal())(x))
        return nn.Dense(outputs, kernel_init=nn.initializers.zeros)(x)
