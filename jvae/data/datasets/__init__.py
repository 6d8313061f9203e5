"""The data sets by name, and how a config's data section becomes one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jvae import registry
from jvae.data.checks import check_splits
from jvae.data.datasets import digits, grammar, idx, images, npz, shapes, text, tfds
from jvae.data.options import DataOptions
from jvae.data.pipeline import order
from jvae.data.sources import Source, Splits, Subset
from jvae.errors import ConfigError, DataError, require, require_data
from jvae.ranges import NonNegativeInt

DATASETS: dict[str, Callable[..., Splits]] = {
    "digits": digits.digits,
    "grammar": grammar.grammar,
    "idx": idx.idx,
    "images": images.images,
    "npz": npz.npz,
    "shapes": shapes.shapes,
    "text": text.text,
    "tfds": tfds.tfds,
}

SPLITS = ("train", "validation", "test")

HOLD_OUT_SEED = 2**32
"""Of the permutation that decides what is held out; not a seed that a run has."""


@registry.checked("data")
def build(
    name: str, *, num_validation: NonNegativeInt = 0, **source_fields: Any
) -> Splits:
    """Returns the data set `name`, checked, with a validation split if asked for.

    The held out examples depend on the data set alone, never on a run's seed. A
    validation split of the data set itself stays as it is.

    Args:
      name: a key of `DATASETS`, or 'package.module:Name' of a function that returns
        `Splits`.
      num_validation: how many training examples to hold out for validation.
      **source_fields: the function's own fields.

    Raises:
      ConfigError: unknown name or field, wrong type.
      DataError: missing or damaged data, see `checks.check_splits`; too few examples
        for `num_validation`.
    """
    function = registry.resolve(DATASETS, name, "data")
    registry.check(function, source_fields, "data")
    splits = function(**source_fields)
    if not isinstance(splits, Splits):
        raise ConfigError(
            f"data.name must name a function that returns Splits, got {splits!r}"
        )
    splits = check_splits(splits)
    if splits.validation is not None or num_validation == 0:
        return splits
    return hold_out(splits, num_validation)


def hold_out(splits: Splits, num_validation: int) -> Splits:
    """Returns `splits` with `num_validation` training examples as validation.

    Args:
      splits: a data set without a validation split.
      num_validation: at least 1, less than the number of training examples.

    Raises:
      DataError: there are too few training examples.
    """
    total = len(splits.train)
    require_data(
        num_validation < total,
        "data.num_validation",
        f"be less than the {total} training examples",
        num_validation,
        fix="Hold out fewer.",
    )
    shuffled = order(HOLD_OUT_SEED, total, 0, total)
    train, validation = np.split(shuffled, [total - num_validation])
    return dataclasses.replace(
        splits,
        train=Subset(splits.train, np.sort(train)),
        validation=Subset(splits.train, np.sort(validation)),
    )


def load_splits(section: Mapping[str, Any]) -> Splits:
    """Returns the data set of a config's data section."""
    options = set(registry.of(DataOptions)) - {"num_validation"}
    return build(**{k: v for k, v in section.items() if k not in options})


def load_split(
    section: Mapping[str, Any], split: str, vocabulary: Any = None
) -> Source:
    """Returns one split of a data set.

    Args:
      section: the config's data section.
      split: 'train', 'validation' or 'test'.
      vocabulary: that a model of sentences knows; None for another model.

    Raises:
      ConfigError: no such split.
      DataError: its sentences are encoded by another vocabulary.
    """
    require(split in SPLITS, "split", f"be one of {', '.join(SPLITS)}", split)
    splits = load_splits(section)
    if splits.vocabulary != vocabulary:
        raise DataError(
            "the data set's vocabulary is not the one that the model was trained with",
            fix="It is made of train.txt: evaluate with that of the run.",
        )
    source = registry.values(splits)[split]
    if source is None:
        raise ConfigError(
            f"the data set has no {split} split", fix="Set data.num_validation."
        )
    return source
