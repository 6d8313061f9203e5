"""What a frozen encoder's means tell of labels: nearest neighbours, a linear probe.

Beside them the same of what needs no training: the pixels, their principal components,
and an encoder as it was initialised.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Unpack

import jax
import numpy as np

from jvae.data.sources import Source
from jvae.errors import ConfigError, require
from jvae.evaluation.metrics import Metric
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Array, Batch, Key

NEIGHBOURS = (1, 20)
"""Numbers of neighbours that vote."""
PENALTIES = (10.0, 100.0, 1000.0)
"""Weights of half the squared weights, beside the sum of the cross-entropies."""
BESIDE = ("image", "label")
"""What is needed of the examples, beside their codes."""
FEATURES = {
    "codes": "means of q(z|x)",
    "untrained": "means of an encoder as it was initialised",
    "principal_components": "of the pixels, as many as the codes have dimensions",
    "pixels": "the images",
}


@dataclasses.dataclass(frozen=True)
class Probes:
    """Test accuracies of classifiers on frozen features.

    Attributes:
      accuracies: {features: {'knn_1', 'knn_20', 'linear': accuracy}}; the features are
        the keys of `FEATURES`.
      num_train: labelled examples that the classifiers have seen.
      num_test: examples that they were tested on.
    """

    accuracies: dict[str, dict[str, float]]
    num_train: int
    num_test: int


def means_of(
    trained: TrainedModel, key: Key, batch: Batch, beside: Sequence[str] = BESIDE
) -> dict[str, Array]:
    """Returns 'code' [B, D], the mean of q(z|x), and what the batch has beside it.

    Args:
      trained: a model with `posterior`, which has a mean.
      key: not used; nothing is drawn.
      batch: what the model reads, prepared.
      beside: names of the batch, those that there are.
    """
    z = trained.call("posterior", batch).mean
    there = {name: batch[name] for name in beside if name in batch}
    return {"code": z.reshape(len(z), -1), **there}


def untrained(trained: TrainedModel, source: Source, key: Key) -> TrainedModel:
    """Returns the model with parameters as they are initialised.

    Args:
      trained: the trained model.
      source: examples of the data, for shapes.
      key: of the parameters.
    """
    one = source.read(np.zeros(1, np.int64))
    # One key thrice: of the batch and the draw init takes the shapes alone.
    data_key, draw_key = jax.random.clone(key), jax.random.clone(key)
    batch = {**one, "image": trained.prepare(one["image"], data_key)}
    variables = dict(trained.model.init(key, batch, draw_key))
    params = variables.pop("params")
    return dataclasses.replace(trained, params=params, state=variables)


def evaluate_probes(
    trained: TrainedModel,
    train: Source,
    test: Source,
    *,
    num_train: int,
    **examples: Unpack[Examples],
) -> Probes:
    """Returns what labels can be told from codes, and from features to compare with.

    Args:
      trained: a model with `posterior`.
      train: the split whose labels the classifiers see.
      test: the split that they are tested on.
      num_train: at most so many examples of `train`, the first.
      **examples: those of `test`, see `Examples`; the key is that of the transform and
        of the untrained encoder.

    Raises:
      ConfigError: num_train below 1, or a model without one posterior.
    """
    if not trained.model.offers("posterior"):
        raise ConfigError(
            f"{trained.name} has no codes to probe", fix="Set probe_examples to 0."
        )
    require(num_train >= 1, "num_train", "be at least 1", num_train)
    of_train = {**examples, "num_examples": min(num_train, len(train))}
    fresh = untrained(trained, train, jax.random.fold_in(examples["key"], 1))

    def features(of: TrainedModel) -> list[dict[str, np.ndarray]]:
        splits = (train, of_train), (test, examples)
        return [of.map_examples(means_of, source, **few) for source, few in splits]

    of_trained = features(trained)
    labels = [part["label"] for part in of_trained]
    pixels = [flat_pixels(part["image"]) for part in of_trained]
    codes = [part["code"] for part in of_trained]
    kinds = {
        "codes": codes,
        "untrained": [part["code"] for part in features(fresh)],
        "principal_components": principal_components(pixels, codes[0].shape[1]),
        "pixels": pixels,
    }
    accuracies = {name: accuracies_of(*kind, *labels) for name, kind in kinds.items()}
    return Probes(accuracies, len(labels[0]), len(labels[1]))


def flat_pixels(images: np.ndarray) -> np.ndarray:
    """Returns [N, H W C] in float32."""
    return np.asarray(images, np.float32).reshape(len(images), -1)


def principal_components(
    splits: Sequence[np.ndarray], num_components: int
) -> list[np.ndarray]:
    """Returns the first principal components of all splits, found in the first.

    Args:
      splits: each [N, F].
      num_components: how many; fewer where there are fewer.
    """
    from sklearn.decomposition import PCA

    count = min(num_components, *splits[0].shape)
    pca = PCA(count, svd_solver="covariance_eigh").fit(splits[0])
    return [pca.transform(split) for split in splits]


def accuracies_of(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, test_labels: np.ndarray
) -> dict[str, float]:
    """Returns the test accuracies of kNN (cosine) and of a linear probe.

    Args:
      train: [N, F], features.
      test: [M, F].
      labels: [N], of `train`.
      test_labels: [M].
    """
    accuracies = {
        f"knn_{k}": knn_accuracy(train, test, labels, test_labels, k)
        for k in NEIGHBOURS
        if k <= len(train)
    }
    return accuracies | {"linear": linear_accuracy(train, test, labels, test_labels)}


def knn_accuracy(
    train: np.ndarray,
    test: np.ndarray,
    labels: np.ndarray,
    test_labels: np.ndarray,
    num_neighbors: int,
) -> float:
    """Returns the accuracy of a vote of the nearest neighbours by cosine similarity.

    Args:
      train: [N, F], features.
      test: [M, F].
      labels: [N], of `train`.
      test_labels: [M].
      num_neighbors: how many vote, at most N.
    """
    from sklearn.neighbors import KNeighborsClassifier

    # Of vectors of length 1 the nearest are those with the largest cosine.
    classifier = KNeighborsClassifier(num_neighbors, algorithm="brute")
    classifier.fit(directions(train), labels)
    return float(classifier.score(directions(test), test_labels))


def directions(features: np.ndarray) -> np.ndarray:
    """Returns [N, F] in float32 with rows of length 1; a row of zeros stays."""
    rows = np.asarray(features, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0.0, lengths, 1.0)


def linear_accuracy(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray, test_labels: np.ndarray
) -> float:
    """Returns the accuracy of multinomial logistic regression on scaled features.

    Every feature is scaled to mean 0 and variance 1 over `train`. Of the penalties in
    `PENALTIES` that one is taken which predicts the last tenth of `train` best from the
    rest; `test` chooses nothing.

    Args:
      train: [N, F], features.
      test: [M, F].
      labels: [N], of `train`; if all are the same, that one is predicted.
      test_labels: [M].
    """
    count = len(train)
    num_fitted = count - max(1, count // 10)
    rest = train[num_fitted:], labels[num_fitted:]
    fits = [_regression(train[:num_fitted], labels[:num_fitted], c) for c in PENALTIES]
    best = int(np.argmax([fit.score(*rest) for fit in fits]))
    fit = _regression(train, labels, PENALTIES[best])
    return float(fit.score(test, test_labels))


def _regression(train: np.ndarray, labels: np.ndarray, penalty: float) -> Any:
    """Returns the fitted scaling and regression."""
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if np.all(labels == labels[0]):  # which a regression refuses
        return DummyClassifier().fit(train, labels)
    regression = LogisticRegression(C=1.0 / penalty, max_iter=200, tol=1e-3)
    with warnings.catch_warnings():
        # What the last iterations would change, no prediction shows.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), regression).fit(train, labels)


def probe_metrics(probes: Probes) -> dict[str, Metric]:
    """Returns the accuracies of the codes: what a table over seeds is made of.

    Args:
      probes: from `evaluate_probes`.
    """
    labels = {"linear": "Linear probe"}
    labels |= {f"knn_{k}": f"Vote of {k} nearest codes" for k in NEIGHBOURS}
    text = f"of frozen codes, {probes.num_train:,} labelled training examples"
    return {
        f"probe_{name}": Metric.score(labels[name], value, text, probes.num_test)
        for name, value in probes.accuracies["codes"].items()
    }
