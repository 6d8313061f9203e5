"""Features of images to compare sets of them by: a small classifier's of their labels.

What a Fréchet distance measures depends on the features, so they have a name that says
what they are, and stay with the run in a file: numbers of two runs can be compared if
the file is the same.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from flax import linen as nn

from jvae import registry
from jvae.data import datasets
from jvae.data.sources import Source
from jvae.errors import DataError
from jvae.pretrained.minimize import minimize
from jvae.types import Array, Params
from jvae.workdir import npz

FEATURES_FILE = "features.npz"
WIDTH = 64
"""Features of an image."""
NUM_STEPS = 2000
BATCH_SIZE = 128
LEARNING_RATE = 1e-3
CHUNK = 512
"""Images whose features are computed at once."""


class FeatureNetwork(nn.Module):
    """Convolutions that halve the map to 8x8 or less, and two layers.

    Attributes:
      num_classes: labels are 0 .. num_classes - 1.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Returns (features [B, WIDTH], logits [B, num_classes]) of intensities."""
        halvings = max(2, math.ceil(math.log2(max(x.shape[1:3]) / 8)))
        for i in range(halvings):
            channels = min(32 * 2**i, 128)
            x = nn.relu(nn.Conv(channels, (3, 3), strides=(2, 2))(x))
        features = nn.relu(nn.Dense(WIDTH)(x.reshape(x.shape[0], -1)))
        return features, nn.Dense(self.num_classes)(features)


@dataclasses.dataclass(frozen=True)
class Features:
    """A trained classifier.

    Attributes:
      params: its parameters.
      num_classes: of its labels.
      accuracy: on test images.
      image_shape: [H, W, C] of the images that it takes.
    """

    params: Params
    num_classes: int
    accuracy: float
    image_shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """What to write beside a number that was computed on them."""
        right = f"{100 * self.accuracy:.1f}% right"
        return f"classifier of {self.num_classes} labels, {right}, {self.digest[:8]}"

    @property
    def digest(self) -> str:
        """Of the parameters: the same for the same features."""
        sha256 = hashlib.sha256()
        for leaf in jax.tree.leaves(self.params):
            sha256.update(np.asarray(leaf).tobytes())
        return sha256.hexdigest()

    def of(self, images: np.ndarray) -> np.ndarray:
        """Returns [N, WIDTH], the features of intensities [N, H, W, C] in [0, 1]."""
        parts = []
        for start in range(0, len(images), CHUNK):
            part = np.asarray(images[start : start + CHUNK], np.float32)
            parts.append(np.asarray(_outputs(self.params, part, self.num_classes)[0]))
        return np.concatenate(parts)


def fit_features(
    train: Source,
    test: Source,
    num_classes: int,
    *,
    seed: int = 0,
    num_steps: int = NUM_STEPS,
) -> Features:
    """Returns the features of a classifier that has learned the labels.

    Args:
      train: images with labels, uint8 or in [0, 1].
      test: more of them, for the accuracy.
      num_classes: how many labels there are.
      seed: of the parameters and of the order.
      num_steps: updates, Adam with 128 images each.

    Raises:
      DataError: images without labels.
    """
    if "label" not in train.shapes:
        raise DataError(
            "features need labels and the data set has none",
            fix="Set fd_examples to 0.",
        )
    model, shape = FeatureNetwork(num_classes), train.shapes["image"]
    image = jnp.zeros((1, *shape), jnp.float32)
    params = model.init(jax.random.key(seed), image)["params"]
    rng = np.random.default_rng(seed)

    def batches():
        while True:
            rows = rng.integers(len(train), size=min(BATCH_SIZE, len(train)))
            batch = train.read(rows)
            yield intensities(batch["image"]), batch["label"]

    loss = _CrossEntropy(model)
    params = minimize(
        loss, params, batches(), num_steps=num_steps, learning_rate=LEARNING_RATE
    )
    right = 0
    for start in range(0, len(test), CHUNK):
        part = test.read(np.arange(start, min(start + CHUNK, len(test))))
        _, logits = _outputs(params, intensities(part["image"]), num_classes)
        right += int((np.asarray(logits).argmax(-1) == part["label"]).sum())
    return Features(params, num_classes, right / len(test), shape)


@dataclasses.dataclass(frozen=True)
class _CrossEntropy:
    """-log p(label | image) of a network, the mean over a batch."""

    network: FeatureNetwork

    def __call__(self, params: Params, batch: tuple[np.ndarray, np.ndarray]) -> Array:
        image, label = batch
        logits = self.network.apply({"params": params}, image)[1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


def intensities(image: np.ndarray) -> np.ndarray:
    """Returns stored pixels as intensities in [0, 1], float32."""
    scale = 255.0 if image.dtype == np.uint8 else 1.0
    return np.asarray(image, np.float32) / scale


@functools.partial(jax.jit, static_argnames=("num_classes",))
def _outputs(params: Params, x: np.ndarray, num_classes: int) -> Any:
    """Returns (features [B, WIDTH], logits [B, num_classes]) of intensities."""
    return FeatureNetwork(num_classes).apply({"params": params}, x)


def write_features(features: Features, path: epath.PathLike) -> None:
    """Writes an npz file, whole or not at all."""
    about = registry.values(features)
    npz.write_npz(path, about.pop("params"), about)


def read_features(path: epath.PathLike) -> Features:
    """Returns what `write_features` wrote.

    Raises:
      WorkdirError: no such file, or one that is damaged.
    """
    params, about = npz.read_npz(path)
    try:
        shape = tuple(about["image_shape"])
        return Features(params, about["num_classes"], about["accuracy"], shape)
    except (KeyError, TypeError) as error:
        raise npz.unreadable(path, error) from error


def load_or_fit(
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
        features = fit_features(splits.train, splits.test, splits.num_classes or 0)
        write_features(features, file)
    return read_features(file)
