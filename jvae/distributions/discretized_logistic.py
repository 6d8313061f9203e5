"""Logistics on pixels of 2^b levels in [-1, 1], and mixtures of them."""

from __future__ import annotations

import functools
import math

import chex
import flax.struct
import jax
import jax.numpy as jnp

from jvae.distributions.discrete import softplus
from jvae.distributions.events import Distribution, draw, flat_noise, sum_events
from jvae.errors import require
from jvae.types import Array, Key, at_least_float32

LOOSE_EDGE = 0.99
"""Of 8 bits the last but one level is above too, which then has the last one's mass as
well: the probabilities of a pixel add up to more than 1. For comparisons alone."""
WIDE = 60.0
"""Log scale above which log(1 - exp(-width)) of a bin is log(width) in float32. From 88
on exp(-log scale), of which it would be computed, underflows."""
MAX_BITS = 16
"""The levels of [-1, 1] are exact enough in float32 up to so many bits."""


def _log_bin_mass(
    x: Array, mean: Array, log_scale: Array, num_bits: int, edge: float | None = None
) -> Array:
    """Returns log P(bin of x) under a logistic discretised to 2^num_bits levels.

    With a and b the standardised right and left edges of the bin,
    sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(-(a - b))), which needs
    no case for narrow bins. The outermost bins, and those above `edge` if there is one,
    take the whole tail: the levels of x are 2k / (2^num_bits - 1) - 1.
    """
    require(1 <= num_bits <= MAX_BITS, "num_bits", f"be in 1 .. {MAX_BITS}", num_bits)
    x, mean, log_scale = map(at_least_float32, (x, mean, log_scale))
    half_bin = 1.0 / (2**num_bits - 1)
    last = 1.0 - half_bin if edge is None else edge

    # As `where`, whose derivative at WIDE is that of a side; minimum has half of each.
    inverse_scale = jnp.exp(-jnp.where(log_scale > WIDE, WIDE, log_scale))
    right = (x + half_bin - mean) * inverse_scale
    left = (x - half_bin - mean) * inverse_scale
    log_cdf, log_survival = -softplus(-right), -softplus(left)

    # log(1 - exp(-width)). Not of right - left, which cancels in float32.
    log_width = jnp.log(-jnp.expm1(-2.0 * half_bin * inverse_scale))
    tiny = math.log(2.0 * half_bin) - log_scale  # the same of a width near 0
    inside = log_cdf + log_survival + jnp.where(log_scale > WIDE, tiny, log_width)

    lower = jnp.where(x < half_bin - 1.0, log_cdf, inside)
    return jnp.where(x > last, log_survival, lower)


def _round_to_level(x: Array, num_bits: int) -> Array:
    """Returns the level of [-1, 1] nearest to x."""
    top = 2**num_bits - 1
    level = jnp.round((jnp.clip(x, -1.0, 1.0) + 1.0) * (0.5 * top))
    return 2.0 * level / top - 1.0


_standard_logistic = functools.partial(jax.random.logistic, dtype=jnp.float32)


def _logistic(key: Key, mean: Array, log_scale: Array) -> Array:
    return mean + jnp.exp(log_scale) * flat_noise(_standard_logistic, key, mean)


