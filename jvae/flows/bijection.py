"""What every layer of a flow is: a bijection that knows how it changes volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae.errors import ConfigError
from jvae.types import Array, Params


class Bijection(nn.Module):
    """x [B, ...] <-> y [B, ...], given cond [B, ...] or None.

    A layer writes `forward` and `inverse`; one whose parameters are set by data also
    writes `data_dependent_init`.
    """

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B])."""
        raise NotImplementedError

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        raise NotImplementedError

    def data_dependent_init(self, x: Array, cond: Array | None = None) -> Array:
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

    def data_dependent_init(self, x: Array, cond: Array | None = None) -> Array:
        """Sets parameters, each part by what comes out of those before it."""
        for part in self.parts:
            x = part.data_dependent_init(x, cond)
        return x


def no_change(x: Array) -> Array:
    """Returns the logarithm of the volume of what changes none, zeros [B]."""
    return jnp.zeros(x.shape[0], x.dtype)


def places(x: Array) -> int:
    """Returns at how many places a layer of channels acts, H W of [B, H, W, C]."""
    return math.prod(x.shape[1:-1])


MAX_LOG_SCALE = 80.0
"""Beyond it exp is 0 or infinite in float32, or nearly so."""


LOG_SCALES = {"log_scale": "a scale", "log_diagonal": "a 1x1 kernel"}


def check_scales(params: Params, where: str, fix: str = "") -> None:
    """Raises ConfigError where a layer of a flow has no inverse.

    Args:
      params: of any model; what is no scale of a flow is not looked at.
      where: where they come from, for the message.
      fix: what to do, for the message.
    """
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        what = LOG_SCALES.get(name.rsplit("/", 1)[-1])
        if what is None or bool((jnp.abs(value) <= MAX_LOG_SCALE).all()):
            continue
        low, high = float(value.min()), float(value.max())
        raise ConfigError(
            f"{what} of the flow is singular or not finite: {name} must be within "
            f"+-{MAX_LOG_SCALE:g}, it goes from {low:g} to {high:g}",
            where=where,
            fix=fix,
        )
