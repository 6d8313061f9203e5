"""The information bottleneck: a label is to be told from z, and z to say little of x.

E KL(q(z|x) || p(z)) >= I(x; z) and H(y) - E[-log p(y|z)] <= I(z; y), so the objective
bounds what is kept of x from above, and what is known of y from below.

Alemi et al., 2017, https://arxiv.org/abs/1612.00410; Su, 2018,
https://kexue.fm/archives/6181.
"""

from __future__ import annotations

import math

import chex
import jax.numpy as jnp

from jvae.contract import Model
from jvae.distributions import Categorical, data_log_prob
from jvae.errors import ConfigError
from jvae.losses.objective import apply_to_rows, masked_mean, objective, require_kind
from jvae.types import Array, Aux, Batch, Coefficients, Inference, Key, Params, State

LN_2 = math.log(2.0)


def bottleneck_terms(
    params: Params, state: State, key: Key, batch: Batch, *, model, train: bool = True
) -> tuple[Array, Array, Inference, State]:
    """Returns (log p(y|z) [B], [B, K] logits, the draw and its KL, state).

    The per-example form of `information_bottleneck`.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: one key, or [B] keys, one per example.
      batch: what the model reads, and 'label' [B], integers 0 .. K - 1.
      model: offers `infer` and `likelihood`, a Categorical over labels.
      train: whether BatchNorm uses, and updates, batch statistics.

    Raises:
      ConfigError: there are no labels, or the likelihood is no Categorical.
    """
    if "label" not in batch:
        raise ConfigError(
            "label is missing for loss 'bottleneck'", fix="Give batch['label'], [B]."
        )

    def infer_and_score(model, batch, key):
        inference = model.infer(batch, key)
        likelihood = model.likelihood(inference.latents, batch)
        needed = "a likelihood that is a Categorical over labels"
        fits = isinstance(likelihood, Categorical)
        require_kind(fits, "loss 'bottleneck'", needed, likelihood)
        chex.assert_rank(likelihood.logits, 2)
        log_p = data_log_prob(likelihood, batch["label"])
        return log_p, likelihood.logits, inference

    arguments = (params, state, key, batch)
    terms, state = apply_to_rows(model, infer_and_score, *arguments, train=train)
    return *terms, state


def _check(*, model: Model) -> None:
    """Raises ConfigError unless labels are what the model scores."""
    if model.target != "label":
        raise ConfigError(
            "loss 'bottleneck' needs a model whose target is 'label', that of "
            f"{type(model).__name__} is {model.target!r}",
            fix="Use a classifier, or loss 'elbo'.",
        )


@objective(coefficients={"beta": 1e-3, "capacity": 0.0}, check=_check)
def information_bottleneck(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    coefficients: Coefficients,
    *,
    model: Model,
    train: bool = True,
) -> tuple[Array, Aux]:
    """Returns E_q[-log p(y|z)] + beta KL(q(z|x) || p(z)), one draw per example.

    An upper bound on E[-log p(y|x)] + beta I(x; z), with p(y|x) = E_q p(y|z). At
    beta = 0 it is the cross-entropy of a classifier that is given noisy codes: noise
    stays unless the model makes its variance 0. Couples the batch only through a model
    that has BatchNorm.

    Alemi et al., 2017, https://arxiv.org/abs/1612.00410; capacity: Su, 2018,
    https://kexue.fm/archives/6181.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: key of the draws; example i uses key i of `split(key, B)`.
      batch: what the model reads, and 'label' [B], integers 0 .. K - 1. Rows where
        'mask' [B] is False do not count.
      coefficients: 'beta', 'capacity', scalars.
      model: offers `infer`, `likelihood` (a Categorical with logits [B, K]) and the
        target 'label'.
      train: whether BatchNorm uses, and updates, batch statistics.
      beta: weight of the rate.
      capacity: if positive, nats that the log ratio log q(z|x) - log p(z) at the draw
        may have for nothing: beta max(log ratio - capacity, 0) in place of the rate.

    Returns:
      (loss, aux): a scalar in nats per example; aux.metrics holds 'log_likelihood'
      (minus the cross-entropy) and 'kl' (the rate), unweighted, both also in bits as
      'cross_entropy_bits' and 'kl_bits', and 'accuracy' of the draw in [0, 1].

    Raises:
      ConfigError: a model that does not score labels, or a batch without them.
    """
    log_likelihood, logits, inference, state = bottleneck_terms(
        params, state, key, batch, model=model, train=train
    )
    rate, capacity = inference.kl.sum(-1), coefficients["capacity"]
    excess = jnp.maximum(inference.log_ratio - capacity, 0.0)
    penalty = jnp.where(capacity > 0, excess, rate)
    loss = masked_mean(coefficients["beta"] * penalty - log_likelihood, batch)
    correct = (logits.argmax(-1) == batch["label"]).astype(log_likelihood.dtype)
    fit, mean_rate = masked_mean(log_likelihood, batch), masked_mean(rate, batch)
    metrics = {
        "loss": loss,
        "log_likelihood": fit,
        "kl": mean_rate,
        "cross_entropy_bits": -fit / LN_2,
        "kl_bits": mean_rate / LN_2,
        "accuracy": masked_mean(correct, batch),
    }
    return loss, Aux(metrics, state)


def label_information(log_likelihood: Array, label: Array, num_classes: int) -> Array:
    """Returns H(y) - E[-log p(y|z)] in nats, a lower bound on I(z; y).

    At most H(y), which is estimated by the frequencies of the labels at hand; below 0
    for a classifier that is worse than knowing them. An array-level function of a whole
    data set: under pmap or shard_map gather first.

    Args:
      log_likelihood: [N], log p(y|z) at a draw of z for every example.
      label: [N], integers 0 .. num_classes - 1.
      num_classes: K.
    """
    chex.assert_equal_shape([log_likelihood, label])
    counts = jnp.bincount(label, length=num_classes)
    shares = counts.astype(log_likelihood.dtype) / label.shape[0]
    logs = jnp.log(jnp.where(shares > 0, shares, 1.0))
    return log_likelihood.mean() - (shares * logs).sum()
