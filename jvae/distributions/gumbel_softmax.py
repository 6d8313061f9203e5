"""Categorical codes: one-hot vectors, and their relaxation by Gumbel noise.

Jang et al., 2017, https://arxiv.org/abs/1611.01144; Maddison et al., 2017,
https://arxiv.org/abs/1611.00712; Su, 2019, https://kexue.fm/archives/6705.
"""

from __future__ import annotations

import functools
import math

import chex
import flax.struct
import jax
import jax.numpy as jnp

from jvae.distributions.events import Distribution, draw, flat_noise, sum_events
from jvae.types import Array, Key, at_least_float32, float_dtype

_standard_gumbel = functools.partial(jax.random.gumbel, dtype=jnp.float32)

SMALLEST = 1e-37
"""Coordinates of a relaxed draw below it are read as it by `log_prob`."""


@flax.struct.dataclass
class GumbelSoftmax(Distribution):
    """N variables of K values for each example, as points on N simplices.

    Without a temperature they are what they stand for: independent categorical
    variables, one-hot vectors, `log_prob` a probability. A sample then has no gradient.
    With one, a sample is softmax((logits + Gumbel noise) / temperature), which is
    differentiable, and `log_prob` the density of that relaxed variable (the concrete
    distribution) on the first K - 1 coordinates: importance weights are then those of
    a relaxed model. The argmax of a relaxed draw is the categorical draw of its key.

    `mean`, `mode`, `entropy` and the KL are always those of the categorical variables.

    Attributes:
      logits: [B, N, K]; -inf rules a value out, which a relaxed density does not take.
      temperature: positive, a scalar or [B]; None for the categorical variables.
    """

    logits: Array
    temperature: Array | float | None = None

    is_factorized = has_kl_per_dim = True

    @classmethod
    def uniform(
        cls,
        num_examples: int,
        num_variables: int,
        num_values: int,
        temperature: Array | float | None = None,
    ) -> GumbelSoftmax:
        """Returns uniform variables, for each of `num_examples`."""
        shape = (num_examples, num_variables, num_values)
        return cls(jnp.zeros(shape, jnp.float32), temperature)

    def _log_probs(self) -> Array:
        chex.assert_rank(self.logits, 3)
        return jax.nn.log_softmax(at_least_float32(self.logits))

    def _temperatures(self) -> Array:
        """Returns the temperature of every example, [B, 1, 1]."""
        temperature = jnp.asarray(self.temperature, float_dtype(self.logits))
        each = temperature if temperature.ndim else temperature[None]
        return jnp.broadcast_to(each, self.logits.shape[:1])[:, None, None]

    @property
    def mean(self) -> Array:
        """The probabilities, [B, N, K]: the mean of the one-hot vectors."""
        return jnp.exp(self._log_probs())

    @property
    def mode(self) -> Array:
        """The likeliest one-hot vectors, [B, N, K]."""
        return self._one_hot(self.logits)

    def _one_hot(self, scores: Array) -> Array:
        place, values = jnp.argmax(scores, axis=-1), scores.shape[-1]
        return jax.nn.one_hot(place, values, dtype=float_dtype(scores))

    def _scores(self, key: Key, n: int | None = None) -> Array:
        """Returns logits + Gumbel noise, whose argmax is a draw of the categorical."""

        def sample(key, log_probs):
            return log_probs + flat_noise(_standard_gumbel, key, log_probs)

        return draw(sample, key, n, self._log_probs())

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns points on the simplices, [B, N, K] or [n, B, N, K]."""
        scores = self._scores(key, n)
        if self.temperature is None:
            return self._one_hot(scores)
        each = self._temperatures()
        return jax.nn.softmax(scores / (each if n is None else each[None]))

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        """Returns one draw [B, N, K] and its log density or probability [B]."""
        z, log_z = self._sample_and_log(key)
        return z, sum_events(self._log_prob_at(log_z))

    def sample_and_log_ratio(self, key: Key, other: GumbelSoftmax) -> tuple:
        """Returns one draw [B, N, K], and log self - log other at it, [B].

        Exact at any temperature, where `log_prob` of a draw is not: at 0.01 most of its
        coordinates are 0 in float32, while their logarithms are not.
        """
        z, log_z = self._sample_and_log(key)
        ratio = self._log_prob_at(log_z) - other._log_prob_at(log_z)
        return z, sum_events(ratio)

    def _sample_and_log(self, key: Key) -> tuple[Array, Array]:
        """Returns one draw and its logarithm (of a one-hot vector: itself)."""
        scores = self._scores(key)
        if self.temperature is None:
            z = self._one_hot(scores)
            return z, z
        log_z = jax.nn.log_softmax(scores / self._temperatures())
        return jnp.exp(log_z), log_z

    def log_prob_per_dim(self, z: Array) -> Array:
        """Returns [B, N], of each variable the log probability, or density if relaxed.

        The density loses accuracy where coordinates of z are below 1e-37, which draws
        at temperatures below about 0.2 have.
        """
        chex.assert_equal_shape([z, self.logits])
        if self.temperature is None:
            return self._log_prob_at(z)
        return self._log_prob_at(jnp.log(jnp.maximum(z, SMALLEST)))

    def _log_prob_at(self, log_z: Array) -> Array:
        """Returns [B, N] at log z, or without a temperature at one-hot vectors.

        The density is equation 10 of Maddison et al., 2017, in logarithms.
        """
        log_p = self._log_probs()
        if self.temperature is None:
            is_ruled_out = jnp.isneginf(log_p) & (log_z == 0.0)
            return (log_z * jnp.where(is_ruled_out, 0.0, log_p)).sum(-1)
        t, k = self._temperatures(), log_z.shape[-1]
        scores = log_p - t * log_z
        constant = math.lgamma(k) + (k - 1) * jnp.log(t[..., 0])
        density = scores.sum(-1) - k * jax.nn.logsumexp(scores, axis=-1)
        return constant + density - log_z.sum(-1)

    def entropy(self) -> Array:
        """Returns [B], the entropy of the categorical variables in nats."""
        log_p = self._log_probs()
        return -sum_events(_expected(log_p, log_p))

    def kl_per_dim(self, other: GumbelSoftmax) -> Array:
        """Returns [B, N], KL(self || other) of every categorical variable, in nats.

        Against uniform variables it is within [0, ln K]. At a temperature it is not the
        expectation of the log ratio of the relaxed densities.
        """
        log_p, log_q = self._log_probs(), other._log_probs()
        return _expected(log_p, log_p - log_q).sum(-1)


def _expected(log_p: Array, values: Array) -> Array:
    """Returns p values [B, N, K], 0 where a logit of -inf rules a value out."""
    return jnp.exp(log_p) * jnp.where(jnp.isneginf(log_p), 0.0, values)
