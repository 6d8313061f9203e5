"""Samples beside real images: a Fréchet distance, precision and recall, by sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jvae.data.sources import Source
from jvae.errors import DataError, require
from jvae.evaluation import frechet
from jvae.evaluation.features import Features, intensities
from jvae.pretrained import samples
from jvae.pretrained.trained_model import TrainedModel
from jvae.types import Key

PRIOR = "prior"


@dataclasses.dataclass(frozen=True)
class SampleQuality:
    """Samples of one kind.

    Attributes:
      sampler: 'prior', or the name of what was fitted to codes.
      temperature: of the draws.
      frechet_distance: to the real images, by the features; less is better.
      precision: see `frechet.overlap`, as the next three.
      recall: more is better, as of all four.
      density: about 1 for real images.
      coverage: at most 1.
    """

    sampler: str
    temperature: float
    frechet_distance: float
    precision: float
    recall: float
    density: float
    coverage: float


@dataclasses.dataclass(frozen=True)
class Quality:
    """Samples beside the first real images of a split, as many of both.

    Attributes:
      features: what the numbers rest on.
      num_examples: real images, and samples of each kind.
      rows: one for each kind, the first what other real images get in their place.
    """

    features: str
    num_examples: int
    rows: list[SampleQuality]


def evaluate_quality(
    trained: TrainedModel,
    features: Features,
    source: Source,
    *,
    key: Key,
    num_examples: int,
    temperatures: Sequence[float] = (1.0,),
    samplers: Mapping[str, Any] | None = None,
    others: Source | None = None,
) -> Quality:
    """Returns how near means of p(x|z) are to real images.

    Args:
      trained: a model of images.
      features: of both.
      source: the split of the real ones.
      key: of the draws.
      num_examples: real images, the first, and samples of each kind.
      temperatures: of the prior; samplers draw at 1.
      samplers: what draws codes in the prior's place, by name.
      others: more real images, to show what samples could reach; None for no such row.

    Raises:
      DataError: fewer images, or images of another size than the features are of.
      ConfigError: num_examples too small for neighbours.
    """
    rule = f"be 0 or at least {frechet.NEIGHBOURS + 1}"
    require(num_examples > frechet.NEIGHBOURS, "fd_examples", rule, num_examples)
    real = _real(features, source, num_examples)
    rows = []
    if others is not None and len(others) >= num_examples:
        references = _real(features, others, num_examples)
        rows.append(_row("real images", 1.0, real, references))
    kinds: list[tuple[str, float, Any]] = [(PRIOR, t, None) for t in temperatures]
    kinds += [(name, 1.0, sampler) for name, sampler in (samplers or {}).items()]
    for name, heat, sampler in kinds:
        drawn = samples.prior_samples(trained, key, num_examples, heat, sampler=sampler)
        images = np.asarray(trained.transform.to_unit(jnp.asarray(drawn)))
        _check_shape(features, images.shape[1:])
        rows.append(_row(name, heat, real, features.of(np.clip(images, 0, 1))))
    return Quality(features.name, num_examples, rows)


def _real(features: Features, source: Source, count: int) -> np.ndarray:
    """Returns the features of the first images."""
    if len(source) < count:
        raise DataError(f"fd_examples is {count}, and there are {len(source)} images")
    image = source.read(np.arange(count))["image"]
    _check_shape(features, image.shape[1:])
    return features.of(intensities(image))


def _check_shape(features: Features, shape: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(features.image_shape):
        sizes = f"{list(features.image_shape)}, these {list(shape)}"
        raise DataError(f"the features are of images {sizes}")


def _row(
    name: str, temperature: float, real: np.ndarray, generated: np.ndarray
) -> SampleQuality:
    moments = map(frechet.Moments.of, (real, generated))
    numbers = {"frechet_distance": frechet.frechet_distance(*moments)}
    numbers |= frechet.overlap(real, generated)
    return SampleQuality(name, float(temperature), **numbers)
