"""How near generated images are to real ones, by features of both.

Every number belongs to the features that it was computed on. "FID" is the Fréchet
distance on one published network's features, so nothing here is called so.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jvae.errors import ConfigError, require

NEIGHBOURS = 5
"""The radius of an example is the distance to so many neighbours."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of features, added up over any parts.

    Attributes:
      count: examples.
      total: [F], their sum.
      products: [F, F], the sum of their outer products.
    """

    count: int
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Returns those of features [N, F]."""
        rows = np.asarray(features, np.float64)
        return cls(len(rows), rows.sum(0), rows.T @ rows)

    def __add__(self, other: Moments) -> Moments:
        """Returns those of both together."""
        total, products = self.total + other.total, self.products + other.products
        return Moments(self.count + other.count, total, products)

    @property
    def mean(self) -> np.ndarray:
        """[F]."""
        return self.total / self.count

    @property
    def covariance(self) -> np.ndarray:
        """[F, F], unbiased."""
        centered = self.products - self.count * np.outer(self.mean, self.mean)
        return centered / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Returns |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), A and B covariances.

    The squared 2-Wasserstein distance of two Gaussians (Dowson & Landau, 1982,
    https://doi.org/10.1016/0047-259X(82)90077-X). The trace of the root is the sum of
    the roots of the eigenvalues of A^(1/2) B A^(1/2), which are real. Biased upwards
    with few examples, so it compares sets of equal size only.

    Args:
      a: of at least 2 examples.
      b: of as many features.

    Raises:
      ConfigError: fewer examples, or other features.
    """
    fewest = min(a.count, b.count)
    require(fewest >= 2, "examples", "be at least 2", fewest)
    if a.total.shape != b.total.shape:
        shapes = f"{list(a.total.shape)} and {list(b.total.shape)}"
        raise ConfigError(f"features must be the same, got shapes {shapes}")
    return between_gaussians(a.mean, a.covariance, b.mean, b.covariance)


def between_gaussians(
    mean_a: np.ndarray,
    covariance_a: np.ndarray,
    mean_b: np.ndarray,
    covariance_b: np.ndarray,
) -> float:
    """Returns the Fréchet distance of two Gaussians, see `frechet_distance`.

    Args:
      mean_a: [F].
      covariance_a: [F, F], symmetric and not negative.
      mean_b: [F].
      covariance_b: [F, F].
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace = np.sqrt(np.maximum(inner, 0.0)).sum()
    difference = mean_a - mean_b
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * trace
    return float(max(0.0, difference @ difference + spread))


def overlap(
    real: np.ndarray, fake: np.ndarray, k: int = NEIGHBOURS
) -> dict[str, float]:
    """Returns how two sets of examples cover each other.

    'precision' is the share of generated examples within the radius of some real one,
    'recall' that of real examples within the radius of some generated one, 'density'
    the mean number of real radii that a generated example is in, over k, and 'coverage'
    the share of real examples in whose radius some generated one is.

    The radius of an example is the distance to its k-th neighbour in its own set.
    Kynkäänniemi et al., 2019, https://arxiv.org/abs/1904.06991; Naeem et al., 2020,
    https://arxiv.org/abs/2002.09797.

    Args:
      real: [N, F], features of real examples.
      fake: [M, F], of generated ones.
      k: neighbours, less than N and M.

    Raises:
      ConfigError: too few examples.
    """
    from sklearn.metrics import pairwise_distances

    rule = f"be from 1 to {min(len(real), len(fake)) - 1}"
    require(1 <= k < min(len(real), len(fake)), "k", rule, k)
    real, fake = (np.asarray(a, np.float64) for a in (real, fake))
    radii_real, radii_fake = _radii(real, k), _radii(fake, k)
    distances = pairwise_distances(real, fake)
    in_real = distances <= radii_real[:, None]
    in_fake = distances <= radii_fake[None, :]
    return {
        "precision": float(in_real.any(0).mean()),
        "recall": float(in_fake.any(1).mean()),
        "density": float(in_real.sum(0).mean() / k),
        "coverage": float(in_real.any(1).mean()),
    }


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Returns [N], the distance to the k-th nearest of the others."""
    from sklearn.neighbors import NearestNeighbors

    distances = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0]
    return distances[:, -1]  # the point itself is the first
