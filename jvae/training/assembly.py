"""Builds an experiment: its components, its first state, its compiled step."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jvae import data, losses, models, registry
from jvae.contract import as_model
from jvae.data import datasets, transforms
from jvae.data.options import DataOptions
from jvae.flows import check_scales
from jvae.runtime import mesh
from jvae.training import compatibility, optimizers, schedules, train_step
from jvae.training.components import Components
from jvae.training.config import Experiment
from jvae.training.train_step import TrainState
from jvae.workdir.metadata import path_name


def assemble(experiment: Experiment) -> Components:
    """Returns the components of an experiment.

    Raises:
      ConfigError: a part that cannot be built, or parts that do not fit.
      DataError: the data set is missing or damaged, or lacks what the model needs.
    """
    devices = mesh.build(**experiment.mesh)
    fed = DataOptions.of(experiment.data)
    mesh.check_batch_size(fed.batch_size, devices)
    compatibility.check_accumulation(experiment, fed.batch_size, devices)
    model = as_model(models.build(**experiment.model))
    loss = losses.build(model=model, **experiment.loss)
    evaluation_loss = losses.build(model=model, train=False, **experiment.loss)
    objective = registry.resolve(losses.LOSSES, experiment.loss["name"], "loss")
    values = {
        name: float(experiment.loss.get(name, default))
        for name, default in losses.coefficients_of(objective).items()
    }
    values |= model.coefficients
    coefficients = schedules.build(experiment.schedules, values)
    num_steps = max(experiment.num_steps, 1)
    optimizer, rate = optimizers.build(num_steps=num_steps, **experiment.optimizer)
    transform = transforms.build(fed.transform, fed.num_bits, fed.padding)
    splits = datasets.load_splits(experiment.data)
    components = Components(
        experiment,
        splits,
        transform,
        model,
        loss,
        evaluation_loss,
        optimizer,
        rate,
        coefficients,
        devices,
        fed,
    )
    compatibility.check_fit(components)
    return components


def create_state(components: Components) -> TrainState:
    """Returns the state at step 0, on the mesh."""
    key = components.keys["init"]
    return train_step.create_state(components.initializer, key, components.devices)


def data_dependent_init(
    components: Components, state: TrainState, loaded: frozenset[str] = frozenset()
) -> TrainState:
    """Returns a state at step 0 whose model has seen data, if it asks for that.

    A model that sets parameters by data offers `num_init_examples`, how many it needs,
    and `data_dependent_init(batch, key)`, which sets them; examples come in the order
    of the run.

    Args:
      components: of the run.
      state: new, or with parameters of another run.
      loaded: names of these, which stay as they are.

    Raises:
      ConfigError: a flow whose scales are not finite afterwards.
    """
    num_examples = components.model.num_init_examples
    if num_examples == 0:
        check_scales(state.params, "parameters at the start of the run")
        return state
    size = len(components.splits.train)
    indices = data.order(components.experiment.seed, size, 0, min(num_examples, size))
    raw = jax.device_put(
        components.splits.train.read(indices), mesh.replicated(components.devices)
    )

    def initialized(state, raw, key):
        data_key, start_key = jax.random.split(key)
        variables = {"params": state.params, **state.state}
        arguments = (components.prepare(raw, data_key), start_key)
        # As in training, where BatchNorm uses the batch; what it remembers is dropped.
        _, new = components.model.apply(
            variables, *arguments, method="data_dependent_init", mutable=list(variables)
        )
        params = jax.tree_util.tree_map_with_path(
            lambda path, old, new: old if path_name(path) in loaded else new,
            state.params,
            new["params"],
        )
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(state, params=params, ema=ema)

    places = mesh.parameter_shardings(state, components.devices)
    state = jax.jit(initialized, out_shardings=places)(
        state, raw, components.keys["start"]
    )
    where = f"set by the first {len(indices)} training examples"
    check_scales(state.params, where, "Look for examples that are not finite.")
    return state


def abstract_state(components: Components) -> TrainState:
    """Returns the shapes and places of the state."""
    return train_step.abstract_state(components.initializer, components.devices)


def compile_step(components: Components, state: TrainState) -> Any:
    """Returns the jitted training step of an experiment: (state, batch) -> both new."""
    step = train_step.make_train_step(
        train_step.with_gathered_variables(components.loss, components.devices),
        components.optimizer,
        prepare=components.prepare_training,
        run_key=components.keys["steps"],
        coefficients=components.coefficients,
        ema_decay=components.experiment.ema_decay,
        accumulate_steps=components.experiment.accumulate_steps,
        max_skips=components.experiment.max_skips,
        spike_factor=components.experiment.spike_factor,
    )
    n = components.experiment.steps_per_dispatch
    return train_step.compile_train_step(
        step, state, components.devices, steps_per_dispatch=n
    )
