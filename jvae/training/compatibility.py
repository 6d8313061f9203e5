"""Whether data, model, loss and devices of an experiment belong together."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.sharding import Mesh

from jvae.data.checks import require_labels
from jvae.data.pipeline import require_a_batch
from jvae.data.sources import lengths_of
from jvae.distributions import as_distribution
from jvae.errors import ConfigError, DataError, require
from jvae.training.components import Components
from jvae.training.config import Experiment
from jvae.training.train_step import TrainState


def check_accumulation(experiment: Experiment, batch_size: int, devices: Mesh) -> None:
    """Checks that a batch divides into micro-batches for every device."""
    micro = experiment.accumulate_steps
    parts = f"accumulate_steps x devices, {micro} x {devices.size}"
    fits = batch_size % (micro * devices.size) == 0
    require(fits, "data.batch_size", f"be a multiple of {parts}", batch_size)


def check_fit(components: Components) -> None:
    """Checks that data, model and likelihood belong together, without computing."""
    _check_examples(components)
    size = len(components.splits.train)
    require_a_batch(size, components.data_options.batch_size)
    classes = components.model.num_classes
    if classes is not None:
        is_classifier = components.model.target == "label"
        kind = "classifier" if is_classifier else "conditional model"
        num_labels = require_labels(components.splits, f"a {kind}")
        rule = f"be at least the data's {num_labels}"
        require(num_labels <= classes, "model.num_classes", rule, classes)
    state = jax.eval_shape(components.initializer, jax.random.key(0))
    if components.model.target in ("image", "tokens"):
        _check_support(components, _likelihood(components, state))
    _check_loss(components, state)


def _check_examples(components: Components) -> None:
    """Checks that the data set has what the model reads, in its shape and spelling."""
    shapes, padding = components.splits.train.shapes, components.transform.padding
    expected = components.model.image_shape
    is_text = components.model.target == "tokens"
    needed = "tokens" if is_text else "image"

    if needed not in shapes:
        raise ConfigError(
            f"the model reads {needed!r} and the data set has {', '.join(shapes)}",
            fix="Choose another data.name or model.name.",
        )

    if expected is not None:
        height, width, channels = shapes["image"]
        actual = (height + 2 * padding, width + 2 * padding, channels)
        rule = f"be the data's {actual}"
        rule += f" with data.padding {padding}" if padding else ""
        fits = tuple(expected) == actual
        require(fits, "model.image_shape", rule, tuple(expected))

    if (components.transform.support == "tokens") != is_text:
        how = "" if is_text else "not "
        raise ConfigError(f"data.transform must {how}be 'tokens' for {needed!r}")
    if is_text:
        _check_sentences(components)


def _check_sentences(components: Components) -> None:
    """Checks the vocabulary of a data set of sentences, and where it is kept."""
    splits = components.splits
    if splits.vocabulary is None or lengths_of(splits.train) is None:
        raise DataError("a data set of sentences needs a vocabulary and lengths")
    needed, size = len(splits.vocabulary), components.model.vocabulary_size
    rule = f"be at least the data's {needed}"
    require(needed <= size, "model.vocabulary_size", rule, size)
    place = components.data_options.placement
    require(place == "host", "data.placement", "be 'host' for sentences", place)


def _check_support(components: Components, likelihood: Any) -> None:
    """Checks that pixels are what this likelihood is defined on."""
    same = ("signed", "levels", "tokens")
    fits = {"binary": ("binary", "unit"), **{name: (name,) for name in same}}
    supports = fits.get(likelihood.support)
    if supports is None:
        return
    support, name = components.transform.support, type(likelihood).__name__
    if support not in supports:
        rule = f"give {' or '.join(supports)} pixels to {name}"
        raise ConfigError(f"data.transform must {rule}, got {support} pixels")
    levels = 2**components.data_options.num_bits
    known = levels if likelihood.num_levels is None else likelihood.num_levels
    if known != levels:
        rule = f"give the {known} levels of the likelihood"
        raise ConfigError(f"data.num_bits must {rule}, got {levels} levels")


def _check_loss(components: Components, state: TrainState) -> None:
    """Traces the loss of a batch: what it refuses is said before a file is written."""
    rows = components.data_options.batch_size
    rows //= components.experiment.accumulate_steps
    batch = {
        name: jax.ShapeDtypeStruct((rows, *one.shape[1:]), one.dtype)
        for name, one in components.example_batch.items()
    }
    arguments = (state.params, state.state, jax.random.key(0), batch)
    jax.eval_shape(components.loss, *arguments, components.coefficients(0))


def _likelihood(components: Components, state: TrainState) -> Any:
    """Returns p(x|z) of the model with shapes in place of arrays."""
    variables = {"params": state.params, **state.state}
    arguments = (variables, components.example_batch, jax.random.key(0))
    apply = functools.partial(components.model.apply, mutable=list(variables))
    return as_distribution(jax.eval_shape(apply, *arguments)[0])
