"""Batches are a pure function of (seed, step), whoever reads them."""

import itertools

import numpy as np
import pytest

from jvae.data import ArraySource, eval_batches, train_batches
from jvae.data.pipeline import order
from jvae.errors import ConfigError, DataError


def numbered(size):
    """A source whose 1x1 images hold their own position."""
    position = np.arange(size)
    return ArraySource(
        {
            "image": (position % 256).astype(np.uint8).reshape(-1, 1, 1, 1),
            "label": position.astype(np.int32),
        }
    )


def labels(batches, count):
    return np.concatenate([b["label"] for b in itertools.islice(batches, count)])


def test_every_epoch_visits_every_example_once_in_a_new_order():
    epochs = order(3, 100, 0, 1000).reshape(10, 100)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(100), (10, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 10


@pytest.mark.parametrize("start, stop", [(0, 1), (95, 105), (99, 100), (250, 712)])
def test_any_stretch_of_the_order_is_a_slice_of_the_whole(start, stop):
    whole = order(0, 100, 0, 1000)
    np.testing.assert_array_equal(order(0, 100, start, stop), whole[start:stop])


def test_epochs_of_neighboring_seeds_share_nothing():
    seen = {
        tuple(order(s, 20, e * 20, e * 20 + 20)) for s in range(5) for e in range(5)
    }
    assert len(seen) == 25


def test_orders_are_uniform():
    firsts = [order(seed, 4, 0, 4)[0] for seed in range(2000)]
    counts = np.bincount(firsts, minlength=4)
    assert np.all(np.abs(counts - 500) < 5 * np.sqrt(2000 * 3 / 16))


@pytest.mark.parametrize("num_threads", [0, 1, 3])
def test_batches_follow_the_order_and_straddle_epochs(num_threads):
    batches = train_batches(
        numbered(10), seed=7, batch_size=4, num_threads=num_threads, prefetch=3
    )
    np.testing.assert_array_equal(labels(batches, 25), order(7, 10, 0, 100))


@pytest.mark.parametrize("step", [1, 7, 10**9])
def test_a_run_that_starts_later_gets_the_same_batches(step):
    batches = train_batches(numbered(10), seed=0, batch_size=4, start_step=step)
    expected = order(0, 10, step * 4, step * 4 + 12)
    np.testing.assert_array_equal(labels(batches, 3), expected)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_one_global_batch(count):
    readers = [
        train_batches(
            numbered(30), seed=1, batch_size=8, process_index=i, process_count=count
        )
        for i in range(count)
    ]
    for step in range(6):
        rows = np.concatenate([next(reader)["label"] for reader in readers])
        np.testing.assert_array_equal(rows, order(1, 30, step * 8, step * 8 + 8))


def test_images_and_labels_stay_together():
    batch = next(train_batches(numbered(200), seed=0, batch_size=64))
    np.testing.assert_array_equal(batch["image"].ravel(), batch["label"])


@pytest.mark.parametrize(
    "fields, error, words",
    [
        ({"batch_size": 11}, DataError, "larger than the 10 training examples"),
        ({"batch_size": 4, "process_count": 3}, DataError, "divisible by the 3"),
        ({"batch_size": 0}, ConfigError, "at least 1, got 0"),
        ({"batch_size": 4, "process_index": 1}, ConfigError, "process_index"),
        ({"batch_size": 4, "seed": -1}, ConfigError, "seed must be at least 0"),
        ({"batch_size": 4, "start_step": -1}, ConfigError, "start_step"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_the_first_batch(
    fields, error, words
):
    with pytest.raises(error, match=words):
        train_batches(numbered(10), **{"seed": 0, **fields})


def test_an_error_while_reading_keeps_its_kind():
    class Broken(ArraySource):
        def read(self, indices):
            raise DataError("record 3 cannot be read")

    batches = train_batches(Broken(numbered(10).arrays), seed=0, batch_size=2)
    with pytest.raises(DataError, match="record 3"):
        next(batches)


@pytest.mark.parametrize("batch_size, processes", [(64, 1), (64, 8), (1, 1), (200, 2)])
@pytest.mark.parametrize(
    "size, wanted", [(103, None), (64, None), (103, 70), (1, None)]
)
def test_evaluation_counts_each_example_once(batch_size, processes, size, wanted):
    readers = [
        list(
            eval_batches(
                numbered(size),
                batch_size=batch_size,
                num_examples=wanted,
                process_index=i,
                process_count=processes,
            )
        )
        for i in range(processes)
    ]
    total = wanted or size
    assert {len(reader) for reader in readers} == {-(-total // batch_size)}
    seen = []
    for batches in zip(*readers, strict=True):
        for batch in batches:
            rows = batch_size // processes
            assert {key: value.shape for key, value in batch.items()} == {
                "image": (rows, 1, 1, 1),
                "label": (rows,),
                "mask": (rows,),
                "index": (rows,),
            }
            assert batch["mask"].dtype == bool and batch["index"].dtype == np.int32
            np.testing.assert_array_equal(batch["index"], batch["label"])
            assert not batch["index"][~batch["mask"]].any()
            seen += batch["index"][batch["mask"]].tolist()
    assert seen == list(range(total))


def test_a_masked_mean_over_ragged_batches_is_the_mean():
    values = np.random.default_rng(0).integers(0, 256, 10_003).astype(np.uint8)
    source = ArraySource({"image": values.reshape(-1, 1, 1, 1)})
    total = count = 0
    for batch in eval_batches(source, batch_size=64):
        total += batch["image"].ravel()[batch["mask"]].sum(dtype=np.int64)
        count += batch["mask"].sum()
    assert count == 10_003
    assert total / count == values.mean()


@pytest.mark.parametrize("wanted, error", [(11, DataError), (0, ConfigError)])
def test_evaluation_refuses_numbers_of_examples_that_are_not_there(wanted, error):
    with pytest.raises(error, match="num_examples"):
        eval_batches(numbered(10), batch_size=2, num_examples=wanted)
