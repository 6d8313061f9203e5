"""Which examples are in which batch: a pure function of (seed, step)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jvae.data.libraries import library
from jvae.data.sources import Examples, Source, buckets_of, lengths_of
from jvae.errors import DataError, require, require_data

ENDLESS = 2**60
"""Steps that no run reaches."""


@functools.lru_cache(maxsize=8)
def permutation(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """Returns the order of one epoch, [num_examples], read-only.

    A counter-based generator keyed by both numbers, so that epoch e of seed s has
    nothing to do with epoch e - 1 of seed s + 1.

    Salmon et al., 2011, https://doi.org/10.1145/2063384.2063405.

    Args:
      seed: 0 or more.
      epoch: 0 or more.
      num_examples: the length.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    indices = generator.permutation(num_examples)
    indices.setflags(write=False)
    return indices


def order(seed: int, num_examples: int, start: int, stop: int) -> np.ndarray:
    """Returns the indices at positions start..stop-1 of the endless training order.

    Position p belongs to epoch p // num_examples; every epoch is a permutation of its
    own, so each example occurs once in it.

    One permutation for each epoch, because Grain's shuffle by index orders 39,000
    examples a second, which a small model uses up.

    Args:
      seed: 0 or more.
      num_examples: the size of the data set, at least 1.
      start: the first position, 0 or more.
      stop: one past the last position.

    Returns:
      [stop - start] int64.
    """
    first, last = start // num_examples, (stop - 1) // num_examples
    epochs = [permutation(seed, e, num_examples) for e in range(first, last + 1)]
    offset = first * num_examples
    joined = epochs[0] if len(epochs) == 1 else np.concatenate(epochs)
    return joined[start - offset : stop - offset]


POOL = 50
"""Batches of sentences that are made of one sorted pool, and then shuffled."""
_POOLS = 2**40
"""Where the turns of pools are among the permutations; no run has so many epochs."""


