"""Layers on an encoder's means and log variances that keep a KL from vanishing.

Each takes [B, 2 D], means and then log variances, and returns the same. They belong
before the draw of z and never on z. Statistics are those of the batch where
'batch_stats' is mutable (training), of the global one if it is sharded; else they are
running ones. Scales that are fixed are no parameters, so nothing can train or decay
them.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae.layers import BatchNorm
from jvae.types import Array

Variance = Literal["signed", "positive"]

EPSILON = 1e-8
"""Added to a batch's variance, as in Su, 2020."""
LEAST_VARIANCE = 1e-6
"""Added to a signed standard deviation's square, whose logarithm has none at 0."""


class MeanNorm(nn.Module):
    """Means of standard deviation `gamma` over the batch, shifted by a learned vector.

    As KL >= mean^2 / 2 in every dimension, its mean over a batch of training is at
    least sum_d (gamma^2 + shift_d^2) / 2, whatever the weights.

    Zhu et al., 2020, https://arxiv.org/abs/2004.12585.

    Attributes:
      gamma: the standard deviation.
    """

    gamma: float

    @nn.compact
    def __call__(self, outputs: Array, mask: Array | None = None) -> Array:
        """Returns [B, 2 D] with normalised means; rows of `mask` False do not count."""
        mean, log_var = jnp.split(outputs, 2, axis=-1)
        zeros, shape = nn.initializers.zeros, mean.shape[-1:]
        shift = self.param("shift", zeros, shape, jnp.float32)
        mean = BatchNorm(epsilon=EPSILON, affine=False)(mean, mask)
        return jnp.concatenate([self.gamma * mean + shift[None], log_var], axis=-1)


class MomentNorm(nn.Module):
    """Means and variances that add up to 1 over the batch, in every dimension.

    With s = sigmoid(theta), theta learned, the means have the variance
    tau + (1 - tau) s over the batch and the variances the mean (1 - tau)(1 - s). So the
    mixture of all q(z|x) has the mean 0 and the variance 1 of the prior, and by
    Jensen's inequality the KL is in the mean at least -log((1 - tau)(1 - s)) / 2 nats a
    dimension.

    'signed' takes the square of a normalised number as the variance (Su, 2020,
    https://kexue.fm/archives/7381): it may cross 0, where its logarithm has none, so
    1e-6 is added. 'positive' divides exp(log variance) by its mean over the batch,
    which keeps the moments and cannot cross 0.

    Attributes:
      tau: the least variance of the means, within (0, 1).
      variance: 'signed' or 'positive'.
    """

    tau: float
    variance: Variance = "signed"

    @nn.compact
    def __call__(self, outputs: Array, mask: Array | None = None) -> Array:
        """Returns [B, 2 D], normalised; rows of `mask` False do not count."""
        mean, spread = jnp.split(outputs, 2, axis=-1)
        zeros, shape = nn.initializers.zeros, mean.shape[-1:]
        theta = self.param("theta", zeros, shape, jnp.float32)[None]
        left = (1.0 - self.tau) * nn.sigmoid(-theta)
        norm = BatchNorm(epsilon=EPSILON, affine=False, name="mean_norm")
        mean = jnp.sqrt(1.0 - left) * norm(mean, mask)
        if self.variance == "signed":
            norm = BatchNorm(epsilon=EPSILON, affine=False, name="spread_norm")
            log_var = jnp.log(left * jnp.square(norm(spread, mask)) + LEAST_VARIANCE)
        else:
            log_var = jnp.log(left) + LogMeanNorm(name="spread_norm")(spread, mask)
        return jnp.concatenate([mean, log_var], axis=-1)


class LogMeanNorm(nn.Module):
    """[B, D] less log mean exp over the batch: exp of the result has the mean 1.

    Attributes:
      momentum: weight of the old running value.
    """

    momentum: float = 0.99

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Returns x, normalised; rows of `mask` False do not count."""
        running = self.variable(
            "batch_stats", "log_mean", jnp.zeros, x.shape[-1:], jnp.float32
        )
        if not self.is_mutable_collection("batch_stats"):
            return x - running.value[None]
        rows = jnp.ones(x.shape[0], bool) if mask is None else mask.astype(bool)
        some = rows.any()
        rows = rows | ~some  # all are padding: take them, and remember nothing
        values = jnp.where(rows[:, None], x, -jnp.inf)
        count = rows.sum().astype(x.dtype)
        log_mean = jax.nn.logsumexp(values, axis=0) - jnp.log(count)
        if not self.is_initializing():
            old = jnp.where(some, self.momentum, 1.0)
            running.value = old * running.value + (1.0 - old) * log_mean
        return x - log_mean[None]


class KlFloor(nn.Module):
    """Gaussians each dimension of which is at least `delta` nats from N(0, 1).

    Twice the KL is mean^2 + var - 1 - log var. Where the last three are below 2 delta,
    the square of the mean makes up for them; the encoder's number adds to it, with its
    sign.

    Attributes:
      delta: nats.
    """

    delta: float

    @nn.compact
    def __call__(self, outputs: Array, mask: Array | None = None) -> Array:
        """Returns [B, 2 D]; every row on its own, so `mask` is not read."""
        mean, log_var = jnp.split(outputs, 2, axis=-1)
        of_variance = jnp.exp(log_var) - 1.0 - log_var
        least = jnp.maximum(2.0 * self.delta - of_variance, 0.0)
        # sqrt has no slope at 0.
        far = jnp.sqrt(jnp.square(mean) + least + 1e-12)
        return jnp.concatenate([jnp.where(mean < 0.0, -far, far), log_var], axis=-1)
