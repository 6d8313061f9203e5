"""The parts of an experiment, which `assembly` builds and `compatibility` checks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jvae import data, keys
from jvae.data import transforms
from jvae.data.options import DataOptions
from jvae.data.transforms import Transform
from jvae.training import train_step
from jvae.training.config import Experiment
from jvae.training.train_step import TrainState
from jvae.types import Batch, Key, LossFn, batch_size


@dataclasses.dataclass(frozen=True)
class Components:
    """What an experiment is made of, before any array exists.

    `evaluation_loss` is `loss` with running statistics in place of a batch's.
    """

    experiment: Experiment
    splits: data.Splits
    transform: Transform
    model: nn.Module
    loss: LossFn
    evaluation_loss: LossFn
    optimizer: optax.GradientTransformation
    learning_rate: Callable[[Any], Any]
    coefficients: Callable[[Any], dict[str, Any]]
    devices: Mesh
    data_options: DataOptions

    @property
    def keys(self) -> dict[str, Key]:
        """The run's keys by purpose, all from the seed."""
        root = jax.random.key(self.experiment.seed)
        names = ("init", "steps", "evaluation", "start")
        return {name: jax.random.fold_in(root, i) for i, name in enumerate(names)}

    @functools.cached_property
    def initializer(self) -> Callable[[Key], TrainState]:
        """Key -> the state at step 0; one function, as JAX traces each only once."""
        return train_step.initializer(
            self.model,
            self.optimizer,
            self.example_batch,
            self.experiment.ema_decay,
            self.experiment.spike_factor,
        )

    @functools.cached_property
    def example_batch(self) -> Batch:
        """A prepared batch of one row, shapes and dtypes only."""
        raw = self.splits.train.read(np.zeros(1, np.int64))
        return jax.eval_shape(self.prepare, raw, jax.random.key(0))

    def prepare(self, batch: Batch, key: Key) -> dict[str, Any]:
        """Returns a raw batch in the support of the likelihood."""
        return transforms.prepare(batch, key, self.transform)

    def prepare_training(self, batch: Batch, key: Key) -> dict[str, Any]:
        """Returns a raw batch as training sees it: perhaps mirrored."""
        if not self.data_options.mirror:
            return self.prepare(batch, key)
        each = keys.per_example(key, batch_size(batch))
        prepare_key, mirror_key = keys.split_each(each, 2)
        return transforms.mirrored(self.prepare(batch, prepare_key), mirror_key)
