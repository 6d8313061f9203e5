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
        log_p = jnp.dot(terms, jnp.ones_like(terms[0, 0]), precision="highest")
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
        one_hot = jax.nn.one_hot(component, logits.shape[-1], dtype=logits.dtype)
        return self.component(one_hot).tempered(temperature).sample(z_key)

    def component(self, one_hot: Array) -> DiagGaussian:
        """Returns p(z|y) for each row of one-hots [B, K], a Gaussian [B, D]."""
        chex.assert_shape(one_hot, (None, *self.logits.shape))
        means = jnp.dot(one_hot, self.means, precision="highest")
        return DiagGaussian(means, jnp.dot(one_hot, self.log_vars, precision="highest"))

    @classmethod
    def fit(
        cls, z: Array, num_components: int, key: Key, starts: int = 10, steps: int = 100
    ) -> GaussianMixture:
        """Returns the most likely mixture that expectation-maximisation finds.

        Args:
          z: points [N, D].
          num_components: K.
          key: of the first means, points that lie apart (k-means++, Arthur &
            Vassilvitskii, 2007).
          starts: how many first means are tried.
          steps: of expectation-maximisation from each.
        """
        chex.assert_rank(z, 2)
        z = jnp.asarray(z)

        def from_start(key):
            means = _apart(z, num_components, key)
            spread = jnp.broadcast_to(jnp.log(_floored(z.var(0)))[None], means.shape)
            mixture = cls(jnp.zeros_like(means[:, 0]), means, spread)
            return jax.lax.fori_loop(0, steps, lambda _, m: m.refitted(z), mixture)

        mixtures = jax.lax.map(from_start, jax.random.split(key, starts))
        fits = jax.lax.map(lambda mixture: mixture.log_prob(z).mean(), mixtures)
        return jax.tree.map(lambda a: a[jnp.argmax(fits)], mixtures)

    def refitted(self, z: Array) -> GaussianMixture:
        """Returns the mixture after one step of expectation-maximisation on z [N, D].

        Variances stay above 1e-6.
        """
        shares = jnp.exp(self.log_responsibilities(z))
        count = shares.sum(0) + 1e-6  # a component may own no point
        means = jnp.dot(shares.T, z, precision="highest") / count[:, None]
        distance = jnp.square(z[:, None] - means[None])
        variances = jnp.einsum("nk,nkd->kd", shares, distance, precision="highest")
        log_vars = jnp.log(_floored(variances / count[:, None]))
        return GaussianMixture(jnp.log(count), means, log_vars)

    def _components(self) -> DiagGaussian:
        return DiagGaussian(self.means[None], self.log_vars[None])


def _floored(variance: Array) -> Array:
    return jnp.maximum(variance, 1e-6)


def _apart(z: Array, n: int, key: Key) -> Array:
    """Returns n rows of z [N, D], each drawn by its squared distance from those before.

    The first is drawn evenly; so is one that would be drawn where all distances are 0.
    """
    first, *rest = jax.random.split(key, n)
    points = [z[jax.random.randint(first, (), 0, len(z), jnp.int32)]]
    nearest = jnp.square(z - points[0][None]).sum(-1)
    for each in rest:
        weights = jnp.where(nearest.max() > 0.0, nearest, 1.0)
        points.append(z[jax.random.categorical(each, jnp.log(weights))])
        nearest = jnp.minimum(nearest, jnp.square(z - points[-1][None]).sum(-1))
    return jnp.stack(points)
