"""Scale and shift of every channel, set by the first batch."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jvae.flows.bijection import Bijection, places
from jvae.types import Array

EPSILON = 1e-6
"""Added to a channel's standard deviation, which may be 0."""


class ActNorm(Bijection):
    """y = (x + shift) exp(log_scale), one of each for a channel.

    After `start` the examples that it saw have mean 0 and variance 1 in every channel;
    without it the layer begins as the identity.

    Kingma & Dhariwal, 2018, https://arxiv.org/abs/1807.03039.

    Attributes:
      features: C.
    """

    features: int

    def setup(self):
        """Adds shift and log scale."""
        zeros = nn.initializers.zeros
        self.shift = self.param("shift", zeros, (self.features,))
        self.log_scale = self.param("log_scale", zeros, (self.features,))

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B])."""
        y = (x + _row(self.shift, x)) * jnp.exp(_row(self.log_scale, x))
        log_det = places(x) * self.log_scale.sum()
        return y, jnp.full(x.shape[0], log_det, x.dtype)

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        return y * jnp.exp(-_row(self.log_scale, y)) - _row(self.shift, y)

    def start(self, x: Array, cond: Array | None = None) -> Array:
        """Sets shift and scale so that x comes out with mean 0 and variance 1."""
        rows = x.reshape(-1, self.features)
        mean, std = rows.mean(0), rows.std(0) + EPSILON
        self.put_variable("params", "shift", -mean)
        self.put_variable("params", "log_scale", -jnp.log(std))
        return (x - _row(mean, x)) / _row(std, x)


def _row(value: Array, x: Array) -> Array:
    """Returns [C] with as many axes as x."""
    return value.reshape((1,) * (x.ndim - 1) + (-1,))
