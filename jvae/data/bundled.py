"""Data that comes with a library: no files, no network."""

from __future__ import annotations

import numpy as np

from jvae.data.libraries import library
from jvae.data.sources import ArraySource, Splits


def digits() -> Splits:
    """Returns the 1,797 handwritten digits of scikit-learn, 8x8x1, with labels.

    The 17 gray levels 0..16 become round(v * 255 / 16). Every fifth image of a class
    is test data, so the split is the same everywhere.

    Alpaydin & Kaynak, 1998, https://doi.org/10.24432/C50P49.

    Raises:
      ConfigError: scikit-learn is not installed.
    """
    data = library("sklearn.datasets", "scikit-learn").load_digits()
    image = np.round(data.images * 255 / 16).astype(np.uint8)[..., None]
    label = data.target.astype(np.int32)
    rank = np.empty_like(label)
    for digit in range(10):
        rows = label == digit
        rank[rows] = np.arange(rows.sum())
    test = rank % 5 == 4
    return Splits(
        train=ArraySource({"image": image[~test], "label": label[~test]}),
        test=ArraySource({"image": image[test], "label": label[test]}),
        num_classes=10,
    )
