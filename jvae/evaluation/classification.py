"""How well labels are told from codes, and how much the codes say.

H(y) - E[-log p(y|z)] <= I(z; y) <= I(z; x) <= E KL(q(z|x) || p(z)): what is measured
of a classifier bounds the information in its codes from both sides.
"""

from __future__ import annotations

import dataclasses
from typing import Unpack

import jax
import numpy as np

from jvae.data.sources import Source
from jvae.evaluation.disentanglement import discrete_entropy
from jvae.evaluation.metrics import Metric
from jvae.losses.bottleneck import LN_2, bottleneck_terms
from jvae.losses.iwae import sample_keys
from jvae.pretrained.likelihood import Estimate
from jvae.pretrained.predictions import label_probs
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Array, Batch, Key


@dataclasses.dataclass(frozen=True)
class Classification:
    """What a classifier makes of N examples.

    Attributes:
      labels: [N], the true ones.
      by_mean: [N], argmax p(y|z) at the mean of q(z|x), or at a code without noise.
      by_draws: [N], argmax of p(y|z) averaged over num_samples draws of z.
      log_likelihood: [N], log p(y|z) of the true label at one draw.
      rate: [N], KL(q(z|x) || p(z)) in nats; None for codes without noise.
      num_classes: K.
      num_samples: draws behind `by_draws`.
    """

    labels: np.ndarray
    by_mean: np.ndarray
    by_draws: np.ndarray
    log_likelihood: np.ndarray
    rate: np.ndarray | None
    num_classes: int
    num_samples: int

    @property
    def confusion(self) -> np.ndarray:
        """[K, K], how many examples of a label (row) are called another (by mean)."""
        table = np.zeros((self.num_classes,) * 2, np.int64)
        np.add.at(table, (self.labels, self.by_mean), 1)
        return table


def _predict(
    trained: TrainedModel, key: Key, batch: Batch, *, num_samples: int
) -> dict[str, Array]:
    log_likelihood, _, inference, _ = bottleneck_terms(
        trained.params, trained.state, key, batch, model=trained.model, train=False
    )
    draws = sample_keys(jax.random.clone(key), len(key), num_samples)
    return {
        "labels": batch["label"],
        "by_mean": label_probs(trained, batch).argmax(-1),
        "by_draws": label_probs(trained, batch, draws).argmax(-1),
        "log_likelihood": log_likelihood,
        "rate": inference.kl.sum(-1),
    }


def evaluate_classification(
    trained: TrainedModel,
    source: Source,
    *,
    num_samples: int,
    **examples: Unpack[Examples],
) -> Classification:
    """Returns what a classifier makes of the first examples of a split.

    Args:
      trained: a classifier.
      source: the split, with labels.
      num_samples: draws of z for each example, over which p(y|z) is averaged.
      **examples: see `Examples`.

    Raises:
      ConfigError: the devices cannot share batch_size rows, or there are no labels.
      DataError: num_examples is more than there are.
    """
    terms = trained.map_examples(_predict, source, num_samples=num_samples, **examples)
    if not trained.model.offers("posterior"):
        terms["rate"] = None
    num_classes = trained.model.num_classes
    return Classification(**terms, num_classes=num_classes, num_samples=num_samples)


def classification_metrics(classification: Classification) -> dict[str, Metric]:
    """Returns accuracies, and the bounds on information in nats and bits.

    Args:
      classification: from `evaluate_classification`.
    """
    labels = classification.labels
    entropy = discrete_entropy(labels)

    right = Estimate.of(classification.by_mean == labels)
    text = "by p(y|z) at the code"
    accuracy = Metric.of("Accuracy", right, "of 1", "metric", text)
    rows = {"accuracy": dataclasses.replace(accuracy, num_samples=None)}

    lost = Estimate.of(-classification.log_likelihood)
    known = Estimate.of(entropy + classification.log_likelihood)
    text = f"H(y) + E log p(y|z) <= I(z; y) <= H(y) = {entropy:.3f} nats"
    bounds = [
        ("cross_entropy", "Cross-entropy", lost, "E[-log p(y|z)], one draw of z"),
        ("label_information", "Known of y", known, text),
    ]

    if classification.rate is not None:
        by_draws = classification.by_draws == labels
        right = Estimate.of(by_draws, classification.num_samples)
        label, text = "Accuracy of draws", "by p(y|z) averaged over draws of z"
        rows["accuracy_of_draws"] = Metric.of(label, right, "of 1", "metric", text)
        text = "E KL(q(z|x) || p(z)), an upper bound on I(z; x)"
        bounds.append(("rate", "Rate", Estimate.of(classification.rate), text))

    for name, label, estimate, text in bounds:
        bits = estimate.scaled(1.0 / LN_2)
        rows[name] = Metric.of(label, estimate, "nats", "bound", text)
        in_bits = f"{label}, in bits"
        rows[f"{name}_bits"] = Metric.of(in_bits, bits, "bits", "bound", text)
    return rows
