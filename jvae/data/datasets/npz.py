"""A data set in one .npz file, the format that needs nothing but numpy."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from jvae.data.checks import as_labels
from jvae.data.files import check_size, count_classes
from jvae.data.sources import ArraySource, Splits
from jvae.errors import UNREADABLE_NPZ, DataError, require_data

EXPECTED = (
    "Write it with numpy.savez(path, train_images=..., test_images=...) and, where "
    "they exist, train_labels, test_labels, validation_images, validation_labels."
)
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of an array, by its version of the format."""


def npz(path: str) -> Splits:
    """Returns the data set in an .npz file.

    Images are uint8, or floats in [0, 1], [N, H, W] or [N, H, W, C]; labels are
    integers [N]. Pickled objects are refused, and no array is allocated before its
    header has been held against the size of the file.

    Args:
      path: The file, with train_images and test_images; ~ is the home directory.

    Raises:
      DataError: the file or an array is missing, damaged or of another kind.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError("no such file", where=str(file), fix=EXPECTED)
    if file.stat().st_size == 0:
        raise DataError("the file is empty", where=str(file), fix=EXPECTED)
    try:
        with zipfile.ZipFile(file) as archive:
            train = _split(archive, "train")
            test = _split(archive, "test")
            has_more = "validation_images.npy" in archive.namelist()
            validation = _split(archive, "validation") if has_more else None
    except DataError:
        raise
    except UNREADABLE_NPZ as error:
        raise DataError(
            f"not a readable .npz file: {error}", where=str(file), fix=EXPECTED
        ) from error
    return Splits(train, test, validation, count_classes(train, test, validation))


def _split(archive: zipfile.ZipFile, name: str) -> ArraySource:
    """Returns the split `name` of an open archive."""
    image = _read(archive, f"{name}_images")
    where = f"{archive.filename}, {name}_images"
    if image.ndim == 3:
        image = image[..., None]
    if np.issubdtype(image.dtype, np.floating):
        image = image.astype(np.float32, copy=False)
    rule, shape = "be [N, H, W] or [N, H, W, C]", image.shape
    require_data(image.ndim == 4, "images", rule, shape, where=where)
    arrays = {"image": image}
    if f"{name}_labels.npy" in archive.namelist():
        where = f"{archive.filename}, {name}_labels"
        label = _read(archive, f"{name}_labels")
        fits = np.issubdtype(label.dtype, np.integer) and label.shape == shape[:1]
        rule, found = f"be integers [{len(image)}]", f"{label.dtype} {label.shape}"
        require_data(fits, "labels", rule, found, where=where)
        arrays["label"] = as_labels(label, where)
    return ArraySource(arrays)


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Returns one array of the archive, after a look at its header."""
    where = f"{archive.filename}, {name}"
    if f"{name}.npy" not in archive.namelist():
        known = ", ".join(archive.namelist()) or "nothing"
        raise DataError(f"no array {name}, there is {known}", where=where, fix=EXPECTED)

    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        shape, dtype = _header(stream, where)
        # Compressed or not, zipfile reads at most file_size bytes of a member.
        packed = member.compress_type != zipfile.ZIP_STORED
        stored = min(member.compress_size, Path(archive.filename or "").stat().st_size)
        size = check_size(shape, dtype.itemsize, stored, packed, where)
        there = member.file_size - stream.tell()
        if there != size:
            raise DataError(
                f"the header promises {size} bytes of data and there are {there}",
                where=where,
                fix="Write it again.",
            )

    with archive.open(member) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype]:
    """Returns (shape, dtype) of the array that begins at `stream`."""
    version = np.lib.format.read_magic(stream)
    if version not in HEADERS:
        raise DataError(f"not an array of numbers, .npy version {version}", where=where)
    shape, _, dtype = HEADERS[version](stream)
    if dtype.hasobject or dtype.fields is not None:
        raise DataError(
            f"must be an array of numbers, got dtype {dtype}",
            where=where,
            fix="Objects would be unpickled, which can run code.",
        )
    return shape, dtype
