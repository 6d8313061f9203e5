"""Which examples have the nearest codes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from jvae.errors import require

FAR = 1e30
"""Where a code lies that is not finite: with the others of its kind."""

Metric = Literal["euclidean", "cosine"]

MEASURES: dict[Metric, str] = {"euclidean": "distance", "cosine": "cosine similarity"}
"""What is said of each."""


def nearest(
    codes: np.ndarray, queries: np.ndarray, num: int, metric: Metric
) -> np.ndarray:
    """Returns [Q, num], the examples with the nearest codes, the query left out.

    Args:
      codes: [N, D].
      queries: [Q], which of them to look for the neighbours of.
      num: how many, from 1 to N - 1.
      metric: 'euclidean' distance, or 'cosine' similarity.

    Raises:
      ConfigError: num out of range.
    """
    require(1 <= num < len(codes), "num", f"be in 1..{len(codes) - 1}", num)
    from sklearn.neighbors import NearestNeighbors

    points = np.asarray(codes, np.float64)
    points = np.where(np.isfinite(points).all(1, keepdims=True), points, FAR)
    index = NearestNeighbors(n_neighbors=num + 1, metric=metric).fit(points)
    found = index.kneighbors(points[queries], return_distance=False)
    # The query is the nearest of all, but perhaps not the first of several like it.
    near = [row[row != query][:num] for row, query in zip(found, queries, strict=True)]
    return np.stack(near)
