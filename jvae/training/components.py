"""The parts of an experiment: built, checked against each other, and wired up."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from jvae import data, keys, losses, models, registry
from jvae.data import datasets, options, transforms
from jvae.data.checks import require_labels
from jvae.data.sources import lengths_of
from jvae.data.transforms import Transform
from jvae.errors import ConfigError, DataError
from jvae.flows import check_scales
from jvae.runtime import mesh
from jvae.training import optimizers, schedules, train_step
from jvae.training.config import Experiment
from jvae.training.train_step import TrainState
from jvae.types import Batch, Key, LossFn, batch_size
from jvae.workdir.metadata import path_name


@dataclasses.dataclass(frozen=True)
class Parts:
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

    @property
    def keys(self) -> dict[str, Key]:
        """The run's keys by purpose, all from the seed."""
        root = jax.random.key(self.experiment.seed)
        names = ("init", "steps", "evaluation", "start")
        return {name: jax.random.fold_in(root, i) for i, name in enumerate(names)}

    @functools.cached_property
    def initialiser(self) -> Callable[[Key], TrainState]:
        """Key -> the state at step 0; one function, as JAX traces each only once."""
        return train_step.initialiser(
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
        if not options.read(self.experiment.data)["mirror"]:
            return self.prepare(batch, key)
        each = keys.per_example(key, batch_size(batch))
        prepare_key, mirror_key = keys.split_each(each, 2)
        return transforms.mirrored(self.prepare(batch, prepare_key), mirror_key)


def assemble(experiment: Experiment) -> Parts:
    """Returns the parts of an experiment.

    Raises:
      ConfigError: a part that cannot be built, or parts that do not fit.
      DataError: the data set is missing or damaged, or lacks what the model needs.
    """
    devices = mesh.build(**experiment.mesh)
    feed = options.read(experiment.data)
    mesh.check_batch_size(feed["batch_size"], devices)
    _check_accumulation(experiment, feed["batch_size"], devices)
    model = models.build(**experiment.model)
    loss = losses.build(model=model, **experiment.loss)
    evaluation_loss = losses.build(model=model, train=False, **experiment.loss)
    objective = registry.resolve(losses.LOSSES, experiment.loss["name"], "loss")
    values = {
        name: float(experiment.loss.get(name, default))
        for name, default in losses.coefficients_of(objective).items()
    }
    values |= losses.coefficients_of(model)
    coefficients = schedules.build(experiment.schedules, values)
    num_steps = max(experiment.num_steps, 1)
    optimizer, rate = optimizers.build(num_steps=num_steps, **experiment.optimizer)
    stored = ("num_bits", "padding")
    of_pixels = {name: feed[name] for name in stored}
    transform = transforms.build(feed["transform"], **of_pixels)
    splits = datasets.load_splits(experiment.data)
    parts = Parts(
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
    )
    _check_fit(parts)
    return parts


def _check_accumulation(experiment: Experiment, batch_size: int, devices: Mesh) -> None:
    micro = experiment.accumulate_steps
    if batch_size % (micro * devices.size):
        raise ConfigError(
            f"data.batch_size must be a multiple of accumulate_steps x devices, "
            f"{micro} x {devices.size}, got {batch_size}"
        )


def _check_fit(parts: Parts) -> None:
    """Checks that data, model and likelihood belong together, without computing."""
    _check_examples(parts)
    classes = getattr(parts.model, "num_classes", None)
    if classes is not None:
        is_classifier = getattr(parts.model, "target", None) == "label"
        kind = "classifier" if is_classifier else "conditional model"
        found = require_labels(parts.splits, f"a {kind}")
        if found > classes:
            raise ConfigError(
                f"model.num_classes must be at least the data's {found}, got {classes}"
            )
    state = jax.eval_shape(parts.initialiser, jax.random.key(0))
    if getattr(parts.model, "target", None) in ("image", "tokens"):
        _check_support(parts, _likelihood(parts, state))
    _check_loss(parts, state)


def _check_examples(parts: Parts) -> None:
    """Checks that the data set has what the model reads, in its shape and spelling."""
    shapes = parts.splits.train.shapes
    wanted = getattr(parts.model, "image_shape", None)
    needed = "tokens" if getattr(parts.model, "target", None) == "tokens" else "image"
    is_text = needed == "tokens"
    if needed not in shapes:
        raise ConfigError(
            f"the model reads {needed!r} and the data set has {', '.join(shapes)}",
            fix="Choose another data.name or model.name.",
        )
    if wanted is not None:
        _check_shape(tuple(wanted), tuple(shapes["image"]), parts.transform.padding)
    if (parts.transform.support == "tokens") != is_text:
        wanted = "" if is_text else "not "
        raise ConfigError(f"data.transform must {wanted}be 'tokens' for {needed!r}")
    if is_text:
        _check_sentences(parts)


def _check_shape(wanted: tuple, stored: tuple, padding: int) -> None:
    """Checks that a model's images have the shape of the stored ones with padding."""
    height, width, channels = stored
    given = (height + 2 * padding, width + 2 * padding, channels)
    if wanted != given:
        with_padding = f" with data.padding {padding}" if padding else ""
        raise ConfigError(
            f"model.image_shape must be the data's {given}{with_padding}, got {wanted}"
        )


def _check_sentences(parts: Parts) -> None:
    """Checks the vocabulary of a data set of sentences, and where it is kept."""
    splits = parts.splits
    if splits.vocabulary is None or lengths_of(splits.train) is None:
        raise DataError("a data set of sentences needs a vocabulary and lengths")
    symbols, known = len(splits.vocabulary), parts.model.vocabulary_size
    if symbols > known:
        raise ConfigError(
            f"model.vocabulary_size must be at least the data's {symbols}, got {known}"
        )
    if options.read(parts.experiment.data)["placement"] == "device":
        raise ConfigError("data.placement must be 'host' for sentences, got 'device'")


def _check_support(parts: Parts, likelihood: Any) -> None:
    """Checks that pixels are what this likelihood is defined on."""
    same = ("signed", "levels", "tokens")
    fits = {"binary": ("binary", "unit"), **{name: (name,) for name in same}}
    wanted = fits.get(getattr(likelihood, "support", ""))
    given = parts.transform.support
    if wanted is not None and given not in wanted:
        raise ConfigError(
            f"data.transform must give {' or '.join(wanted)} pixels to "
            f"{type(likelihood).__name__}, got {given} pixels"
        )
    levels = 2 ** parts.experiment.data["num_bits"]
    known = getattr(likelihood, "num_levels", levels)
    if wanted is not None and known != levels:
        raise ConfigError(
            f"data.num_bits must give the {known} levels of the likelihood, "
            f"got {levels} levels"
        )


def _check_loss(parts: Parts, state: TrainState) -> None:
    """Traces the loss of a batch: what it refuses is said before a file is written."""
    rows = options.read(parts.experiment.data)["batch_size"]
    rows //= parts.experiment.accumulate_steps
    batch = {
        name: jax.ShapeDtypeStruct((rows, *one.shape[1:]), one.dtype)
        for name, one in parts.example_batch.items()
    }
    arguments = (state.params, state.state, jax.random.key(0), batch)
    jax.eval_shape(parts.loss, *arguments, parts.coefficients(0))


def _likelihood(parts: Parts, state: TrainState) -> Any:
    """Returns p(x|z) of the model with shapes in place of arrays."""
    variables = {"params": state.params, **state.state}
    arguments = (variables, parts.example_batch, jax.random.key(0))
    apply = functools.partial(parts.model.apply, mutable=list(variables))
    return jax.eval_shape(apply, *arguments)[0]


def create_state(parts: Parts) -> TrainState:
    """Returns the state at step 0, on the mesh."""
    key = parts.keys["init"]
    return train_step.create_state(parts.initialiser, key, parts.devices)


def started(
    parts: Parts, state: TrainState, loaded: frozenset[str] = frozenset()
) -> TrainState:
    """Returns a state at step 0 whose model has seen data, if it asks for that.

    A model that sets parameters by data offers `start_examples`, how many it needs, and
    `start(batch, key)`, which sets them; examples come in the order of the run.

    Args:
      parts: of the run.
      state: new, or with parameters of another run.
      loaded: names of these, which stay as they are.

    Raises:
      ConfigError: a flow whose scales are not finite afterwards.
    """
    wanted = getattr(parts.model, "start_examples", 0)
    if wanted == 0:
        check_scales(state.params, "parameters at the start of the run")
        return state
    size = len(parts.splits.train)
    chosen = data.order(parts.experiment.seed, size, 0, min(wanted, size))
    raw = jax.device_put(
        parts.splits.train.read(chosen), mesh.replicated(parts.devices)
    )

    def start(state, raw, key):
        data_key, start_key = jax.random.split(key)
        variables = {"params": state.params, **state.state}
        arguments = (parts.prepare(raw, data_key), start_key)
        # As in training, where BatchNorm uses the batch; what it remembers is dropped.
        _, new = parts.model.apply(
            variables, *arguments, method="start", mutable=list(variables)
        )
        params = jax.tree_util.tree_map_with_path(
            lambda path, old, new: old if path_name(path) in loaded else new,
            state.params,
            new["params"],
        )
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        return dataclasses.replace(state, params=params, ema=ema)

    places = mesh.parameter_shardings(state, parts.devices)
    state = jax.jit(start, out_shardings=places)(state, raw, parts.keys["start"])
    where = f"set by the first {len(chosen)} training examples"
    check_scales(state.params, where, "Look for examples that are not finite.")
    return state


def abstract_state(parts: Parts) -> TrainState:
    """Returns the shapes and places of the state."""
    return train_step.abstract_state(parts.initialiser, parts.devices)


def compile_step(parts: Parts, state: TrainState) -> Any:
    """Returns the jitted training step of an experiment: (state, batch) -> both new."""
    step = train_step.make_train_step(
        train_step.gathered(parts.loss, parts.devices),
        parts.optimizer,
        prepare=parts.prepare_training,
        run_key=parts.keys["steps"],
        coefficients=parts.coefficients,
        ema_decay=parts.experiment.ema_decay,
        accumulate_steps=parts.experiment.accumulate_steps,
        max_skips=parts.experiment.max_skips,
        spike_factor=parts.experiment.spike_factor,
    )
    n = parts.experiment.steps_per_dispatch
    return train_step.compile_train_step(
        step, state, parts.devices, steps_per_dispatch=n
    )


def batches(parts: Parts, start_step: int) -> Iterator[Batch]:
    """Returns the training batches on the mesh, `steps_per_dispatch` stacked in one.

    The same batches whether the data lives on the host or on the device.
    """
    fed = options.read(parts.experiment.data)
    resident = fed["placement"] == "device"
    source, fetch = _resident(parts) if resident else (parts.splits.train, _identity)
    n = parts.experiment.steps_per_dispatch
    feed = data.train_batches(
        source,
        seed=parts.experiment.seed,
        batch_size=fed["batch_size"],
        start_step=start_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        stack=None if n == 1 else n,
        num_threads=fed["num_threads"],
    )
    for batch in feed:
        yield fetch(mesh.put_batch(batch, parts.devices, leading=int(n > 1)))


def example_indices(parts: Parts, first_step: int, num_steps: int) -> dict[str, list]:
    """Returns {step: the training examples of its batch}, by position in the split."""
    rows = options.read(parts.experiment.data)["batch_size"]
    seed, train = parts.experiment.seed, parts.splits.train
    return {
        str(step): data.batch_indices(train, seed, rows, step).tolist()
        for step in range(first_step, first_step + num_steps)
    }


def _identity(batch: Batch) -> Batch:
    return batch


def _resident(parts: Parts) -> tuple[data.Source, Callable[[Batch], Batch]]:
    """Returns (a source of indices, indices -> examples), the data on the device."""
    train = parts.splits.train
    everything = train.read(np.arange(len(train)))
    held = jax.device_put(everything, mesh.replicated(parts.devices))
    n = parts.experiment.steps_per_dispatch
    rows = mesh.rows(parts.devices, leading=0 if n == 1 else 1)

    @functools.partial(jax.jit, out_shardings=rows)
    def gather(held, index):
        return jax.tree.map(lambda a: a[index], held)

    indices = data.ArraySource({"index": np.arange(len(train), dtype=np.int32)})
    return indices, lambda batch: gather(held, batch["index"])
