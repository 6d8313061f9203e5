"""Sources return the examples that were asked for."""

import threading

import numpy as np
import pytest

from jvae.data import sources
from jvae.data.sources import ArraySource, Cached, Splits, Subset
from jvae.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 2), np.uint8)
LABELS = np.arange(20, dtype=np.int32)


class Counting(ArraySource):
    """Remembers which examples were read."""

    def read(self, indices):
        self.seen.extend(indices.tolist())
        return super().read(indices)


def counting():
    source = Counting({"image": IMAGES, "label": LABELS})
    object.__setattr__(source, "seen", [])
    return source


@pytest.mark.parametrize("indices", [[0], [3, 3, 1], list(range(20)), []])
def test_reading_is_indexing(indices):
    indices = np.array(indices, int)
    rest = np.arange(20)[::-1]
    for source in (counting(), Cached(counting()), Subset(counting(), rest)):
        examples = source.read(indices)
        where = rest[indices] if isinstance(source, Subset) else indices
        np.testing.assert_array_equal(examples["image"], IMAGES[where])
        np.testing.assert_array_equal(examples["label"], LABELS[where])
        assert len(source) == 20
        assert source.shapes == {"image": (3, 4, 2), "label": ()}


def test_a_subset_has_its_own_length():
    assert len(Subset(counting(), np.array([4, 2]))) == 2


def test_arrays_of_different_length_are_refused():
    with pytest.raises(DataError, match="one length"):
        ArraySource({"image": IMAGES, "label": LABELS[1:]})


def test_a_cache_reads_every_example_once():
    source = counting()
    cache = Cached(source)
    source.seen.clear()
    for indices in ([1, 2, 2], [2, 3], [1, 2, 3]):
        cache.read(np.array(indices))
    assert sorted(source.seen) == [1, 2, 3]


def test_a_cache_serves_threads():
    cache = Cached(counting())
    wrong = []

    def read(seed):
        for indices in np.random.default_rng(seed).integers(0, 20, (200, 5)):
            if not np.array_equal(cache.read(indices)["image"], IMAGES[indices]):
                wrong.append(indices)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_only_what_fits_is_cached(monkeypatch):
    source = counting()
    assert isinstance(sources.cached_if_small(source), Cached)
    monkeypatch.setattr(sources, "CACHE_BYTES", IMAGES.nbytes - 1)
    assert sources.cached_if_small(source) is source


def test_splits_name_those_that_are_there():
    source = counting()
    assert list(Splits(source, source).present()) == ["train", "test"]
    assert "validation" in Splits(source, source, source).present()
