"""Gaussians: posteriors and priors over latents, densities of continuous pixels."""

from __future__ import annotations

import math
from typing import Any

import chex
import flax.struct
import jax
import jax.numpy as jnp

from jvae.distributions.events import (
    Distribution,
    as_distribution,
    draw,
    flat_noise,
    sum_events,
)
from jvae.runtime import random_bits
from jvae.types import Array, Key, at_least_float32

LOG_TWO_PI = math.log(2.0 * math.pi)


@flax.struct.dataclass
class DiagGaussian(Distribution):
    """N(mean, diag(exp(log_var))); mean and log_var are [B, ...], of one shape."""

    mean: Array
    log_var: Array

    is_factorized = has_kl_per_dim = True

    @classmethod
    def standard(cls, num_examples: int, *shape: int) -> DiagGaussian:
        """Returns N(0, I) over arrays of `shape`, for each of `num_examples`."""
        zeros = jnp.zeros((num_examples, *shape), jnp.float32)
        return cls(zeros, zeros)

    @property
    def std(self) -> Array:
        """Standard deviations, [B, ...]."""
        return jnp.exp(0.5 * self.log_var)

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns mean + std * eps, [B, ...] or [n, B, ...]; differentiable."""

        def sample(key, mean, std):
            return mean + std * flat_noise(random_bits.normal, key, mean)

        return draw(sample, key, n, self.mean, self.std)

    def log_prob_per_dim(self, z: Array) -> Array:
        """Returns [B, ...], the log density of every dimension of z."""
        mean, log_var = map(at_least_float32, (self.mean, self.log_var))
        error = jnp.square(z - mean) * jnp.exp(-log_var)
        return -0.5 * (LOG_TWO_PI + log_var + error)

    def entropy(self) -> Array:
        """Returns [B], the differential entropy in nats."""
        return sum_events(0.5 * (LOG_TWO_PI + 1.0 + at_least_float32(self.log_var)))

    def kl_per_dim(self, other: DiagGaussian) -> Array:
        """Returns [B, ...], KL(self || other) of every dimension, >= 0."""
        q, p = jax.tree.map(at_least_float32, (self, other))
        log_ratio = q.log_var - p.log_var
        shift = jnp.square(q.mean - p.mean) * jnp.exp(-p.log_var)
        # expm1(r) - r is exact near r = 0, where exp(r) - 1 - r would cancel.
        return 0.5 * (jnp.expm1(log_ratio) - log_ratio + shift)

    def kl_to_standard_normal(self) -> Array:
        """Returns [B], KL(self || N(0, I)) in nats, in closed form."""
        zeros = jnp.zeros_like(self.mean)
        return sum_events(self.kl_per_dim(DiagGaussian(zeros, zeros)))

    def tempered(self, temperature: float | Array) -> DiagGaussian:
        """Returns this with standard deviations times `temperature` (0: the mean)."""
        shift = 2.0 * jnp.log(jnp.asarray(temperature, self.log_var.dtype))
        return DiagGaussian(self.mean, self.log_var + shift)


def kl_per_group(q: Any, p: Any) -> Array | None:
    """Returns KL(q || p) as [B, groups] in closed form, None where there is none.

    A q with `kl_per_dim` (a diagonal Gaussian, categorical variables) has one group per
    dimension against another of its kind, and no closed form against anything else;
    any other q has one group if `q.kl_to(p)` returns a [B] array.
    """
    is_same, q = isinstance(p, type(q)), as_distribution(q)
    if not q.has_kl_per_dim:
        total = q.kl_to(p)
        return None if total is None else total[:, None]
    if not is_same:
        return None
    kl = at_least_float32(q.kl_per_dim(p))
    return kl.reshape(kl.shape[0], -1)


@flax.struct.dataclass
class Gaussian(Distribution):
    """A density of continuous pixels; mean [B, ...], log_var broadcasts against it.

    On 8-bit data this density is unbounded: add full-bin noise, or read it as a
    weighted squared error.
    """

    mean: Array
    log_var: Array

    support = "real"
    data_dtypes = (jnp.floating,)

    def _diagonal(self) -> DiagGaussian:
        return DiagGaussian(self.mean, jnp.broadcast_to(self.log_var, self.mean.shape))

    def log_prob(self, x: Array) -> Array:
        """Returns [B], the log density in nats, (D/2) log 2 pi included."""
        chex.assert_equal_shape([x, self.mean])
        return self._diagonal().log_prob(x)

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns draws with the noise, [B, ...] or [n, B, ...]."""
        return self._diagonal().sample(key, n)
