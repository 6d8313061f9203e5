"""What every layer of a flow is: a bijection that knows how it changes volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn

from jvae.types import Array


class Bijection(nn.Module):
    """x [B, ...] <-> y [B, ...], given cond [B, ...] or None.

    A layer writes `forward` and `inverse`; one whose parameters are set by data also
    writes `start`.
    """

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B])."""
        raise NotImplementedError

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        raise NotImplementedError

    def start(self, x: Array, cond: Array | None = None) -> Array:
        """Sets parameters by examples of the first step, and returns y.

        Call with 'params' mutable. By default there is nothing to set.
        """
        return self.forward(x, cond)[0]

    def __call__(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """`forward`; what `init` traces."""
        return self.forward(x, cond)


class Chain(Bijection):
    """Bijections one after the other; their logarithms add up.

    Attributes:
      parts: the first is the one that sees x.
    """

    parts: Sequence[Bijection]

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B])."""
        total = no_change(x)
        for part in self.parts:
            x, log_det = part.forward(x, cond)
            total += log_det
        return x, total

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        for part in reversed(self.parts):
            y = part.inverse(y, cond)
        return y

    def start(self, x: Array, cond: Array | None = None) -> Array:
        """Sets parameters, each part by what comes out of those before it."""
        for part in self.parts:
            x = part.start(x, cond)
        return x


def no_change(x: Array) -> Array:
    """Returns the logarithm of the volume of what changes none, zeros [B]."""
    return jnp.zeros(x.shape[0], x.dtype)


def places(x: Array) -> int:
    """Returns at how many places a layer of channels acts, H W of [B, H, W, C]."""
    return math.prod(x.shape[1:-1])
