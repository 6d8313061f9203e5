"""A digest of a data set, by which a resumed run detects that its data changed."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator

import numpy as np

from jvae.data.sources import Cached, Source, Splits, Subset

NUM_SAMPLED = 64
"""Examples of a split whose contents count, evenly spaced."""


def data_digest(splits: Splits) -> str:
    """Returns 16 hex digits that identify the training and validation data.

    Hashes sizes, shapes and 64 examples of each split as stored, before any decoding,
    which may differ between library versions; for folders of files also all names. It
    is cheap, and does not detect a change in other examples.

    Args:
      splits: the data set.
    """
    total = hashlib.sha256()
    for name, source in splits.present().items():
        if name != "test":
            total.update(
                f"{name} {len(source)} {sorted(source.shapes.items())}".encode()
            )
            num_sampled = min(NUM_SAMPLED, len(source))
            indices = np.linspace(0, len(source) - 1, num_sampled).astype(np.int64)
            for part in stored(source, indices):
                total.update(part)
    return total.hexdigest()[:16]


@functools.singledispatch
def stored(source: Source, indices: np.ndarray) -> Iterator[bytes]:
    """Yields the contents of examples as they are stored, for a digest.

    A class of sources that decodes files registers a function of its own. Of a source
    that reads the same indices differently each time there is nothing to compare.

    Args:
      source: a split.
      indices: [n], which examples.
    """
    again = source.read(indices)
    for name, array in sorted(source.read(indices).items()):
        if not np.array_equal(array, again[name], equal_nan=array.dtype.kind == "f"):
            continue
        yield f"{name} {array.dtype} {array.shape}".encode()
        yield np.ascontiguousarray(array).tobytes()


@stored.register
def _(source: Cached, indices: np.ndarray) -> Iterator[bytes]:
    yield from stored(source.source, indices)


@stored.register
def _(source: Subset, indices: np.ndarray) -> Iterator[bytes]:
    yield np.asarray(source.indices, np.int64).tobytes()
    yield from stored(source.source, source.indices[indices])
