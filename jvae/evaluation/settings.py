"""How much an evaluation measures and shows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jvae import registry
from jvae.evaluation.projection import Projection
from jvae.pretrained.trained_model import TrainedModel
from jvae.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

NUM_PROBED = 10_000
"""Labelled training examples that probes see where nothing else is asked for."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much an evaluation measures and shows.

    Args:
      num_examples: at most this many examples, the first of the split.
      batch_size: examples at once, a multiple of the devices; no number depends on it.
      num_samples: draws of z per example, importance-weighted for the NLL, averaged
        over for the accuracy of a classifier.
      chunk_size: how many of these draws are in memory at once.
      temperatures: factors on the prior's standard deviation, a picture of samples at
        each.
      num_images: samples in a picture.
      reach: how far traversals go from 0, in standard deviations of the prior.
      probe_examples: labelled training examples for nearest neighbours and a linear
        probe on the codes; None for 10,000 of an encoder without a decoder and none of
        others.
      samplers: names of `jvae.pretrained.samplers`, fitted to the codes of training
        images and drawn from in the prior's place, a picture for each.
      fd_examples: test images, and samples of each kind, between which a Fréchet
        distance, precision and recall are computed; 0 for none.
      features: a file of features for these; None for a classifier of the labels that
        is trained once and kept in the workdir.
      projection: of the map of codes: 'pca', the plane of most variance, or 'tsne',
        which takes a minute.
      statistics: of BatchNorm and its like: the 'running' values of training, or those
        of the whole 'train' split, measured anew.

    Raises:
      ConfigError: a number out of range.
    """

    num_examples: PositiveInt = 10_000
    batch_size: PositiveInt = 256
    num_samples: PositiveInt = 100
    chunk_size: PositiveInt = 10
    temperatures: Sequence[NonNegativeFloat] = (0.7, 1.0)
    num_images: PositiveInt = 100
    reach: PositiveFloat = 2.5
    probe_examples: NonNegativeInt | None = None
    samplers: Sequence[str] = ()
    fd_examples: NonNegativeInt = 0
    features: str | None = None
    projection: Projection = "pca"
    statistics: Literal["running", "train"] = "running"

    def __post_init__(self) -> None:
        """Checks every field."""
        registry.check_instance(self, "")

    def needs_training_split(self, trained: TrainedModel) -> bool:
        """Returns whether an evaluation looks at training examples too."""
        fits = self.statistics == "train" or bool(self.samplers) or self.fd_examples > 0
        return fits or self.num_probed(trained) > 0

    def num_probed(self, trained: TrainedModel) -> int:
        """Returns how many training examples probes see, 0 for no probes."""
        if self.probe_examples is not None:
            return self.probe_examples
        has_codes_alone = not (trained.is_generative or trained.is_classifier)
        return NUM_PROBED if has_codes_alone else 0
