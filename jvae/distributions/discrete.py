"""Independent discrete variables: binary pixels and symbols."""

from __future__ import annotations

import chex
import flax.struct
import jax
import jax.numpy as jnp

from jvae.distributions.events import Distribution, draw, flat_noise, sum_events
from jvae.runtime import random_bits
from jvae.types import Array, Key, at_least_float32


def softplus(x: Array) -> Array:
    """Returns log(1 + exp(x)), finite with finite derivatives at any finite x."""
    return _softplus(x)


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    return jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(jnp.minimum(x, -x)))


@_softplus.defjvp
def _(primals, tangents):
    """The slope is a sigmoid; of the maximum it would be a step, which has none."""
    (x,), (dx,) = primals, tangents
    return _softplus(x), jax.nn.sigmoid(x) * dx


@flax.struct.dataclass
class Bernoulli(Distribution):
    """Independent binary pixels; logits [B, ...].

    A likelihood of x in {0, 1} only. For grey x in between, `log_prob` is minus the
    binary cross-entropy, which is not the logarithm of a normalised density.
    """

    logits: Array

    support = "binary"
    data_dtypes = (jnp.floating, jnp.bool_)
    is_discrete = True

    def log_prob(self, x: Array) -> Array:
        """Returns [B], sum of x log p + (1 - x) log(1 - p) in nats."""
        chex.assert_equal_shape([x, self.logits])
        logits = at_least_float32(self.logits)
        return sum_events(x * logits - softplus(logits))

    @property
    def mean(self) -> Array:
        """P(x = 1), [B, ...]."""
        return jax.nn.sigmoid(self.logits)

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns zeros and ones in float32, [B, ...] or [n, B, ...]."""

        def sample(key, mean):
            uniform = flat_noise(random_bits.uniform, key, mean)
            return (uniform < mean).astype(jnp.float32)

        return draw(sample, key, n, jax.nn.sigmoid(at_least_float32(self.logits)))


def at_symbols(values: Array, x: Array) -> Array:
    """Returns values [..., V] at the symbols x [...], nan at those that are none.

    JAX would take -1 for the last one.
    """
    index = x.astype(jnp.int32)
    index = jnp.where(index < 0, values.shape[-1], index)
    found = jnp.take_along_axis(values, index[..., None], axis=-1)
    return found[..., 0]


@flax.struct.dataclass
class Categorical(Distribution):
    """Independent symbols 0 .. V-1; logits [B, ..., V]."""

    logits: Array

    support = "levels"
    data_dtypes = (jnp.integer, jnp.bool_)
    is_discrete = True

    def log_prob(self, x: Array) -> Array:
        """Returns [B], the log probability of the integers x [B, ...] in nats."""
        chex.assert_shape(x, self.logits.shape[:-1])
        log_p = jax.nn.log_softmax(at_least_float32(self.logits))
        return sum_events(at_symbols(log_p, x))

    @property
    def num_levels(self) -> int:
        """Symbols, V."""
        return self.logits.shape[-1]

    @property
    def mean(self) -> Array:
        """The expected symbol, [B, ...]; a picture where symbols are grey levels."""
        symbols = jnp.arange(self.logits.shape[-1], dtype=jnp.float32)
        return jnp.einsum("...v,v->...", jax.nn.softmax(self.logits), symbols)

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns int32 symbols, [B, ...] or [n, B, ...]."""
        return draw(jax.random.categorical, key, n, self.logits).astype(jnp.int32)
