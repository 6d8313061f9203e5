"""How far single dimensions of a code stand for single factors of the data.

All scores are of codes [N, D], the means of q(z|x), and of whole-numbered factors
[N, K], and between 0 and 1. Locatello et al., 2019, https://arxiv.org/abs/1811.12359,
compare them and find that they agree with each other only in part.
"""

from __future__ import annotations

import dataclasses
from typing import Unpack

import numpy as np

from jvae import registry
from jvae.data.sources import Source
from jvae.errors import require
from jvae.evaluation.metrics import Metric
from jvae.evaluation.probes import means_of
from jvae.pretrained.trained_model import Examples, TrainedModel

NUM_BINS = 20
"""Of equal width, that a dimension is cut into where its information is counted."""
VOTE_BATCH = 64
"""Examples of one value of a factor, for a vote."""
NUM_VOTES = (10_000, 5_000)
"""That the classifier of the FactorVAE score is made of, and tested on."""
MIN_VARIANCE = 0.0025
"""A dimension of a smaller variance takes part in no vote."""
NUM_TREES = 30
"""Of a forest; each split may choose among all dimensions."""
MAX_FITTED = 5_000
"""Examples that classifiers are fitted to and as many that they are tested on."""


@dataclasses.dataclass(frozen=True)
class Disentanglement:
    """The scores of N examples.

    Attributes:
      mig: mutual information gap.
      sap: separated attribute predictability.
      disentanglement: DCI, how far a dimension stands for one factor.
      completeness: DCI, how far a factor stands in one dimension.
      informativeness: DCI, mean accuracy of a forest that tells factors from codes.
      factor_vae: accuracy of the vote of the dimension that varies the least.
      num_examples: N.
      num_constant: factors that are the same in all examples, which are left out.
    """

    mig: float
    sap: float
    disentanglement: float
    completeness: float
    informativeness: float
    factor_vae: float
    num_examples: int
    num_constant: int = 0


LABELS = {
    "mig": ("MIG", "how much more of a factor its best dimension has than the next"),
    "sap": ("SAP", "how much better thresholds on the best dimension tell a factor"),
    "disentanglement": ("DCI disentanglement", "1: a dimension stands for one factor"),
    "completeness": ("DCI completeness", "1: a factor stands in one dimension"),
    "informativeness": ("DCI informativeness", "accuracy of forests on codes"),
    "factor_vae": ("FactorVAE score", "the dimension that varies least tells a factor"),
}


def evaluate_disentanglement(
    trained: TrainedModel, source: Source, **examples: Unpack[Examples]
) -> Disentanglement | None:
    """Returns the scores of the means of q(z|x) of the first examples of a split.

    Of the factors that vary in these examples; None if none does.

    Args:
      trained: a model whose posterior is over vectors.
      source: a split with 'factors'.
      **examples: see `Examples`; the key is that of the transform.
    """
    terms = trained.map_examples(means_of, source, beside=("factors",), **examples)
    factors = np.asarray(terms["factors"])
    varies = factors.min(0) < factors.max(0)
    if not varies.any():
        return None
    scored = scores(terms["code"], factors[:, varies])
    return dataclasses.replace(scored, num_constant=int(np.sum(~varies)))


def disentanglement_metrics(scored: Disentanglement) -> dict[str, Metric]:
    """Returns the scores for a report.

    Args:
      scored: from `evaluate_disentanglement`.
    """
    values, count, more = registry.values(scored), scored.num_examples, ""
    if scored.num_constant:
        more = f"; factors left out, as they do not vary: {scored.num_constant}"
    return {
        name: Metric.score(label, values[name], meaning + more, count)
        for name, (label, meaning) in LABELS.items()
    }


