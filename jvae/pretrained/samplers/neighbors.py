"""Points between a training code and one of its nearest neighbours."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jvae import keys
from jvae.errors import require
from jvae.types import Array, Key


@flax.struct.dataclass
class NeighborSampler:
    """z_i + u (z_j - z_i), i any code, j one of its nearest, u ~ U(0, 1).

    So codes stay where data is, however that is shaped. Chawla et al., 2002,
    https://doi.org/10.1613/jair.953, made examples of rare classes so.

    Attributes:
      codes: [N, D].
      nearest: [N, k], the places of the k nearest others of every code.
    """

    codes: Array
    nearest: Array

    def sample(self, key: Key, n: int, temperature: float | Array = 1.0) -> Array:
        """Returns n codes, [n, D].

        Args:
          key: one key, or [n] keys.
          n: how many.
          temperature: the largest u; 0 gives training codes back.
        """

        def draw(key):
            first, second, third = jax.random.split(key, 3)
            (count, _), (_, near) = self.codes.shape, self.nearest.shape
            i = jax.random.randint(first, (), 0, count, jnp.int32)
            j = self.nearest[i, jax.random.randint(second, (), 0, near, jnp.int32)]
            u = temperature * jax.random.uniform(third, dtype=jnp.float32)
            return self.codes[i] + u * (self.codes[j] - self.codes[i])

        return jax.vmap(draw)(keys.per_example(key, n))


def fit_neighbors(
    codes: np.ndarray, seed: int = 0, num_neighbors: int = 5
) -> NeighborSampler:
    """Returns the sampler of codes [N, D].

    Args:
      codes: [N, D].
      seed: not used.
      num_neighbors: k, less than N.

    Raises:
      ConfigError: k out of range.
    """
    from sklearn.neighbors import NearestNeighbors

    rule = f"be from 1 to {len(codes) - 1}"
    good = 1 <= num_neighbors < len(codes)
    require(good, "num_neighbors", rule, num_neighbors)
    index = NearestNeighbors(n_neighbors=num_neighbors).fit(codes)
    nearest = index.kneighbors(return_distance=False)  # without the codes themselves
    points = jnp.asarray(codes, jnp.float32)
    return NeighborSampler(points, jnp.asarray(nearest, jnp.int32))
