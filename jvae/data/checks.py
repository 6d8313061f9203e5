"""What every data set must be like, whoever wrote it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jvae.data.sources import ArraySource, Source, Splits
from jvae.errors import DataError, require_data

FIRST_ROWS = 64
"""How many examples are looked at where reading all of them would take long."""
ROUNDING = 1e-5
"""How far floats may be outside [0, 1] by rounding; 1/400 of a level of 8 bits."""


def check_splits(splits: Splits) -> Splits:
    """Checks sizes, shapes, pixels and labels: all in memory, else the first rows.

    Returns:
      The splits, with pixels in memory that are outside [0, 1] by rounding clipped.

    Raises:
      DataError: a split is empty, splits differ in shape, pixels are not uint8 or
        floats in [0, 1], labels are not integers in 0..num_classes-1.
    """
    shapes = splits.train.shapes
    for name, source in splits.present().items():
        if len(source) == 0:
            raise DataError(f"the {name} split is empty")
        if source.shapes != shapes:
            raise DataError(
                f"train examples are {shapes}, {name} examples {source.shapes}",
                fix="All splits must have the same arrays of the same shapes.",
            )
        check_examples(_rows(source), name, splits.num_classes)
    sources: dict[str, Any] = {k: _clipped(s) for k, s in splits.present().items()}
    return dataclasses.replace(splits, **sources)


def _clipped(source: Source) -> Source:
    """Returns a source in memory with its pixels clipped; others as they are."""
    if not isinstance(source, ArraySource) or "image" not in source.arrays:
        return source
    image = source.arrays["image"]
    clipped = clip_rounding(image)
    if clipped is image:
        return source
    return ArraySource({**source.arrays, "image": clipped})


def clip_rounding(pixels: np.ndarray) -> np.ndarray:
    """Returns pixels of any shape clipped to [0, 1] if they are outside by rounding.

    Such as 1.0000001, of resizing or of sums in float32. Pixels that need no clipping
    are returned as they are, and so are those that are further outside.
    """
    if not np.issubdtype(pixels.dtype, np.floating) or pixels.size == 0:
        return pixels
    low, high = pixels.min(), pixels.max()
    is_rounding = (low < 0 or high > 1) and low >= -ROUNDING and high <= 1 + ROUNDING
    return pixels.clip(0, 1) if is_rounding else pixels


def _rows(source: Source) -> Mapping[str, np.ndarray]:
    """Returns all arrays of a source in memory, else the first rows."""
    if isinstance(source, ArraySource):
        return source.arrays
    return source.read(np.arange(min(len(source), FIRST_ROWS)))


def check_examples(
    arrays: Mapping[str, np.ndarray], split: str, num_classes: int | None = None
) -> None:
    """Checks the images and labels of `arrays`, where there are some.

    Args:
      arrays: [n, ...] by name.
      split: its name, for messages.
      num_classes: labels must be below it; None if that is not known.

    Raises:
      DataError: pixels or labels are not what the project takes.
    """
    if "image" in arrays:
        check_pixels(arrays["image"], split)
    if "label" in arrays:
        check_labels(arrays["label"], split, num_classes)


def as_labels(label: np.ndarray, where: str) -> np.ndarray:
    """Returns labels [N] as int32.

    Raises:
      DataError: one that int32 does not hold, which a cast would make another number.
    """
    cast = label.astype(np.int32)
    wrong = np.flatnonzero(cast != label)
    if wrong.size:
        raise DataError(
            f"labels must be below 2^31, got {label[wrong[0]]} at row {wrong[0]}",
            where=where,
        )
    return cast


def check_pixels(images: np.ndarray, split: str) -> None:
    """Checks that `images` is [n, H, W, C], uint8 or float32 in [0, 1], to rounding.

    Raises:
      DataError: it is not; the message names the row and the range found.
    """
    shape, dtype = images.shape, images.dtype
    rule = "be [examples, height, width, channels]"
    is_full = len(shape) == 4 and 0 not in shape
    require_data(is_full, f"{split} images", rule, f"shape {shape}")

    if dtype == np.uint8:
        return

    rule = "be uint8, or float32 in [0, 1]"
    require_data(dtype == np.float32, f"{split} pixels", rule, dtype)

    low, high = images.min(), images.max()
    if low >= -ROUNDING and high <= 1 + ROUNDING:
        return

    rows = images.reshape(len(images), -1)
    if np.isnan(low):
        row = np.flatnonzero(np.isnan(rows).any(axis=1))[0]
        # fmin and fmax pass over nan.
        low, high = np.fmin.reduce(rows, axis=None), np.fmax.reduce(rows, axis=None)
        raise DataError(
            f"{split} pixels must be in [0, 1], got nan among {low:.9g} to {high:.9g}",
            where=f"row {row}",
        )

    outside = np.maximum(-rows.min(axis=1), rows.max(axis=1) - 1)
    row = np.flatnonzero(outside > ROUNDING)[0]
    raise DataError(
        f"{split} pixels stored as floats must be in [0, 1], got {low:.9g} to "
        f"{high:.9g}",
        where=f"row {row}",
        fix="Scale them, or store 0..255 as uint8.",
    )


def check_labels(labels: np.ndarray, split: str, num_classes: int | None) -> None:
    """Checks that `labels` is [n], integers in 0..num_classes-1.

    Raises:
      DataError: it is not.
    """
    what, found = f"{split} labels", f"{labels.dtype} {labels.shape}"
    is_right = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    require_data(is_right, what, "be integers [examples]", found)
    low, high = int(labels.min()), int(labels.max())
    top = "" if num_classes is None else num_classes - 1
    is_right = low >= 0 and (num_classes is None or high < num_classes)
    require_data(is_right, what, f"be in 0..{top}", f"{low} to {high}")


def require_labels(splits: Splits, needed_by: str) -> int:
    """Returns the number of classes.

    Args:
      splits: a data set.
      needed_by: what needs labels, for the message ('a conditional model').

    Raises:
      DataError: the data set has no labels, or does not say how many classes.
    """
    if "label" not in splits.train.shapes:
        raise DataError(
            f"{needed_by} needs labels and the data set has none",
            fix="Give a data set with labels, or a model without them.",
        )
    if splits.num_classes is None:
        raise DataError(f"{needed_by} needs num_classes, which the data set leaves out")
    return splits.num_classes
