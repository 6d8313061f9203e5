"""Codes in two dimensions: a plane that can be walked on, and t-SNE."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

Projection = Literal["pca", "tsne"]

PERPLEXITY = 30.0
"""Neighbours that t-SNE keeps near, about; fewer where there are few codes."""
GAP = 0.11
"""How far apart `apart` keeps places, in parts of the map's longer side."""


@dataclasses.dataclass(frozen=True)
class Plane:
    """The plane through the mean of codes that has most of their variance.

    Attributes:
      mean: [D], of the codes.
      axes: [2, D], orthonormal principal axes; of codes with one dimension the second
        is 0.
      explained: [2], the share of the variance along each.
    """

    mean: np.ndarray
    axes: np.ndarray
    explained: np.ndarray

    @classmethod
    def of(cls, codes: np.ndarray) -> Plane:
        """Returns the plane of codes [N, D]; the largest part of an axis is positive.

        The axes are the first two right singular vectors of the centred codes.
        """
        points = np.asarray(codes, np.float64)
        mean = points.mean(0)
        _, lengths, vectors = np.linalg.svd(points - mean, full_matrices=False)
        count = min(2, len(vectors))
        axes, explained = np.zeros((2, points.shape[1])), np.zeros(2)
        largest = np.abs(vectors[:count]).argmax(1)
        signs = np.sign(vectors[np.arange(count), largest])
        axes[:count] = signs[:, None] * vectors[:count]
        total = max(float((lengths**2).sum()), np.finfo(float).tiny)
        explained[:count] = lengths[:count] ** 2 / total
        return cls(mean, axes, explained)

    def place(self, codes: np.ndarray) -> np.ndarray:
        """Returns [..., 2], where codes [..., D] are seen in the plane."""
        return (np.asarray(codes) - self.mean) @ self.axes.T

    def point(self, place: np.ndarray) -> np.ndarray:
        """Returns [..., D], the point of the plane at a place [..., 2]."""
        return self.mean + np.asarray(place) @ self.axes


def tsne(codes: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns [N, 2], a map that keeps neighbours together; its axes mean nothing.

    van der Maaten & Hinton, 2008, https://jmlr.org/papers/v9/vandermaaten08a.html.

    Args:
      codes: [N, D], at least two.
      seed: of the search.
    """
    from sklearn.manifold import TSNE

    perplexity = max(min(PERPLEXITY, (len(codes) - 1) / 3.0), 1e-3)
    start = "pca" if codes.shape[1] > 1 else "random"
    search = TSNE(2, perplexity=perplexity, init=start, random_state=seed)
    return search.fit_transform(np.asarray(codes, np.float32))


def apart(places: np.ndarray, gap: float = GAP) -> np.ndarray:
    """Returns the first places of which none is near another, as indices.

    Args:
      places: [N, 2].
      gap: least distance along one of the axes, in parts of the longer extent.
    """
    least = gap * max(float(np.ptp(places, axis=0).max()), 1e-12)
    indices: list[int] = []
    for i, place in enumerate(places):
        if all(np.abs(places[j] - place).max() >= least for j in indices):
            indices.append(i)
    return np.asarray(indices)
