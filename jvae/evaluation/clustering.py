"""How clusters that were found without labels agree with labels.

An example's cluster is the most probable y at the mean of q(z|x). Labels are used here
alone, after training, and not to choose a checkpoint.
"""

from __future__ import annotations

import dataclasses
from typing import Unpack

import numpy as np

from jvae.data.sources import Source
from jvae.errors import require
from jvae.evaluation.metrics import Metric
from jvae.pretrained.predictions import clusters_of
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Array, Batch, Key


@dataclasses.dataclass(frozen=True)
class Clusters:
    """The clusters of N examples.

    Attributes:
      assignments: [N], the cluster of every example, 0 .. K-1.
      num_clusters: K.
      labels: [N], None where the data has none.
    """

    assignments: np.ndarray
    num_clusters: int
    labels: np.ndarray | None = None

    @property
    def histogram(self) -> np.ndarray:
        """[K], how many examples each cluster has."""
        return np.bincount(self.assignments, minlength=self.num_clusters)


def _clusters_and_labels(
    trained: TrainedModel, key: Key, batch: Batch
) -> dict[str, Array]:
    """Returns 'cluster' [B], and 'label' [B] where the data has it; draws nothing."""
    labels = {"label": batch["label"]} if "label" in batch else {}
    return {"cluster": clusters_of(trained, batch), **labels}


def evaluate_clusters(
    trained: TrainedModel, source: Source, **examples: Unpack[Examples]
) -> Clusters:
    """Returns the clusters of the first examples of a split.

    Args:
      trained: a model with clusters.
      source: the split.
      **examples: see `Examples`; the key is that of the draws that the transform of
        the data may make.

    Raises:
      ConfigError: the devices cannot share batch_size rows.
      DataError: num_examples is more than there are.
    """
    terms = trained.map_examples(_clusters_and_labels, source, **examples)
    return Clusters(terms["cluster"], trained.model.num_clusters, terms.get("label"))


def contingency(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Returns [K, C], how many examples of a cluster have a label.

    Args:
      labels: [N] integers >= 0.
      clusters: [N] integers >= 0.

    Raises:
      ConfigError: no examples, negative numbers, or labels and clusters of different
        length.
    """
    labels, clusters = np.asarray(labels), np.asarray(clusters)
    one_each = labels.shape == clusters.shape == (labels.size,) and labels.size > 0
    shapes = (labels.shape, clusters.shape)
    require(one_each, "labels and clusters", "be one for each example", shapes)
    least = min(labels.min(), clusters.min())
    require(least >= 0, "labels and clusters", "be at least 0", least)
    table = np.zeros((clusters.max() + 1, labels.max() + 1), np.int64)
    np.add.at(table, (clusters, labels), 1)
    return table


def majority_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Returns the share of examples whose label is the commonest of their cluster.

    Several clusters may stand for one label, so it grows with the number of clusters,
    to 1 where each example is a cluster.

    Args:
      labels: [N].
      clusters: [N].
    """
    table = contingency(labels, clusters)
    return float(table.max(1).sum() / table.sum())


def matched_accuracy(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Returns the share of examples whose cluster is matched with their label.

    The best matching of clusters with labels, one to one; what is left over, where
    there are more of one than of the other, counts as wrong. Kuhn, 1955,
    https://doi.org/10.1002/nav.3800020109.

    Args:
      labels: [N].
      clusters: [N].
    """
    from scipy.optimize import linear_sum_assignment

    table = contingency(labels, clusters)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / table.sum())


def normalized_mutual_info(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Returns I(labels; clusters) over the arithmetic mean of their entropies, 0 to 1.

    Args:
      labels: [N].
      clusters: [N].
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(labels, clusters))


def adjusted_rand_index(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Returns the share of pairs agreed on, 0 by chance and 1 at most.

    Hubert & Arabie, 1985, https://doi.org/10.1007/BF01908075.

    Args:
      labels: [N].
      clusters: [N].
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(labels, clusters))


_AGREEMENT = {
    "majority_accuracy": (
        "Accuracy by majority vote",
        majority_accuracy,
        "each cluster stands for its commonest label; counts on the set it scores",
    ),
    "matched_accuracy": (
        "Accuracy by Hungarian matching",
        matched_accuracy,
        "each cluster stands for at most one label and each label for one cluster",
    ),
    "normalized_mutual_info": (
        "NMI",
        normalized_mutual_info,
        "mutual information of clusters and labels over the mean of their entropies",
    ),
    "adjusted_rand_index": (
        "ARI",
        adjusted_rand_index,
        "pairs that clusters and labels agree on, 0 by chance, 1 at most",
    ),
}


def cluster_metrics(clusters: Clusters) -> dict[str, Metric]:
    """Returns how many clusters are used and, where there are labels, the agreement.

    Args:
      clusters: from `evaluate_clusters`.
    """
    count, used = len(clusters.assignments), float((clusters.histogram > 0).sum())
    unit, meaning = f"of {clusters.num_clusters}", "clusters with any example"
    rows = {"clusters_used": Metric.score("Clusters used", used, meaning, count, unit)}
    if clusters.labels is not None:
        for name, (label, measure, meaning) in _AGREEMENT.items():
            value = measure(clusters.labels, clusters.assignments)
            rows[name] = Metric.score(label, value, meaning, count)
    return rows