def batch_indices(source: Source, seed: int, batch_size: int, step: int) -> np.ndarray:
    """Returns the examples of the global batch at a step, [batch_size].

    Those at positions step * batch_size ... of `order`. Of a source with several
    `buckets`, the examples of `POOL` batches, at most an epoch, are sorted by length
    first and the batches shuffled: so a batch holds sentences of like length. Each
    occurs once in an epoch of `order`; where two epochs meet in a pool, their sentences
    mix.

    Args:
      source: the training split.
      seed: of the order, 0 or more.
      batch_size: of all processes together.
      step: 0 or more.
    """
    size = len(source)
    lengths = lengths_of(source)
    if lengths is None or len(buckets_of(source)) < 2:
        return order(seed, size, step * batch_size, (step + 1) * batch_size)
    # Not more than an epoch, or sentences would meet themselves, sorted by length.
    batches = max(min(POOL, size // batch_size), 1)
    pool, turn = divmod(step, batches)
    first = pool * batches * batch_size
    examples = order(seed, size, first, first + batches * batch_size)
    by_length = np.argsort(lengths[examples], kind="stable")
    turns = permutation(seed, _POOLS + pool, batches)
    return examples[by_length].reshape(batches, batch_size)[turns[turn]]


def _cut(examples: Examples, source: Source, indices: np.ndarray) -> Examples:
    """Returns sentences as wide as a batch of those at `indices` is; others whole."""
    lengths, buckets = lengths_of(source), buckets_of(source)
    if lengths is None:
        return examples
    longest = lengths[indices].max()
    width = min(bucket for bucket in buckets if bucket >= longest)
    return {**examples, "tokens": examples["tokens"][:, :width]}


def train_batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    stack: int | None = None,
    num_threads: int = 2,
    prefetch: int = 8,
) -> Iterator[Examples]:
    """Returns the endless batches of training, from `start_step` on.

    Element n is this process's rows of the global batch at step start_step + n, the
    examples at positions step * batch_size ... of `order`. The global batch is the
    same for any number of processes, and a batch may straddle two epochs.

    Args:
      source: the training split.
      seed: of the order, 0 or more.
      batch_size: of all processes together.
      start_step: the first step; any step is reached at once.
      process_index: this process, below process_count.
      process_count: how many processes read.
      stack: None for one batch [B, ...] an element, else so many steps [stack, B, ...].
      num_threads: threads that read ahead; 0 reads when asked.
      prefetch: how many batches they may be ahead.

    Raises:
      ConfigError: a number is out of range.
      DataError: the split has fewer than batch_size examples, or batch_size is not
        divisible by process_count.
    """
    require(seed >= 0, "seed", "be at least 0", seed)
    require(start_step >= 0, "start_step", "be at least 0", start_step)
    rows = _process_rows(batch_size, process_index, process_count)
    size, steps = len(source), stack or 1
    require_a_batch(size, batch_size)

    def read(number: int) -> Examples:
        first = start_step + number * steps
        turns = range(first, first + steps)
        batches = [batch_indices(source, seed, batch_size, step) for step in turns]
        indices = np.stack(batches)
        mine = indices[:, rows]
        examples = _cut(source.read(mine.reshape(-1)), source, indices)
        if stack is None:
            return examples
        return {k: v.reshape(*mine.shape, *v.shape[1:]) for k, v in examples.items()}

    return _batches(read, ENDLESS, num_threads, prefetch)


def require_a_batch(num_examples: int, batch_size: int) -> None:
    """Raises DataError if a training split has not as many examples as a batch."""
    if batch_size > num_examples:
        raise DataError(
            f"batch_size {batch_size} is larger than the {num_examples} training "
            "examples",
            fix="Lower batch_size.",
        )


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_examples: int | None = None,
) -> Iterator[Examples]:
    """Returns batches that hold each of the first `num_examples` once, in order.

    The last one is filled up with copies of example 0 whose 'mask' is False. Every
    batch has the same shape, but for sentences: they come in the order of their length,
    and a batch is as wide as it must be.

    Args:
      source: any split.
      batch_size: of all processes together.
      process_index: this process, below process_count.
      process_count: how many processes read; all get the same number of batches.
      num_examples: how many examples; None takes all.

    Returns:
      An iterator of what the source has, with 'mask' bool [b] and 'index' int32 [b],
      the position in the split.

    Raises:
      ConfigError: a number is out of range.
      DataError: num_examples is more than there are, or batch_size is not divisible by
        process_count.
    """
    rows = _process_rows(batch_size, process_index, process_count)
    total = len(source) if num_examples is None else num_examples
    require(total >= 1, "num_examples", "be at least 1", total)
    rule = f"be at most the {len(source)} examples of the split"
    require_data(total <= len(source), "num_examples", rule, total)

    lengths = lengths_of(source)
    keep = np.zeros(total) if lengths is None else lengths[:total]
    by_length = np.argsort(keep, kind="stable").astype(np.int32)

    def read(batch: int) -> Examples:
        positions = batch * batch_size + np.arange(batch_size)
        everyone = np.where(positions < total, by_length[positions % total], 0)
        mask, index = positions[rows] < total, everyone[rows]
        examples = _cut(source.read(index), source, everyone)
        return {**examples, "mask": mask, "index": index}

    return _batches(read, -(-total // batch_size), num_threads=2, prefetch=8)


def _process_rows(batch_size: int, process_index: int, process_count: int) -> slice:
    """Returns the rows of a global batch that belong to one process."""
    require(batch_size >= 1, "batch_size", "be at least 1", batch_size)
    rule = f"be divisible by the {process_count} processes"
    require_data(batch_size % process_count == 0, "batch_size", rule, batch_size)
    rule = f"be in 0..{process_count - 1}"
    require(0 <= process_index < process_count, "process_index", rule, process_index)
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)


def _batches(
    read: Callable[[int], Examples], stop: int, num_threads: int, prefetch: int
) -> Iterator[Examples]:
    """Returns read(0), ... read(stop - 1), read ahead by threads."""
    grain: Any = library("grain", "grain")
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch)
    return iter(grain.MapDataset.range(stop).map(read).to_iter_dataset(options))
