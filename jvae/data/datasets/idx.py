"""MNIST and its relatives, in the idx files that they are distributed as."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jvae.data.files import check_size, count_classes, existing_folder
from jvae.data.sources import ArraySource, Splits
from jvae.errors import DataError

EXPECTED = (
    "Expected train-images-idx3-ubyte, t10k-images-idx3-ubyte and the labels "
    "train-labels-idx1-ubyte, t10k-labels-idx1-ubyte, plain or .gz."
)
UBYTE = 0x08


def idx(path: str, prefix: str = "", transpose: bool = False) -> Splits:
    """Returns MNIST, Fashion-MNIST, KMNIST or EMNIST from a folder of idx files.

    The files are [prefix](train|t10k|test)-(images-idx3|labels-idx1)-ubyte[.gz], also
    with a dot before 'idx'. Labels may be missing.

    LeCun, Cortes & Burges, http://yann.lecun.com/exdb/mnist/, for the format.

    Args:
      path: The folder; ~ is the home directory.
      prefix: What the file names begin with, such as 'emnist-letters-'.
      transpose: Whether to swap height and width, which EMNIST stores the other way.

    Raises:
      DataError: a file is missing, cut short, damaged or of another kind.
    """
    root = existing_folder(path, EXPECTED)
    train = _split(root, (f"{prefix}train",), transpose)
    test = _split(root, (f"{prefix}t10k", f"{prefix}test"), transpose)
    if ("label" in train.arrays) != ("label" in test.arrays):
        raise DataError(
            "labels are there for one split only", where=str(root), fix=EXPECTED
        )
    return Splits(train, test, num_classes=count_classes(train, test))


def _split(root: Path, stems: tuple[str, ...], transpose: bool) -> ArraySource:
    """Returns the split whose file names begin with one of `stems`."""
    image_file = _find(root, stems, "images", "idx3")
    if image_file is None:
        raise DataError(f"no {stems[0]}-images file", where=str(root), fix=EXPECTED)
    image = read_idx(image_file, 3)
    if transpose:
        image = image.transpose(0, 2, 1)
    arrays = {"image": np.ascontiguousarray(image[..., None])}
    label_file = _find(root, stems, "labels", "idx1")
    if label_file is not None:
        arrays["label"] = read_idx(label_file, 1).astype(np.int32)
        if len(image) != len(arrays["label"]):
            raise DataError(
                f"{len(arrays['label'])} labels for {len(image)} images",
                where=str(label_file),
                fix="Take both files from the same place.",
            )
    return ArraySource(arrays)


def _find(root: Path, stems: tuple[str, ...], what: str, kind: str) -> Path | None:
    """Returns the file of `what` under one of its usual names, None without one."""
    names = [
        f"{stem}-{what}{separator}{kind}-ubyte{suffix}"
        for stem in stems
        for separator in "-."
        for suffix in ("", ".gz")
    ]
    return next((root / name for name in names if (root / name).is_file()), None)


def read_idx(file: Path, ndim: int) -> np.ndarray:
    """Returns the uint8 array in an idx file, read-only.

    Args:
      file: plain, or gzip if it ends in .gz.
      ndim: how many dimensions it must have.

    Raises:
      DataError: the header is not that of such an array, or promises more or less
        than the file holds.
    """
    packed = file.suffix == ".gz"
    try:
        with gzip.open(file) if packed else open(file, "rb") as stream:
            return _read_stream(stream, file, ndim, packed)  # type: ignore[arg-type]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"cannot be read: {error}", where=str(file), fix="Fetch it again."
        ) from error


def _read_stream(stream: BinaryIO, file: Path, ndim: int, packed: bool) -> np.ndarray:
    """Returns the array in an open idx file; checks the header before it allocates."""
    header = stream.read(4 * (ndim + 1))
    magic = bytes([0, 0, UBYTE, ndim])
    if len(header) < 4 * (ndim + 1) or header[:4] != magic:
        raise DataError(
            f"not an idx file of bytes in {ndim} dimensions: it begins with "
            f"{header[:4].hex() or 'nothing'} instead of {magic.hex()}",
            where=str(file),
        )
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
    size = check_size(shape, 1, file.stat().st_size, packed, str(file))
    data = stream.read(size + 1)
    if len(data) != size:
        size_found = f"{len(data)} bytes" if len(data) < size else "more"
        raise DataError(
            f"the header promises {size} bytes of data and there are {size_found}",
            where=str(file),
            fix="Fetch it again.",
        )
    return np.frombuffer(data, np.uint8).reshape(shape)
