"""Data that comes with a library: no files, no network."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from jvae.data.libraries import library
from jvae.data.sources import ArraySource, Splits

FILE = "datasets/data/digits.csv.gz"
"""Where scikit-learn has them: 64 gray levels and the label, a line for each."""


def digits() -> Splits:
    """Returns the 1,797 handwritten digits of scikit-learn, 8x8x1, with labels.

    The 17 gray levels 0..16 become round(v * 255 / 16). Every fifth image of a class
    is test data, so the split is the same everywhere.

    Alpaydin & Kaynak, 1998, https://doi.org/10.24432/C50P49.

    Raises:
      ConfigError: scikit-learn is not installed.
    """
    rows = _rows()
    image = np.round(rows[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    label = rows[:, -1].astype(np.int32)
    rank = np.empty_like(label)
    for digit in range(10):
        same = label == digit
        rank[same] = np.arange(same.sum())
    test = rank % 5 == 4
    return Splits(
        train=ArraySource({"image": image[~test], "label": label[~test]}),
        test=ArraySource({"image": image[test], "label": label[test]}),
        num_classes=10,
    )


def _rows() -> np.ndarray:
    """Returns [1797, 65], the gray levels and the label of each.

    Its file is read without importing scikit-learn, which takes a second, a fifth of
    the start of a run.
    """
    spec = importlib.util.find_spec("sklearn")
    file = Path(spec.origin).parent / FILE if spec and spec.origin else None
    if file is not None and file.exists():
        return np.loadtxt(file, delimiter=",")
    data = library("sklearn.datasets", "scikit-learn").load_digits()
    return np.column_stack((data.data, data.target))
