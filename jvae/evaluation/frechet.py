"""How near generated images are to real ones, by features of both.

Every number belongs to the features that it was computed on. "FID" is the Fréchet
distance on one published network's features, so nothing here is called so.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial.distance import cdist

from jvae.errors import ConfigError, require

NEIGHBOURS = 5
"""The radius of an example is the distance to so many neighbours."""
CHUNK = 1024
"""Examples whose distances to all others are in memory at once."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of features, added up over any parts.

    Deviations are from the mean of their own part, so that a mean far from 0 cancels
    nothing. Chan et al., 1979, Updating formulae for computing sample variances.

    Attributes:
      count: examples.
      mean: [F].
      scatter: [F, F], the sum of the outer products of deviations from the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Returns those of features [N, F]."""
        rows = np.asarray(features, np.float64)
        mean = rows.mean(0)
        deviations = rows - mean
        return cls(len(rows), mean, deviations.T @ deviations)

    def __add__(self, other: Moments) -> Moments:
        """Returns those of both together."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> np.ndarray:
        """[F, F], unbiased."""
        return self.scatter / (self.count - 1)


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
    if a.mean.shape != b.mean.shape:
        shapes = f"{list(a.mean.shape)} and {list(b.mean.shape)}"
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
    rule = f"be from 1 to {min(len(real), len(fake)) - 1}"
    require(1 <= k < min(len(real), len(fake)), "k", rule, k)
    real, fake = (np.asarray(a, np.float64) for a in (real, fake))
    radii_real, radii_fake = _radii(real, k), _radii(fake, k)

    covered = recalled = 0
    num_around = np.zeros(len(fake))
    for start in range(0, len(real), CHUNK):
        distances = cdist(real[start : start + CHUNK], fake)
        in_real = distances <= radii_real[start : start + CHUNK, None]
        num_around += in_real.sum(0)
        covered += in_real.any(1).sum()
        recalled += (distances <= radii_fake[None, :]).any(1).sum()

    return {
        "precision": float((num_around > 0).mean()),
        "recall": float(recalled / len(real)),
        "density": float(num_around.mean() / k),
        "coverage": float(covered / len(real)),
    }


def _radii(points: np.ndarray, k: int) -> np.ndarray:
    """Returns [N], the distance of each point to its k-th nearest other point.

    By `cdist`, as distances between sets are: two ways to compute a distance round
    differently, and a copy of a point could lie outside its radius.
    """
    radii = []
    for start in range(0, len(points), CHUNK):
        distances = cdist(points[start : start + CHUNK], points)
        # Place 0 is the distance 0 of a point to itself.
        radii.append(np.partition(distances, k, axis=1)[:, k])
    return np.concatenate(radii)