@flax.struct.dataclass
class DiscretizedLogistic(Distribution):
    """A logistic on pixels of 2^num_bits levels in [-1, 1]; a probability per level.

    Attributes:
      loc: [B, ...], where the logistic is centred.
      log_scale: [B, ...], log of its scale; from -30 on log_prob is finite.
      num_bits: bits per pixel, 1 to 16.

    Kingma et al., 2016, https://arxiv.org/abs/1606.04934.
    """

    loc: Array
    log_scale: Array
    num_bits: int = flax.struct.field(pytree_node=False, default=8)

    support = "signed"
    data_dtypes = (jnp.floating,)
    is_discrete = True

    def log_prob(self, x: Array) -> Array:
        """Returns [B], the log probability of the levels x in nats."""
        chex.assert_equal_shape([x, self.loc])
        return sum_events(_log_bin_mass(x, self.loc, self.log_scale, self.num_bits))

    @property
    def num_levels(self) -> int:
        """Levels of a pixel."""
        return 2**self.num_bits

    @property
    def mean(self) -> Array:
        """The centre, clipped to [-1, 1]: the mean before the tails fold."""
        return jnp.clip(self.loc, -1.0, 1.0)

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns levels in [-1, 1], [B, ...] or [n, B, ...]."""
        x = draw(_logistic, key, n, self.loc, self.log_scale)
        return _round_to_level(x, self.num_bits)


def _centers(loc: Array, coefficients: Array | None, x: Array) -> Array:
    """Returns loc [..., C, K] moved by the earlier channels of x [..., C, K or 1]."""
    if coefficients is None:
        return loc
    red, green, c = x[..., 0, :], x[..., 1, :], coefficients
    moved_green = loc[..., 1, :] + c[..., 0, :] * red
    moved_blue = loc[..., 2, :] + c[..., 1, :] * red + c[..., 2, :] * green
    return jnp.stack([loc[..., 0, :], moved_green, moved_blue], axis=-2)


@flax.struct.dataclass
class DiscretizedLogisticMixture(Distribution):
    """A mixture of K discretised logistics per pixel, channels in order.

    The component is shared by the channels of a pixel. With coefficients, the centre
    of green moves with red, that of blue with red and green.

    Attributes:
      logits: [B, H, W, K], of the components.
      loc: [B, H, W, C, K], centres.
      log_scale: [B, H, W, C, K].
      coefficients: [B, H, W, 3, K] for C = 3: green on red, blue on red, blue on
        green; None for independent channels.
      num_bits: bits per channel, 1 to 16.
      edge: levels above take the whole upper tail; None for the last one alone.

    Salimans et al., 2017, https://arxiv.org/abs/1701.05517.
    """

    logits: Array
    loc: Array
    log_scale: Array
    coefficients: Array | None = None
    num_bits: int = flax.struct.field(pytree_node=False, default=8)
    edge: float | None = flax.struct.field(pytree_node=False, default=None)

    support = "signed"
    data_dtypes = (jnp.floating,)
    is_discrete = True

    @property
    def num_levels(self) -> int:
        """Levels of a channel."""
        return 2**self.num_bits

    @property
    def is_normalized(self) -> bool:
        """Whether only one level is above `edge`, so that probabilities add up to 1."""
        return self.edge is None or 1.0 - 2.0 / (self.num_levels - 1) <= self.edge

    def log_prob(self, x: Array) -> Array:
        """Returns [B], the log probability of the levels x [B, H, W, C] in nats."""
        chex.assert_shape(x, self.loc.shape[:-1])
        loc = _centers(self.loc, self.coefficients, x[..., None])
        by_channel = _log_bin_mass(
            x[..., None], loc, self.log_scale, self.num_bits, self.edge
        )
        log_weights = jax.nn.log_softmax(at_least_float32(self.logits))
        per_pixel = jax.nn.logsumexp(log_weights + by_channel.sum(-2), axis=-1)
        return sum_events(per_pixel)

    @property
    def mean(self) -> Array:
        """The mean of the components' centres, each clipped to [-1, 1].

        The mean before the tails fold; within a component green moves with its red,
        and blue with both.
        """
        x = jnp.clip(self.loc, -1.0, 1.0)
        if self.coefficients is not None:
            for _ in range(2):  # green after red, then blue after both
                x = jnp.clip(_centers(self.loc, self.coefficients, x), -1.0, 1.0)
        return (jax.nn.softmax(self.logits)[..., None, :] * x).sum(-1)

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns levels in [-1, 1], [B, H, W, C] or [n, B, H, W, C]."""

        def sample(key, logits, loc, log_scale, coefficients):
            component_key, noise_key = jax.random.split(key)
            component = jax.random.categorical(component_key, logits)[..., None, None]

            def pick(a):
                return jnp.take_along_axis(a, component, axis=-1)

            center = _logistic(noise_key, pick(loc), pick(log_scale))
            x = _round_to_level(center, self.num_bits)
            if coefficients is not None:
                for _ in range(2):  # green after red, then blue after both
                    moved = _centers(center, pick(coefficients), x)
                    x = _round_to_level(moved, self.num_bits)
            return x[..., 0]

        arrays = (self.logits, self.loc, self.log_scale, self.coefficients)
        return draw(sample, key, n, *arrays)
