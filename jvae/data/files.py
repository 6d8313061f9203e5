"""Folders and sizes: what the readers of files check before they read."""

from __future__ import annotations

import math
import os
from pathlib import Path

from jvae.data.sources import ArraySource
from jvae.errors import DataError

DEFLATE_RATIO = 1032
"""The most that deflate (gzip, zip) can expand; https://zlib.net/zlib_tech.html."""


def existing_folder(path: str, expected: str) -> Path:
    """Returns `path` with ~ expanded.

    Args:
      path: of a folder.
      expected: what should be in it, a sentence for the message.

    Raises:
      DataError: there is no such folder.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"the data folder {problem}", where=str(root), fix=expected)
    return root


def memory_bytes() -> int:
    """Returns the size of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_size(
    shape: tuple[int, ...], item_bytes: int, stored: int, packed: bool, where: str
) -> int:
    """Returns the bytes of an array, if it can be what the file holds.

    Args:
      shape: what the header says.
      item_bytes: the size of one element.
      stored: bytes in the file.
      packed: whether they are compressed.
      where: the file, for the message.

    Raises:
      DataError: the array is larger than the file can hold, or than memory.
    """
    size = math.prod(shape) * item_bytes
    if size > stored * (DEFLATE_RATIO if packed else 1):
        raise DataError(
            f"the header promises an array {shape} of {size} bytes, more than "
            f"{stored} bytes can hold",
            where=where,
            fix="Fetch it again.",
        )
    if size > memory_bytes():
        raise DataError(
            f"an array {shape} of {size / 2**30:.1f} GiB does not fit in memory, "
            f"{memory_bytes() / 2**30:.1f} GiB",
            where=where,
        )
    return size


def count_classes(*splits: ArraySource | None) -> int | None:
    """Returns one more than the largest label, None without labels."""
    labels = [
        s.arrays["label"] for s in splits if s is not None and "label" in s.arrays
    ]
    tops = [int(label.max()) for label in labels if label.size]
    return max(tops) + 1 if tops else None
