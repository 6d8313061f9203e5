"""The parts of an experiment, which `assembly` builds and `compatibility` checks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jvae import data, keys
from jvae.contract import Model
from jvae.data import transforms
from jvae.data.digest import data_digest
from jvae.data.options import DataOptions
from jvae.data.transforms import Transform
from jvae.flows import check_scales
from jvae.runtime import mesh
from jvae.training import train_step
from jvae.training.config import Experiment
from jvae.training.train_step import TrainState
from jvae.types import Batch, Key, LossFn, batch_size
from jvae.workdir.checksums import path_name


@dataclasses.dataclass(frozen=True)
class Components:
    """What an experiment is made of, before any array exists.

    `evaluation_loss` is `loss` with running statistics in place of a batch's.
    """

    experiment: Experiment
    splits: data.Splits
    transform: Transform
    model: Model
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
        root = keys.of_seed(self.experiment.seed)
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

    @functools.cached_property
    def data_digest(self) -> str:
        """What tells the data set from others, see `jvae.data.digest`."""
        return data_digest(self.splits)

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

    def create_state(self) -> TrainState:
        """Returns the state at step 0, on the mesh."""
        key = self.keys["init"]
        return train_step.create_state(self.initializer, key, self.devices)

    def abstract_state(self) -> TrainState:
        """Returns the shapes and places of the state."""
        return train_step.abstract_state(self.initializer, self.devices)

    def data_dependent_init(
        self, state: TrainState, loaded: frozenset[str] = frozenset()
    ) -> TrainState:
        """Returns a state at step 0 whose model has seen data, if it asks for that.

        A model that sets parameters by data offers `num_init_examples`, how many it
        needs, and `data_dependent_init(batch, key)`, which sets them; examples come in
        the order of the run.

        Args:
          state: new, or with parameters of another run.
          loaded: names of these, which stay as they are.

        Raises:
          ConfigError: a flow whose scales are not finite afterwards.
        """
        num_examples = self.model.num_init_examples
        if num_examples == 0:
            check_scales(state.params, "parameters at the start of the run")
            return state
        size = len(self.splits.train)
        indices = data.order(self.experiment.seed, size, 0, min(num_examples, size))
        examples = self.splits.train.read(indices)
        raw = jax.device_put(examples, mesh.replicated(self.devices))

        def initialized(state, raw, key):
            data_key, start_key = jax.random.split(key)
            variables = {"params": state.params, **state.state}
            arguments = (self.prepare(raw, data_key), start_key)
            # As in training, BatchNorm uses the batch; what it remembers is dropped.
            _, new = self.model.apply(
                variables,
                *arguments,
                method="data_dependent_init",
                mutable=list(variables),
            )
            params = jax.tree_util.tree_map_with_path(
                lambda path, old, new: old if path_name(path) in loaded else new,
                state.params,
                new["params"],
            )
            ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
            return dataclasses.replace(state, params=params, ema=ema)

        places = mesh.parameter_shardings(state, self.devices)
        compiled = jax.jit(initialized, out_shardings=places)
        state = compiled(state, raw, self.keys["start"])
        where = f"set by the first {len(indices)} training examples"
        check_scales(state.params, where, "Look for examples that are not finite.")
        return state

    def compile_step(self, state: TrainState) -> Any:
        """Returns the jitted training step: (state, batch) -> (state, metrics)."""
        step = train_step.make_train_step(
            train_step.with_gathered_variables(self.loss, self.devices),
            self.optimizer,
            prepare=self.prepare_training,
            run_key=self.keys["steps"],
            coefficients=self.coefficients,
            ema_decay=self.experiment.ema_decay,
            accumulate_steps=self.experiment.accumulate_steps,
            max_skips=self.experiment.max_skips,
            spike_factor=self.experiment.spike_factor,
            devices=self.devices,
        )
        n = self.experiment.steps_per_dispatch
        return train_step.compile_train_step(
            step, state, self.devices, steps_per_dispatch=n
        )
