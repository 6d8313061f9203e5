"""The evidence lower bound and the KL to the prior."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from jvae.contract import Model
from jvae.distributions import data_log_prob
from jvae.losses.objective import apply_to_rows, bound_terms, masked_mean, objective
from jvae.types import Array, Aux, Batch, Coefficients, Inference, Key, Params, State

KlEstimate = Literal["closed_form", "monte_carlo"]
FreeBitsOver = Literal["groups", "total"]


def elbo_terms(
    params: Params, state: State, key: Key, batch: Batch, *, model, train: bool = True
) -> tuple[Array, Inference, State]:
    """Returns (log p(x|z) [B], the draw and its KL, state), one draw per example.

    The per-example form of `negative_elbo`: `log_likelihood - inference.kl.sum(-1)`
    is a draw of each example's bound in nats.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: one key, or [B] keys, one per example.
      batch: what the model reads; its `target` [B, ...] is scored.
      model: offers `infer`, `likelihood` and `target`.
      train: whether BatchNorm uses, and updates, batch statistics.
    """

    def infer_and_score(model, batch, key):
        inference = model.infer(batch, key)
        likelihood = model.likelihood(inference.latents, batch)
        return data_log_prob(likelihood, batch[model.target]), inference

    (log_likelihood, inference), state = apply_to_rows(
        model, infer_and_score, params, state, key, batch, train=train
    )
    return log_likelihood, inference, state


def _penalized_kl(kl: Array, coefficients: Coefficients, free_bits_over: str) -> Array:
    """Returns [B]: the KL with free bits and capacity applied, before beta."""
    free_bits, capacity = coefficients["free_bits"], coefficients["capacity"]
    if free_bits_over == "total":
        kl = kl.sum(-1, keepdims=True)
    # A Monte Carlo KL may be negative, so no free bits is not the maximum with 0.
    kl = jnp.where(free_bits > 0, jnp.maximum(kl, free_bits), kl).sum(-1)
    return jnp.where(capacity > 0, jnp.abs(kl - capacity), kl)


@objective(
    coefficients={"beta": 1.0, "free_bits": 0.0, "capacity": 0.0},
    needs=("infer", "likelihood"),
)
def negative_elbo(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    coefficients: Coefficients,
    *,
    model: Model,
    kl_estimate: KlEstimate = "closed_form",
    free_bits_over: FreeBitsOver = "groups",
    train: bool = True,
) -> tuple[Array, Aux]:
    """Returns E_q[-log p(x|z)] + beta KL(q(z|x) || p(z)), one draw per example.

    Pure: the value depends on the arguments only and names no mapped axis. A bound on
    -log p(x) if beta >= 1 and capacity is 0. Couples the batch only through a model
    that has BatchNorm. `aux.metrics['elbo']` is the bound itself, whatever beta.

    Kingma & Welling, 2013, https://arxiv.org/abs/1312.6114; beta: Higgins et al.,
    2017, https://openreview.net/forum?id=Sy2fzU9gl; free bits: Kingma et al., 2016,
    https://arxiv.org/abs/1606.04934; capacity: Burgess et al., 2018,
    https://arxiv.org/abs/1804.03599.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: key of the draws; example i uses key i of `split(key, B)`.
      batch: what the model reads; 'image' [B, H, W, C] in the support of the
        likelihood, for an image model. Rows where 'mask' [B] is False do not count.
      coefficients: 'beta', 'free_bits', 'capacity', scalars; {} for the plain bound.
      model: offers `infer`, `likelihood` and `target`.
      kl_estimate: 'closed_form' where the model has one, or 'monte_carlo', log q(z|x)
        - log p(z) at the draw (the same expectation with more noise).
      free_bits_over: whether every group of latents ('groups': the dimensions of a
        diagonal posterior) or their sum ('total') costs at least `free_bits` nats, of
        each example; a 'monte_carlo' KL has no groups, and it is the sum.
      train: whether BatchNorm uses, and updates, batch statistics.
      beta: weight of the KL term.
      free_bits: nats per example that a group (or the total) may cost for nothing.
      capacity: if positive, nats that the KL is pulled to, |KL - capacity|.

    Returns:
      (loss, aux): a scalar in nats per example; aux.metrics holds 'elbo',
      'log_likelihood' and 'kl', unweighted; aux.state the updated collections.
    """
    log_likelihood, inference, state = elbo_terms(
        params, state, key, batch, model=model, train=train
    )
    kl = inference.kl
    if kl_estimate == "monte_carlo":
        kl = inference.log_ratio[:, None]
    penalty = _penalized_kl(kl, coefficients, free_bits_over)
    total = kl.sum(-1)
    loss = masked_mean(coefficients["beta"] * penalty - log_likelihood, batch)
    return loss, Aux(bound_terms(loss, log_likelihood, total, batch), state)


@objective(needs=("infer",))
def prior_kl(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    coefficients: Coefficients,
    *,
    model: Model,
    kl_estimate: KlEstimate = "closed_form",
    train: bool = True,
) -> tuple[Array, Aux]:
    """Returns the mean of KL(q(z|x) || p(z)) over the batch, in nats per example.

    The rate of the model: an upper bound on the information between x and z. Does not
    run the decoder.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: key of the draws (unused by a closed form with one group of latents).
      batch: what the model's `infer` reads.
      coefficients: none, {}.
      model: offers `infer`.
      kl_estimate: 'closed_form' where the model has one, or 'monte_carlo'.
      train: whether BatchNorm uses, and updates, batch statistics.

    Returns:
      (loss, aux) with metrics 'kl', and 'loss', which is the same.
    """

    def infer(model, batch, key):
        return model.infer(batch, key)

    arguments = (params, state, key, batch)
    inference, state = apply_to_rows(model, infer, *arguments, train=train)
    per_example = inference.kl.sum(-1)
    if kl_estimate == "monte_carlo":
        per_example = inference.log_ratio
    kl = masked_mean(per_example, batch)
    return kl, Aux({"loss": kl, "kl": kl}, state)
