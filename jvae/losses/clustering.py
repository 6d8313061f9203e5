"""The bound of a VAE with clusters, and a term that keeps the clusters in use."""

from __future__ import annotations

import math

import chex
import jax.numpy as jnp

from jvae.contract import Model
from jvae.losses.elbo import elbo_terms
from jvae.losses.objective import (
    apply_model,
    bound_terms,
    masked_mean,
    objective,
    require_kind,
)
from jvae.types import Array, Aux, Batch, Coefficients, Key, Params, State


def entropy(log_probs: Array) -> Array:
    """Returns -sum_y p_y log p_y over the last axis, in nats; 0 log 0 is 0."""
    probs = jnp.exp(log_probs)
    return -jnp.where(probs > 0.0, probs * log_probs, 0.0).sum(-1)


def cluster_imbalance(log_probs: Array, mask: Array | None = None) -> Array:
    """Returns log K - H(mean over the batch of q(y|z)), in nats: 0 to log K.

    0 where every cluster has the same share of the batch, log K where one has it all.

    An array-level function that couples the batch: under pmap or shard_map gather the
    log probabilities ([B, K]) first, a mean over devices of their own values is larger.

    Args:
      log_probs: [B, K], log q(y|z).
      mask: [B] bool; rows that are False do not count.
    """
    chex.assert_rank(log_probs, 2)
    is_real = jnp.ones(len(log_probs), bool) if mask is None else mask.astype(bool)
    # Before exp, too: a padding row may hold nan, whose gradient 0 * nan is nan.
    probs = jnp.exp(jnp.where(is_real[:, None], log_probs, 0.0))
    total = jnp.where(is_real[:, None], probs, 0.0).sum(0)
    share = total / jnp.maximum(is_real.sum(), 1).astype(total.dtype)
    used = share > 0.0
    # log of 1 in place of 0 keeps the gradient of an empty cluster finite.
    log_share = jnp.log(jnp.where(used, share, 1.0))
    return math.log(log_probs.shape[-1]) + (share * log_share).sum()


def _check(*, model: Model) -> None:
    """Raises ConfigError unless the model has clusters."""
    has_some = model.offers("cluster_log_probs")
    fix = "Set model.clusters, or use loss 'elbo'."
    require_kind(has_some, "loss 'cluster_elbo'", "a model with clusters", model, fix)


@objective(coefficients={"beta": 1.0, "balance": 0.0}, check=_check)
def negative_cluster_elbo(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    coefficients: Coefficients,
    *,
    model: Model,
    train: bool = True,
) -> tuple[Array, Aux]:
    """Returns E_q[-log p(x|z)] + beta KL(q(z, y|x) || p(z, y)) + balance (log K - H).

    The KL is sum_y q(y|z) log q(z|x) / p(z|y) + KL(q(y|z) || p(y)) at one draw z per
    example, y summed over. H is the entropy of the mean of q(y|z) over the batch: the
    KL pulls every single q(y|z) to p(y), this term pulls only their mean to uniform.
    At balance 0 the value is that of `negative_elbo`.

    Pure: the value depends on the arguments only and names no mapped axis. A bound on
    -log p(x) if beta >= 1, as the last term is never negative. Couples the batch if
    balance > 0: under pmap the term is that of each device's own rows.

    Su, 2018, https://kexue.fm/archives/5887; with responsibilities Jiang et al., 2017,
    https://arxiv.org/abs/1611.05148. Balance: Krause et al., 2010, Discriminative
    clustering by regularized information maximization.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: key of the draws; example i uses key i of `split(key, B)`.
      batch: what the model reads. Rows where 'mask' [B] is False do not count.
      coefficients: 'beta', 'balance', scalars; {} for the plain bound.
      model: offers `infer` with latents z [B, D], `likelihood`, `target`, and
        `cluster_log_probs(z)`, log q(y|z) [B, K].
      train: whether BatchNorm uses, and updates, batch statistics.
      beta: weight of the KL term.
      balance: weight of log K - H, the imbalance of the clusters in the batch.

    Returns:
      (loss, aux): nats per example; aux.metrics holds 'elbo', 'log_likelihood', 'kl',
      'imbalance', unweighted, and 'assignment_entropy', the mean entropy of q(y|z).

    Raises:
      ConfigError: a model without clusters.
    """
    log_likelihood, inference, new_state = elbo_terms(
        params, state, key, batch, model=model, train=train
    )
    kl, z = inference.kl.sum(-1), inference.latents
    log_y, _ = apply_model(model, "cluster_log_probs", params, state, z, train=False)
    imbalance = cluster_imbalance(log_y, batch.get("mask"))
    bound = masked_mean(coefficients["beta"] * kl - log_likelihood, batch)
    loss = bound + coefficients["balance"] * imbalance
    metrics = bound_terms(loss, log_likelihood, kl, batch)
    metrics["imbalance"] = imbalance
    metrics["assignment_entropy"] = masked_mean(entropy(log_y), batch)
    return loss, Aux(metrics, new_state)
