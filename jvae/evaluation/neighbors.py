"""Which examples have the nearest codes."""

from __future__ import annotations

from typing import Literal

import numpy as np

from jvae.errors import require
from jvae.evaluation.probes import directions

Metric = Literal["euclidean", "cosine"]


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
    points = np.asarray(codes, np.float32)
    if metric == "cosine":
        points = directions(points)
    # |a - b|^2 without |a|^2, the same for all b.
    distance = (points**2).sum(1)[None] - 2.0 * points[queries] @ points.T
    distance[np.arange(len(queries)), queries] = np.inf
    return np.argsort(distance, axis=1, kind="stable")[:, :num]
