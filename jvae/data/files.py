"""Folders and sizes: what the readers of files check before they read."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

from jvae.data.sources import ArraySource
from jvae.errors import DataError

logger = logging.getLogger("jvae")

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".rar")
NUM_NAMED = 5
"""Of what is left out, so many are named."""
DEFLATE_RATIO = 1032
"""The most that deflate (gzip, zip) can expand; https://zlib.net/zlib_tech.html."""


def existing_folder(path: str, expected: str) -> Path:
    """Returns `path` with ~ expanded.

    Args:
      path: of a folder.
      expected: what should be in it, a sentence for the message.

    Raises:
      DataError: there is no such folder, or it cannot be read.
    """
    try:
        root = Path(path).expanduser()
        is_folder, exists = root.is_dir(), root.exists()
        if is_folder:
            os.listdir(root)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError of ~nobody
        raise DataError(
            f"the data folder cannot be read: {error}", fix=expected
        ) from error
    if not is_folder:
        problem = "is not a folder" if exists else "does not exist"
        if root.suffix.lower() in ARCHIVES:
            expected = f"Unpack it. {expected}"
        raise DataError(f"the data folder {problem}", where=str(root), fix=expected)
    return root


def listed(names: Sequence[str]) -> str:
    """Returns "'a.csv', 'b/' (2 in all)", of many the first in their order."""
    first = ", ".join(map(ascii, sorted(names)[:NUM_NAMED]))
    more = ", ..." if len(names) > NUM_NAMED else ""
    return f"{first}{more} ({len(names)} in all)"


def warn_left_out(root: Path, names: Sequence[str]) -> None:
    """Says what of a folder is left out, if anything is."""
    if names:
        logger.warning("jvae: left out of %s: %s", root, listed(names))


def read_utf8(file: Path) -> str:
    """Returns the text of a file in UTF-8.

    Raises:
      DataError: it cannot be read, is not UTF-8, or is empty.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start} is not UTF-8", where=str(file), fix="Convert the file."
        ) from None
    except OSError as error:
        raise DataError(f"{error.strerror}", where=str(file)) from None
    if not text.strip():
        raise DataError(
            "the file is empty", where=str(file), fix="Give it text, or remove it."
        )
    return text


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
    size, memory = math.prod(shape) * item_bytes, memory_bytes()
    if size > stored * (DEFLATE_RATIO if packed else 1):
        raise DataError(
            f"the header promises an array {shape} of {size} bytes, more than "
            f"{stored} bytes can hold",
            where=where,
            fix="Fetch it again.",
        )
    if size > memory:
        raise DataError(
            f"an array {shape} of {size / 2**30:.1f} GiB does not fit in memory, "
            f"{memory / 2**30:.1f} GiB",
            where=where,
        )
    return size


def count_classes(*splits: ArraySource | None) -> int | None:
    """Returns one more than the largest label, None without labels."""
    tops = [int(s.arrays["label"].max()) for s in splits if s and "label" in s.arrays]
    return max(tops) + 1 if tops else None
