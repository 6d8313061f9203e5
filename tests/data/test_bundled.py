"""The digits that come with scikit-learn."""

import numpy as np
import sklearn.datasets

from jvae import data


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
