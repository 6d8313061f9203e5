"""The digits that come with scikit-learn."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets

from jvae import data
from jvae.data.datasets import digits
from jvae.errors import ConfigError


def test_digits_are_all_there_and_split_by_class():
    splits = data.build("digits")
    train, test = splits.train.arrays, splits.test.arrays
    assert len(splits.train) + len(splits.test) == 1797
    assert train["image"].shape[1:] == (8, 8, 1) and train["image"].dtype == np.uint8
    share = np.bincount(test["label"]) / np.bincount(
        np.concatenate([train["label"], test["label"]])
    )
    assert len(share) == splits.num_classes == 10
    assert np.all((share > 0.19) & (share < 0.21))


def test_digits_have_17_levels_from_black_to_white():
    raw = sklearn.datasets.load_digits()
    splits = data.build("digits")
    pixels = np.concatenate([splits.train.arrays["image"], splits.test.arrays["image"]])
    levels = np.round(np.arange(17) * 255 / 16)
    np.testing.assert_array_equal(np.unique(pixels), levels)
    counts = np.bincount(raw.images.astype(int).ravel(), minlength=17)
    np.testing.assert_array_equal(np.unique(pixels, return_counts=True)[1], counts)


def test_digits_are_those_of_the_library(monkeypatch):
    raw = sklearn.datasets.load_digits()
    rows = np.column_stack((raw.data, raw.target))
    np.testing.assert_array_equal(digits._rows(), rows)
    monkeypatch.setattr(digits, "FILE", "elsewhere.csv.gz")
    np.testing.assert_array_equal(digits._rows(), rows)


def test_digits_are_read_without_importing_the_library():
    program = "import sys; from jvae import data; data.build('digits'); "
    program += "sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_digits_need_the_library(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match="pip install 'scikit-learn'"):
        data.build("digits")
