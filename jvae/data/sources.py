"""One split of a data set, read by index; the splits of a data set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from jvae.errors import DataError

Examples = dict[str, np.ndarray]
"""'image' (uint8, or float32 in [0, 1]) [n, H, W, C]; if any 'label' int32 [n], and
'factors' int32 [n, K], what an image was made of."""
Shapes = dict[str, tuple[int, ...]]


class Source(Protocol):
    """One split with random access; several threads may read at once."""

    @property
    def shapes(self) -> Shapes:
        """The shape of one example by name: {'image': (28, 28, 1), 'label': ()}."""

    def __len__(self) -> int:
        """The number of examples."""

    def read(self, indices: np.ndarray) -> Examples:
        """Returns the examples at `indices` [n], in that order, [n, ...] each."""


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """A split in memory.

    Attributes:
      arrays: [N, ...] by name; 'image' is uint8 or float32 [N, H, W, C].

    Raises:
      DataError: the arrays differ in N.
    """

    arrays: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        """Checks the lengths."""
        lengths = {name: len(array) for name, array in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"arrays must have one length, got {lengths}")

    @property
    def shapes(self) -> Shapes:
        """The shape of one example by name."""
        return {name: array.shape[1:] for name, array in self.arrays.items()}

    def __len__(self) -> int:
        """The number of examples."""
        return len(next(iter(self.arrays.values())))

    def read(self, indices: np.ndarray) -> Examples:
        """Returns the examples at `indices`, one gather for each name."""
        # take is twice as fast as array[indices] on rows of a kilobyte.
        return {
            name: np.take(array, indices, axis=0) for name, array in self.arrays.items()
        }


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some examples of another source.

    Attributes:
      source: where they are.
      indices: [n], their positions there.
    """

    source: Source
    indices: np.ndarray

    @property
    def shapes(self) -> Shapes:
        """The shape of one example by name."""
        return self.source.shapes

    @functools.cached_property
    def lengths(self) -> np.ndarray | None:
        """[n], those of sentences; None of other examples."""
        lengths = lengths_of(self.source)
        return None if lengths is None else lengths[self.indices]

    @property
    def buckets(self) -> tuple[int, ...]:
        """The widths that batches of sentences are cut to; () of other examples."""
        return buckets_of(self.source)

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.indices)

    def read(self, indices: np.ndarray) -> Examples:
        """Returns the examples at `indices` of this subset."""
        return self.source.read(self.indices[indices])


def lengths_of(source: Source) -> np.ndarray | None:
    """Returns [N], the lengths of a source of sentences; None of other examples."""
    return getattr(source, "lengths", None)


def buckets_of(source: Source) -> tuple[int, ...]:
    """Returns the widths that batches of a source of sentences are cut to, or ()."""
    return getattr(source, "buckets", ())


class Cached:
    """Keeps in memory what `source` has read, so that each image is decoded once.

    Args:
      source: any source; its example 0 is read at once.
    """

    def __init__(self, source: Source):
        """Reads example 0, for the types."""
        self.source = source
        first = source.read(np.zeros(1, np.int64))
        # Pages of np.empty cost memory only once they are written.
        self.arrays = {
            name: np.empty((len(source), *rows.shape[1:]), rows.dtype)
            for name, rows in first.items()
        }
        self.known = np.zeros(len(source), bool)

    @property
    def shapes(self) -> Shapes:
        """The shape of one example by name."""
        return self.source.shapes

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.source)

    def read(self, indices: np.ndarray) -> Examples:
        """Returns the examples at `indices`, reading those that are new."""
        new = np.unique(indices[~self.known[indices]])
        if new.size:
            for name, rows in self.source.read(new).items():
                self.arrays[name][new] = rows
            # Last, since other threads may be reading: what is known is there.
            self.known[new] = True
        return ArraySource(self.arrays).read(indices)


CACHE_BYTES = 2**30
"""Images that are decoded one by one are kept in memory up to this size, a split."""


def cached_if_small(source: Source) -> Source:
    """Returns `source`, `Cached` if its images fit in `CACHE_BYTES`.

    Args:
      source: uint8 images that are decoded when they are read.
    """
    size = len(source) * int(np.prod(source.shapes["image"]))
    return Cached(source) if 0 < size <= CACHE_BYTES else source


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set.

    Attributes:
      train: what parameters are fitted to.
      test: what final numbers are reported on.
      validation: what checkpoints and hyperparameters are chosen by.
      num_classes: labels are 0..num_classes-1; None without labels.
      vocabulary: of sentences, a `jvae.data.vocabulary.Vocabulary`; None of others.
    """

    train: Source
    test: Source
    validation: Source | None = None
    num_classes: int | None = None
    vocabulary: Any = None

    def present(self) -> dict[str, Source]:
        """Returns the splits that there are, by name."""
        named = {"train": self.train, "test": self.test, "validation": self.validation}
        return {name: source for name, source in named.items() if source is not None}
