"""How far the aggregate posterior is from a prior N(0, I), by numbers without a cap.

The mixture of N posteriors shows at most log N nats of information, and counts what is
over that cap as KL(q(z) || p(z)). These numbers need no mixture: they take the codes,
one draw of each posterior, as the draws of q(z) that they are.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma

SEED = 2**34
"""Of draws of the prior and of the split into halves; not a seed that a run has."""
MAX_CODES = 4_000
"""Of which the classifier learns from half."""
MIN_CODES = 50
"""Of fewer a held-out half says little."""


def moment_kl(codes: np.ndarray) -> float:
    """Returns KL(N(m, S) || N(0, I)) in nats, m and S the codes' mean and covariance.

    A Gaussian has the most entropy of all distributions with its moments, so this is
    at most KL(q(z) || N(0, I)). Codes that are draws of N(0, I) have `moment_kl_bias`.

    Args:
      codes: [N, D], N > D.
    """
    rows = np.asarray(codes, np.float64)
    mean, dims = rows.mean(0), rows.shape[1]
    covariance = np.cov(rows.T, bias=True).reshape(dims, dims)
    log_det = np.linalg.slogdet(covariance)[1]
    return float(0.5 * (np.trace(covariance) + mean @ mean - dims - log_det))


def moment_kl_bias(num_codes: int, dims: int) -> float:
    """Returns what `moment_kl` is in the mean of N > D draws of N(0, I) in nats.

    Half of minus E log det S, N S Wishart of N - 1 degrees of freedom; about
    D (D + 3) / 4 N of many draws.
    """
    half = 0.5 * (num_codes - np.arange(1, dims + 1))
    return float(0.5 * (np.log(0.5 * num_codes) - digamma(half)).sum())


def two_sample_accuracy(codes: np.ndarray) -> tuple[float, int]:
    """Returns (accuracy, count) of a classifier between codes and draws of N(0, I).

    The classifier two-sample test of Lopez-Paz & Oquab, 2017,
    https://arxiv.org/abs/1610.06545: a forest of extremely randomised trees (Geurts et
    al., 2006, https://doi.org/10.1007/s10994-006-6226-1) learns from half of the codes
    and as many draws, and decides about `count` others. 0.5 where q(z) cannot be told
    from the prior.

    Args:
      codes: [N, D].
    """
    from sklearn.ensemble import ExtraTreesClassifier

    rng = np.random.default_rng(SEED)
    rows = rng.permutation(np.asarray(codes, np.float64))[:MAX_CODES]
    half = len(rows) // 2
    prior = rng.standard_normal((2 * half, rows.shape[1]))

    label = np.repeat([0, 1], half)
    learned = np.concatenate([rows[:half], prior[:half]])
    held_out = np.concatenate([rows[half : 2 * half], prior[half:]])
    forest = ExtraTreesClassifier(min_samples_leaf=3, random_state=0)
    forest.fit(learned, label)
    return float(forest.score(held_out, label)), 2 * half
