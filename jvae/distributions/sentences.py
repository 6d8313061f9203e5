"""Sentences: as many tokens as each has, one after the other."""

from __future__ import annotations

import chex
import flax.struct
import jax
import jax.numpy as jnp

from jvae.distributions.discrete import at_symbols
from jvae.distributions.events import Distribution, draw
from jvae.types import Array, Key, at_least_float32


@flax.struct.dataclass
class Sentences(Distribution):
    """p(x|z) = prod_t p(x_t | x_1 ... x_t-1, z) over the tokens of each sentence.

    Attributes:
      logits: [B, T, V], given the tokens before.
      length: [B], tokens of each sentence, the one that ends it among them; those
        behind are padding.
    """

    logits: Array
    length: Array

    support = "tokens"
    data_dtypes = (jnp.integer,)
    is_discrete = True

    def log_prob(self, x: Array) -> Array:
        """Returns [B], the log probability of the tokens x [B, T], in nats."""
        return self.log_prob_per_token(x).sum(-1)

    def log_prob_per_token(self, x: Array) -> Array:
        """Returns [B, T], log p(x_t | x_1 ... x_t-1, z), 0 for padding."""
        chex.assert_shape(x, self.logits.shape[:-1])
        logits = at_least_float32(self.logits)
        log_p = at_symbols(logits, x) - jax.nn.logsumexp(logits, axis=-1)
        is_token = jnp.arange(x.shape[1])[None] < self.length[:, None]
        return jnp.where(is_token, log_p, 0.0)

    @property
    def mean(self) -> Array:
        """The likeliest token at each place, int32 [B, T], given those before."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns int32 tokens, [B, T] or [n, B, T], each given the ones before.

        Not sentences of the model, whose tokens follow on its own: see `generate`.
        """
        return draw(jax.random.categorical, key, n, self.logits).astype(jnp.int32)
