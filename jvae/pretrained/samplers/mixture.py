"""A mixture of Gaussians with full covariances; of one, a single Gaussian."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jvae import keys
from jvae.errors import require
from jvae.types import Array, Key

COVARIANCE_FLOOR = 1e-6
"""Added to the variances, so that every covariance has a root."""


@flax.struct.dataclass
class MixtureSampler:
    """sum_k weights[k] N(means[k], roots[k] roots[k]^T).

    Attributes:
      weights: [K], positive, of sum 1.
      means: [K, D].
      roots: [K, D, D], lower triangular.
    """

    weights: Array
    means: Array
    roots: Array

    def sample(self, key: Key, n: int, temperature: float | Array = 1.0) -> Array:
        """Returns n codes, [n, D]; the temperature acts within the components.

        Args:
          key: one key, or [n] keys.
          n: how many.
          temperature: factor on the standard deviations.
        """

        def draw(key):
            pick_key, noise_key = jax.random.split(key)
            k = jax.random.categorical(pick_key, jnp.log(self.weights))
            noise = jax.random.normal(noise_key, self.means.shape[1:], jnp.float32)
            return self.means[k] + temperature * self.roots[k] @ noise

        return jax.vmap(draw)(keys.per_example(key, n))


def fit_mixture(
    codes: np.ndarray, seed: int = 0, num_components: int = 10
) -> MixtureSampler:
    """Returns a mixture fitted to codes [N, D] by expectation maximisation.

    Args:
      codes: [N, D].
      seed: of the start.
      num_components: K, at most N.

    Raises:
      ConfigError: K out of range.
    """
    from sklearn.mixture import GaussianMixture

    rule = f"be from 1 to {len(codes)}"
    good = 1 <= num_components <= len(codes)
    require(good, "num_components", rule, num_components)
    mixture = GaussianMixture(
        num_components, reg_covar=COVARIANCE_FLOOR, random_state=seed, max_iter=200
    ).fit(np.asarray(codes, np.float64))
    roots = np.linalg.cholesky(mixture.covariances_)
    numbers = mixture.weights_, mixture.means_, roots
    return MixtureSampler(*(jnp.asarray(a, jnp.float32) for a in numbers))


def fit_gaussian(codes: np.ndarray, seed: int = 0) -> MixtureSampler:
    """Returns the Gaussian of the mean and the covariance of codes [N, D].

    Args:
      codes: [N, D].
      seed: not used.
    """
    return fit_mixture(codes, seed, num_components=1)
