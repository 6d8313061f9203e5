"""What is measured of held-out data while a run trains, and which model is its best.

A model of data is scored by its ELBO, whatever the objective; one that models no data
(a classifier, an encoder without a decoder) by the loss that it is trained on.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jvae.data import Source
from jvae.pretrained import image_grid, likelihood, samples
from jvae.pretrained.trained_model import TrainedModel
from jvae.training.components import Components
from jvae.types import Batch, Coefficients, Key, LossFn, Metrics

NUM_PICTURES = 64
"""Samples in a picture, and images in the one of reconstructions, in pairs."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """The numbers of a model on held-out data.

    Attributes:
      numbers: means over examples, in nats per example where they have a unit.
      measure: the name of the one that decides which model is the best.
      score: what it gives, larger is better.
    """

    numbers: dict[str, float]
    measure: str
    score: float

    @property
    def sentence(self) -> str:
        """The measure in a few words."""
        return f"validation {self.measure} {self.numbers[self.measure]:.4g} nats"


def validate(
    components: Components,
    trained: TrainedModel,
    source: Source,
    num_examples: int | None = None,
) -> Validation:
    """Returns what is measured of a model on the first examples of a split.

    The loss is taken with the coefficients that the run ends with, so that values of
    different steps can be compared. One that couples the examples of a batch is that
    of batches of `data.batch_size`.

    Args:
      components: what the experiment is made of.
      trained: the model.
      source: the split.
      num_examples: how many; None for all.
    """
    common: dict[str, Any] = {
        "batch_size": components.experiment.data["batch_size"],
        "key": components.keys["evaluation"],
        "num_examples": num_examples,
    }
    if trained.is_generative:
        estimates = likelihood.evaluate_elbo(trained, source, **common)
        numbers = {name: e.mean for name, e in estimates.items()}
        return Validation(numbers, "elbo", numbers["elbo"])
    end = components.coefficients(components.experiment.num_steps)
    numbers = trained.mean_over_batches(
        _metrics,
        source,
        loss=components.evaluation_loss,
        coefficients=tuple(sorted((k, float(v)) for k, v in end.items())),
        **common,
    )
    return Validation(numbers, "loss", -numbers["loss"])


def _metrics(
    trained: TrainedModel,
    key: Key,
    batch: Batch,
    *,
    loss: LossFn,
    coefficients: tuple[tuple[str, float], ...],
) -> Metrics:
    """Returns the metrics of a loss, which holds the model already."""
    values: Coefficients = dict(coefficients)
    return loss(trained.params, trained.state, key, batch, values)[1].metrics


def training_pictures(
    components: Components, trained: TrainedModel, source: Source
) -> dict[str, np.ndarray]:
    """Returns the grids that training shows: reconstructions and samples.

    None of a model that draws no images.
    """
    if not trained.makes_images:
        return {}
    key = components.keys["evaluation"]  # of the transform and, by index, of samples
    draw_key = jax.random.fold_in(key, NUM_PICTURES)
    n = min(NUM_PICTURES // 2, len(source))
    raw = source.read(np.arange(n))["image"]
    # NumPy in between: with many processes some arrays are global and some are not.
    image = np.asarray(trained.prepare(raw, key))
    has_codes = samples.has_codes(trained)
    mode: Literal["mean", "sample"] = "mean" if has_codes else "sample"
    again = np.asarray(samples.reconstructions(trained, image, draw_key, mode))
    show = components.transform.to_unit
    pairs = jnp.stack([show(jnp.asarray(x)) for x in (image, again)], axis=1)
    shown = {"reconstructions": pairs.reshape(-1, *pairs.shape[2:])}
    if trained.model.offers("generate"):
        images = samples.prior_samples(trained, key, NUM_PICTURES, 1.0)
        shown["samples"] = show(jnp.asarray(images))
    return {k: image_grid.grid(np.asarray(v), columns=8) for k, v in shown.items()}
