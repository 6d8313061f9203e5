"""Whatever a data set holds is looked at before it is trained on."""

import numpy as np
import pytest

from jvae.data.checks import (
    ROUNDING,
    check_examples,
    check_splits,
    clip_rounding,
    require_labels,
)
from jvae.data.sources import ArraySource, Splits, Subset
from jvae.errors import DataError


def images(dtype=np.uint8, shape=(6, 2, 2, 1)):
    return np.zeros(shape, dtype)


def with_pixel(value, row=4):
    array = images(np.float32)
    array[row, 1, 0, 0] = value
    return array


@pytest.mark.parametrize(
    "image, words",
    [
        (with_pixel(np.nan), r"train pixels .* got nan among 0 to 0 \(row 4\)"),
        (np.full((2, 2, 2, 1), np.nan, np.float32), r"got nan .*\(row 0\)"),
        (with_pixel(-1.0), r"got -1 to 0 \(row 4\)"),
        (with_pixel(255.0), r"got 0 to 255 \(row 4\)\. Scale them"),
        (with_pixel(np.inf), r"got 0 to inf \(row 4\)"),
        (with_pixel(1 + 2 * ROUNDING), r"got 0 to 1\.0000\d+ \(row 4\)"),
        (with_pixel(-2 * ROUNDING), r"got -\S+e-05 to 0 \(row 4\)"),
        (images(np.float64), "uint8, or float32.*float64"),
        (images(np.int64), "got int64"),
        (images(shape=(6, 2, 2)), r"\[examples, height, width, channels\]"),
        (images(shape=(6, 2, 0, 1)), "got shape"),
    ],
)
def test_pixels_that_cannot_be_are_named(image, words):
    with pytest.raises(DataError, match=words):
        check_examples({"image": image}, "train")


@pytest.mark.parametrize("image", [images(), with_pixel(1.0), with_pixel(0.25)])
def test_good_pixels_pass(image):
    check_examples({"image": image, "label": np.array([0, 1, 2, 0, 1, 2])}, "train", 3)


@pytest.mark.parametrize(
    "label, words",
    [
        ([0, 1, 3], r"0\.\.2, got 0 to 3"),
        ([-1, 0, 1], "got -1 to 1"),
        ([0.0, 1.0, 2.0], "integers.*float64"),
        ([[0], [1], [2]], "integers"),
    ],
)
def test_labels_that_cannot_be_are_named(label, words):
    with pytest.raises(DataError, match=words):
        check_examples({"label": np.array(label)}, "test", 3)


def source(size=6, shape=(2, 2, 1), **others):
    return ArraySource({"image": images(shape=(size, *shape)), **others})


@pytest.mark.parametrize(
    "test, words",
    [
        (source(0), "the test split is empty"),
        (source(shape=(3, 3, 1)), r"\(2, 2, 1\).*\(3, 3, 1\)"),
        (source(label=np.zeros(6, np.int32)), "same arrays"),
        (ArraySource({"image": with_pixel(np.nan)}), "test pixels"),
    ],
)
def test_splits_must_be_alike_and_not_empty(test, words):
    with pytest.raises(DataError, match=words):
        check_splits(Splits(source(), test))


def test_what_is_in_memory_is_checked_whole_and_the_rest_in_its_first_rows():
    late = np.zeros((1000, 1, 1, 1), np.float32)
    late[900] = 2.0
    in_memory = ArraySource({"image": late})
    good = ArraySource({"image": late[:5]})
    with pytest.raises(DataError, match="row 900"):
        check_splits(Splits(good, in_memory))
    check_splits(Splits(good, Subset(in_memory, np.arange(1000))))
    with pytest.raises(DataError, match="row 5"):
        check_splits(Splits(good, Subset(in_memory, np.arange(895, 1000))))


def test_a_conditional_model_needs_labels_and_their_number():
    label = np.zeros(6, np.int32)
    labelled = source(label=label)
    assert require_labels(Splits(labelled, labelled, num_classes=4), "it") == 4
    with pytest.raises(DataError, match="a conditional model needs labels"):
        require_labels(Splits(source(), source()), "a conditional model")
    with pytest.raises(DataError, match="num_classes"):
        require_labels(Splits(labelled, labelled), "a conditional model")


@pytest.mark.parametrize("value", [np.nextafter(1, 2, dtype="f4"), 1 + 9e-6, -1e-7])
def test_floats_outside_by_rounding_are_clipped(value):
    """Of all that is in memory; what is read later is let through."""
    image = with_pixel(value)
    given = ArraySource({"image": image})
    splits = check_splits(Splits(given, given, Subset(given, np.arange(6))))
    clipped = np.clip(image, 0, 1)
    for source in (splits.train, splits.test):
        np.testing.assert_array_equal(source.arrays["image"], clipped)
    assert image[4, 1, 0, 0] == np.float32(value) and splits.validation.source is given


@pytest.mark.parametrize("image", [images(), with_pixel(0.5), with_pixel(1.1)])
def test_pixels_that_need_no_clipping_are_not_copied(image):
    assert clip_rounding(image) is image


def test_a_message_has_the_digits_that_are_wrong():
    """Of a row that is outside by more than rounding, whatever comes before it."""
    image = with_pixel(np.float32(1.0000121))
    image[0] = 1 + ROUNDING / 2
    with pytest.raises(DataError) as error:
        check_examples({"image": image}, "train")
    most = str(error.value).split(" to ")[1].split()[0]
    assert np.float32(most) == image.max() and "(row 4)" in str(error.value)
