"""Mixtures of diagonal Gaussians: priors over latents that come in clusters."""

from __future__ import annotations

import chex
import flax.struct
import jax
import jax.numpy as jnp

from jvae import keys
from jvae.distributions.events import draw
from jvae.distributions.gaussian import DiagGaussian
from jvae.types import Array, Key


@flax.struct.dataclass
class GaussianMixture:
    """p(z) = sum_y p(y) N(z; means_y, diag exp(log_vars_y)), one for all examples.

    Attributes:
      logits: [K], p(y) = softmax(logits).
      means: [K, D].
      log_vars: [K, D].
    """

    logits: Array
    means: Array
    log_vars: Array

    @property
    def log_weights(self) -> Array:
        """Logarithms of p(y), [K]."""
        return jax.nn.log_softmax(self.logits)

    def log_prob_per_dim(self, z: Array) -> Array:
        """Returns [B, K, D], log p(z_d|y) of every dimension of z [B, D]."""
        chex.assert_shape(z, (None, self.means.shape[-1]))
        return self._components().log_prob_per_dim(z[:, None])

    def kl_per_dim(self, q: DiagGaussian) -> Array:
        """Returns [B, K, D], KL(q_d || p(z_d|y)) in nats, closed form, for q [B, D]."""
        chex.assert_shape(q.mean, (None, self.means.shape[-1]))
        return jax.tree.map(lambda a: a[:, None], q).kl_per_dim(self._components())

    def joint_log_prob(self, z: Array) -> Array:
        """Returns [B, K], log p(z, y) in nats, for z [B, D]."""
        terms = self.log_prob_per_dim(z)
        # A product with ones for the reason of `events.sum_events`.
        log_p = jnp.dot(terms, jnp.ones(terms.shape[-1]), precision="highest")
        return log_p + self.log_weights[None]

    def log_prob(self, z: Array) -> Array:
        """Returns [B], log p(z) in nats, for z [B, D]."""
        return jax.nn.logsumexp(self.joint_log_prob(z), axis=-1)

    def log_responsibilities(self, z: Array) -> Array:
        """Returns [B, K], log p(y|z), for z [B, D]."""
        return jax.nn.log_softmax(self.joint_log_prob(z))

    def sample(self, key: Key, n: int, temperature: float | Array = 1.0) -> Array:
        """Returns [n, D], each draw from a component of its own.

        Args:
          key: one key, or [n] keys.
          n: how many draws.
          temperature: factor on the components' standard deviations.
        """
        component_key, z_key = keys.split_each(keys.per_example(key, n), 2)
        logits = jnp.broadcast_to(self.logits[None], (n, *self.logits.shape))
        component = draw(jax.random.categorical, component_key, None, logits)
        chosen = jax.nn.one_hot(component, logits.shape[-1])
        return self.component(chosen).tempered(temperature).sample(z_key)

    def component(self, chosen: Array) -> DiagGaussian:
        """Returns p(z|y) for each row of one-hots [B, K], a Gaussian [B, D]."""
        chex.assert_shape(chosen, (None, *self.logits.shape))
        means = jnp.dot(chosen, self.means, precision="highest")
        return DiagGaussian(means, jnp.dot(chosen, self.log_vars, precision="highest"))

    def _components(self) -> DiagGaussian:
        return DiagGaussian(self.means[None], self.log_vars[None])
