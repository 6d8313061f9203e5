"""What is fitted after training and kept in the workdir: samplers, and features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from jvae import data
from jvae.data import datasets
from jvae.errors import ConfigError
from jvae.evaluation.features import (
    Features,
    fit_features,
    read_features,
    write_features,
)
from jvae.pretrained import samplers
from jvae.pretrained.restore import Pretrained
from jvae.pretrained.samplers.fit import training_codes

FEATURES_FILE = "features.npz"
NUM_CODES = 10_000
"""Training images whose codes a sampler is fitted to."""


def features(
    workdir: epath.PathLike, section: Mapping[str, Any], path: str | None = None
) -> Features:
    """Returns the features of a file, else the workdir's, fitted if there are none.

    Args:
      workdir: of the run.
      section: the config's data section.
      path: the file; None for WORKDIR/features.npz.

    Raises:
      DataError: the data set is missing, or has no labels.
      WorkdirError: a file that cannot be read.
    """
    if path is not None:
        return read_features(path)
    file = epath.Path(workdir).expanduser() / FEATURES_FILE
    if not file.exists():
        splits = datasets.load_splits(section)
        made = fit_features(splits.train, splits.test, splits.num_classes or 0)
        write_features(made, file)
    return read_features(file)


def sampler(
    model: Pretrained,
    name: str,
    train: data.Source | None = None,
) -> Any:
    """Fits a sampler to a restored model unless it was, and returns it.

    Args:
      model: from `jvae.restore`.
      name: a key of `jvae.pretrained.samplers.SAMPLERS`.
      train: the training split; None to open the data set of the run.

    Raises:
      ConfigError: an unknown name, or a model whose codes none stands for.
      DataError: the training data is not there.
    """
    folder = model.samplers
    if folder is None:
        raise ConfigError("a model that was not restored has no folder for samplers")
    if name in samplers.names(folder):
        return samplers.load(name, folder)
    if train is None:
        train = datasets.load_split(model.config["data"], "train", model.vocabulary)
    codes = training_codes(
        model.subject, train, key=jax.random.key(0), num_examples=NUM_CODES
    )
    made = samplers.build(name, codes)
    samplers.save(made, name, folder, {"codes": len(codes)})
    return made
