"""Scale and shift of every channel: set by the first batch, or by other maps."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn

from jvae import layers
from jvae.errors import ConfigError
from jvae.flows.bijection import Bijection, places
from jvae.types import Array

EPSILON = 1e-6
"""Added to a channel's standard deviation, which may be 0."""
MAX_LOG_STD = 5.0
"""Standard deviations that other maps say are within exp(-5) and exp(5)."""


class ActNorm(Bijection):
    """y = (x + shift) exp(log_scale), one of each for a channel.

    After `data_dependent_init` the examples that it saw have mean 0 and variance 1 in
    every channel; without it the layer begins as the identity.

    Kingma & Dhariwal, 2018, https://arxiv.org/abs/1807.03039.

    Attributes:
      features: C.
    """

    features: int

    def setup(self):
        """Adds shift and log scale."""
        zeros, shape = nn.initializers.zeros, (self.features,)
        self.shift = self.param("shift", zeros, shape, jnp.float32)
        self.log_scale = self.param("log_scale", zeros, shape, jnp.float32)

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B])."""
        y = (x + _row(self.shift, x)) * jnp.exp(_row(self.log_scale, x))
        log_det = places(x) * self.log_scale.sum()
        return y, jnp.full(x.shape[0], log_det, y.dtype)

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        return y * jnp.exp(-_row(self.log_scale, y)) - _row(self.shift, y)

    def data_dependent_init(self, x: Array, cond: Array | None = None) -> Array:
        """Sets shift and scale so that x comes out with mean 0 and variance 1."""
        rows = x.reshape(-1, self.features)
        mean, std = rows.mean(0), rows.std(0) + EPSILON
        self.put_variable("params", "shift", -mean)
        self.put_variable("params", "log_scale", -jnp.log(std))
        return (x - _row(mean, x)) / _row(std, x)


class ConditionalActNorm(Bijection):
    """y = (x - mean(cond)) exp(-log_std(cond)), at every place of [B, H, W, C].

    So x has N(mean(cond), std(cond)^2) as its prior where y has N(0, I). Both come
    from a 3x3 convolution that begins at zero, and the layer as the identity; log std
    is 5 tanh(h / 5) of what it says, which bounds it.

    Su & Wu, 2018, https://arxiv.org/abs/1809.05861.
    """

    @nn.compact
    def _moments(self, cond: Array | None, channels: int) -> tuple[Array, Array]:
        """Returns mean and log standard deviation, [B, H, W, C]."""
        if cond is None:
            raise ConfigError("cond is missing, the maps that set the scales")
        zeros = nn.initializers.zeros
        layer = layers.Conv(2 * channels, 3, kernel_init=zeros)
        mean, log_std = jnp.split(layer(cond), 2, axis=-1)
        return mean, MAX_LOG_STD * jnp.tanh(log_std / MAX_LOG_STD)

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B]); `cond` is [B, H, W, F].

        Raises:
          ConfigError: there is no `cond`.
        """
        mean, log_std = self._moments(cond, x.shape[-1])
        log_det = -log_std.reshape(x.shape[0], -1).sum(-1)
        return (x - mean) * jnp.exp(-log_std), log_det

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        mean, log_std = self._moments(cond, y.shape[-1])
        return mean + y * jnp.exp(log_std)


def _row(value: Array, x: Array) -> Array:
    """Returns [C] with as many axes as x."""
    return value.reshape((1,) * (x.ndim - 1) + (-1,))