def scores(codes: np.ndarray, factors: np.ndarray, seed: int = 0) -> Disentanglement:
    """Returns all scores.

    Args:
      codes: [N, D].
      factors: [N, K] integers from 0, each with at least two values.
      seed: of halves, forests and votes.

    Raises:
      ConfigError: shapes that do not fit.
    """
    codes, factors = np.asarray(codes, np.float64), np.asarray(factors)
    fits = codes.ndim == factors.ndim == 2 and len(codes) == len(factors)
    shapes = (codes.shape, factors.shape)
    require(fits, "codes and factors", "be [N, D] and [N, K]", shapes)
    order = np.random.default_rng(seed).permutation(len(codes))
    half = min(len(codes) // 2, MAX_FITTED)
    train, test = order[:half], order[half : 2 * half]
    parts = (codes[train], factors[train], codes[test], factors[test])
    importance, accuracy = forest_importance(*parts, seed=seed)
    return Disentanglement(
        mig=mutual_information_gap(codes, factors),
        sap=gap(attribute_accuracy(*parts)),
        disentanglement=disentanglement(importance),
        completeness=completeness(importance),
        informativeness=accuracy,
        factor_vae=factor_vae_score(codes, factors, seed=seed),
        num_examples=len(codes),
    )


def discrete_entropy(values: np.ndarray) -> float:
    """Returns the entropy in nats of whole numbers [N], as often as each is there."""
    _, counts = np.unique(values, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the mutual information in nats of whole numbers [N] and [N]."""
    _, joint = np.unique(np.stack([a, b], 1), axis=0, return_inverse=True)
    joint_entropy = discrete_entropy(joint.reshape(-1))
    return discrete_entropy(a) + discrete_entropy(b) - joint_entropy


def binned(codes: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Returns codes [N, D] as whole numbers, bins of equal width for each dimension."""
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, (high - low) / num_bins, 1.0)
    return np.minimum((codes - low) // width, num_bins - 1).astype(int)


def mutual_information_gap(codes: np.ndarray, factors: np.ndarray) -> float:
    """Returns MIG: how much more of a factor its best dimension has than the next.

    Mean over factors of the difference of the two largest mutual informations with a
    dimension, over the factor's entropy. Chen et al., 2018,
    https://arxiv.org/abs/1802.04942.

    Args:
      codes: [N, D].
      factors: [N, K].
    """
    rows = [
        [mutual_information(z, v) / discrete_entropy(v) for v in factors.T]
        for z in binned(codes).T
    ]
    return gap(np.array(rows))


def gap(table: np.ndarray) -> float:
    """Returns the mean over columns of the largest entry less the next, [D, K]."""
    padded = np.concatenate([table, np.zeros_like(table[:1])])  # if D is 1
    ordered = np.sort(padded, axis=0)
    return float((ordered[-1] - ordered[-2]).mean())


def attribute_accuracy(
    codes: np.ndarray,
    factors: np.ndarray,
    test_codes: np.ndarray,
    test_factors: np.ndarray,
) -> np.ndarray:
    """Returns [D, K], how well thresholds on one dimension tell a factor.

    What SAP is the gap of: test accuracy above that of the commonest value, in units of
    what there is to gain, so that factors of few and of many values count alike, and 0
    where nothing is gained. The thresholds are one fewer than the values. Kumar et
    al., 2018, https://arxiv.org/abs/1711.00848, have the plain accuracy.

    Args:
      codes: [N, D], fitted to.
      factors: [N, K].
      test_codes: [M, D].
      test_factors: [M, K].
    """
    from sklearn.tree import DecisionTreeClassifier

    table = np.zeros((codes.shape[1], factors.shape[1]))
    for k, values in enumerate(factors.T):
        chance = np.mean(test_factors[:, k] == np.bincount(values).argmax())
        leaves = max(2, len(np.unique(values)))
        for d in range(len(table)):
            tree = DecisionTreeClassifier(max_leaf_nodes=leaves, random_state=0)
            tree.fit(codes[:, [d]], values)
            accuracy = tree.score(test_codes[:, [d]], test_factors[:, k])
            table[d, k] = max(0.0, (accuracy - chance) / max(1.0 - chance, 1e-9))
    return table


def forest_importance(
    codes: np.ndarray,
    factors: np.ndarray,
    test_codes: np.ndarray,
    test_factors: np.ndarray,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """Returns ([D, K], importance of a dimension for a factor; mean test accuracy).

    Of random forests, one for each factor.

    Args:
      codes: [N, D], fitted to.
      factors: [N, K].
      test_codes: [M, D].
      test_factors: [M, K].
      seed: of the forests.
    """
    from sklearn.ensemble import RandomForestClassifier

    columns, accuracies = [], []
    for values, test_values in zip(factors.T, test_factors.T, strict=True):
        forest = RandomForestClassifier(NUM_TREES, max_features=None, random_state=seed)
        forest.fit(codes, values)
        columns.append(forest.feature_importances_)
        accuracies.append(forest.score(test_codes, test_values))
    return np.stack(columns, 1), float(np.mean(accuracies))


def disentanglement(importance: np.ndarray) -> float:
    """Returns DCI's D: 1 if every dimension stands for one factor.

    1 - entropy over factors in units of log K, mean over dimensions by importance.
    Eastwood & Williams, 2018, https://openreview.net/forum?id=By-7dz-AZ.

    Args:
      importance: [D, K], at least 0.
    """
    return _concentration(np.abs(importance))


def completeness(importance: np.ndarray) -> float:
    """Returns DCI's C: 1 if every factor stands in one dimension; as above."""
    return _concentration(np.abs(importance).T)


def _concentration(rows: np.ndarray) -> float:
    total = rows.sum()
    if total == 0.0:
        return 0.0
    sums = rows.sum(1, keepdims=True)
    share = rows / np.where(sums > 0.0, sums, 1.0)
    logs = np.log(np.where(share > 0.0, share, 1.0))
    spread = -(share * logs).sum(1) / np.log(max(rows.shape[1], 2))
    return float(((1.0 - spread) * sums[:, 0]).sum() / total)


def factor_vae_score(
    codes: np.ndarray,
    factors: np.ndarray,
    seed: int = 0,
    num_votes: tuple[int, int] = NUM_VOTES,
) -> float:
    """Returns how well the dimension that varies the least tells what was fixed.

    A vote: examples that share the value of one factor, and the dimension whose
    variance over them is the smallest part of its variance over all. A classifier takes
    for every dimension the factor that it stands for most often. Kim & Mnih, 2018,
    https://arxiv.org/abs/1802.05983.

    Args:
      codes: [N, D].
      factors: [N, K].
      seed: of the votes.
      num_votes: that the classifier is made of, and tested on.
    """
    rng = np.random.default_rng(seed)
    variances = codes.var(0)
    (used,) = np.nonzero(variances > MIN_VARIANCE)
    if not used.size:
        return 0.0
    scaled = codes[:, used] / np.sqrt(variances[used])
    places = [[np.flatnonzero(v == x) for x in np.unique(v)] for v in factors.T]

    def votes(count: int) -> np.ndarray:
        """Returns [D, K], how often a dimension varied least where k was fixed."""
        table = np.zeros((len(used), len(places)))
        for k in rng.integers(len(places), size=count):
            # By how often values are there: that of an example drawn from all.
            drawn = factors[rng.integers(len(codes)), k]
            value = np.searchsorted(np.unique(factors[:, k]), drawn)
            batch = scaled[rng.choice(places[k][value], VOTE_BATCH)]
            table[batch.var(0).argmin(), k] += 1
        return table

    vote = votes(num_votes[0]).argmax(1)
    tested = votes(num_votes[1])
    return float(tested[np.arange(len(used)), vote].sum() / tested.sum())
