"""Training batches on the mesh: which examples, in which order, from where."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import jax
import numpy as np

from jvae import data
from jvae.runtime import mesh
from jvae.training.components import Components
from jvae.types import Batch


def training_batches(components: Components, start_step: int) -> Iterator[Batch]:
    """Returns the training batches on the mesh, `steps_per_dispatch` stacked in one.

    The same batches whether the data lives on the host or on the device.
    """
    fed, train = components.data_options, components.splits.train
    resident = fed.placement == "device"
    source, fetch = _resident(components) if resident else (train, lambda batch: batch)
    n = components.experiment.steps_per_dispatch
    raw_batches = data.train_batches(
        source,
        seed=components.experiment.seed,
        batch_size=fed.batch_size,
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        stack=None if n == 1 else n,
        num_threads=fed.num_threads,
    )
    for batch in raw_batches:
        yield fetch(mesh.put_batch(batch, components.devices, leading=int(n > 1)))


def example_indices(
    components: Components, first_step: int, num_steps: int
) -> dict[str, list]:
    """Returns {step: the training examples of its batch}, by position in the split."""
    rows = components.data_options.batch_size
    seed, train = components.experiment.seed, components.splits.train
    return {
        str(step): data.batch_indices(train, seed, rows, step).tolist()
        for step in range(first_step, first_step + num_steps)
    }


def _resident(components: Components) -> tuple[data.Source, Callable[[Batch], Batch]]:
    """Returns (a source of indices, indices -> examples), the data on the device."""
    train = components.splits.train
    everything = train.read(np.arange(len(train)))
    resident = jax.device_put(everything, mesh.replicated(components.devices))
    n = components.experiment.steps_per_dispatch
    rows = mesh.rows(components.devices, leading=0 if n == 1 else 1)

    @functools.partial(jax.jit, out_shardings=rows)
    def gather(resident, index):
        return jax.tree.map(lambda a: a[index], resident)

    indices = data.ArraySource({"index": np.arange(len(train), dtype=np.int32)})
    return indices, lambda batch: gather(resident, batch["index"])
