"""The objective of deep hierarchies: balanced groups, and smooth networks."""

from __future__ import annotations

from typing import Annotated

import chex
import jax
import jax.numpy as jnp

from jvae.contract import Model
from jvae.errors import ConfigError
from jvae.layers.spectral import power_iteration
from jvae.losses.elbo import elbo_terms
from jvae.losses.objective import apply_model, bound_terms, masked_mean, objective
from jvae.ranges import Gt
from jvae.types import (
    Array,
    Aux,
    Batch,
    Coefficients,
    Key,
    Params,
    State,
    float_dtype,
)

SPECTRAL = "spectral"
"""Collection of a model that has vectors of power iterations."""
ITERATIONS = 4
"""Of the vectors, at every step."""


def balance(kl: Array, weights: Array, mask: Array | None = None) -> Array:
    """Returns [L] factors on the KL of every group, of mean 1 and without gradient.

    (K_l / a_l) / mean_m (K_m / a_m), K_l = mean |KL_l| + 0.01: groups that carry little
    cost little, and are not switched off while the others learn.

    An array-level function that couples the batch: under pmap or shard_map each device
    balances by its own rows; gather `kl` first for those of all.

    Vahdat & Kautz, 2020, https://arxiv.org/abs/2007.03898, as their code has it.

    Args:
      kl: [B, L], nats.
      weights: a, [L], positive.
      mask: [B] bool; rows that are False do not count.
    """
    chex.assert_rank(kl, 2)
    chex.assert_shape(weights, kl.shape[1:])
    kl = jax.lax.stop_gradient(kl)
    is_real = jnp.ones(len(kl), bool) if mask is None else mask.astype(bool)
    total = jnp.where(is_real[:, None], jnp.abs(kl), 0.0).sum(0)
    count = jnp.maximum(is_real.sum(), 1).astype(kl.dtype)
    share = (total / count + 0.01) / weights
    return share / share.mean()


def spectral_penalty(
    kernels: dict[str, Array], left: dict[str, Array], scales: dict[str, Array]
) -> tuple[Array, Array, dict[str, Array]]:
    """Returns (sum of largest singular values, sum of largest scales, new vectors).

    Args:
      kernels: by name [K, O, I], as matrices.
      left: by name [K, O], the vectors of the step before.
      scales: by name [K, C], of BatchNorm.
    """
    values, left = power_iteration(kernels, left, ITERATIONS)
    zero = jnp.zeros((), float_dtype(kernels))
    spectral = sum((value.sum() for value in values.values()), zero)
    largest = (jnp.abs(scale).max(-1).sum() for scale in scales.values())
    return spectral, sum(largest, zero), left


@objective(
    coefficients={"beta": 1.0, "smoothness": 0.0},
    needs=("infer", "likelihood", "conv_kernels", "norm_scales", "group_weights"),
)
def negative_hierarchical_elbo(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    coefficients: Coefficients,
    *,
    model: Model,
    smoothness_start: Annotated[float, Gt(0)] | None = None,
    balanced: bool = True,
    train: bool = True,
) -> tuple[Array, Aux]:
    """Returns E[-log p(x|z)] + beta sum_l c_l KL_l + smoothness (sum s_i + sum |g_j|).

    c are the factors of `balance` while beta < 1, and 1 from then on. s_i is the
    largest singular value of the kernel of convolution i, a matrix of its outputs by
    all else, estimated by power iterations from the vectors in `state`; |g_j| the
    largest scale of BatchNorm j.

    Pure: the value depends on the arguments only and names no mapped axis. A bound on
    -log p(x) at beta = 1, as the penalty is never negative. Couples the batch through
    BatchNorm and, while beta < 1, `balance`. With balanced=False and smoothness 0 the
    value is that of `negative_elbo`.

    Vahdat & Kautz, 2020, https://arxiv.org/abs/2007.03898; spectral regularisation:
    Yoshida & Miyato, 2017, https://arxiv.org/abs/1705.10941, here not squared.

    Args:
      params: parameters of `model`.
      state: its other collections; 'spectral' holds the vectors.
      key: key of the draws; example i uses key i of `split(key, B)`.
      batch: what the model reads. Rows where 'mask' [B] is False do not count.
      coefficients: 'beta', 'smoothness', scalars; {} for the plain bound.
      model: offers `infer` with one KL per group, `likelihood`, `conv_kernels`,
        `norm_scales` and `group_weights`.
      smoothness_start: weight of the penalty at beta = 0; in between it is
        exp((1 - beta) log start + beta log smoothness). None for `smoothness` always.
      balanced: whether the groups are balanced while beta < 1.
      train: whether BatchNorm uses, and updates, batch statistics.
      beta: weight of the KL terms.
      smoothness: weight of the penalty on kernels and scales.

    Returns:
      (loss, aux): nats per example; aux.metrics holds 'elbo', 'log_likelihood', 'kl',
      'spectral_norms' and 'norm_scales', sums over layers, unweighted; aux.state the
      updated collections.

    Raises:
      ConfigError: a model without these, or without the collection 'spectral'.
    """
    if SPECTRAL not in state:
        raise ConfigError("state must hold the collection 'spectral', as `init` has it")

    beta = jnp.asarray(coefficients["beta"])
    log_likelihood, inference, new_state = elbo_terms(
        params, state, key, batch, model=model, train=train
    )

    kl = inference.kl
    factors = jnp.ones(kl.shape[1], kl.dtype)
    if balanced:
        weights = jnp.asarray(model.group_weights, kl.dtype)
        factors = jnp.where(beta < 1.0, balance(kl, weights, batch.get("mask")), 1.0)
    bound = masked_mean(beta * (kl @ factors) - log_likelihood, batch)

    kernels, scales = (
        apply_model(model, method, params, {}, train=False)[0]
        for method in ("conv_kernels", "norm_scales")
    )
    spectral, largest, left = spectral_penalty(kernels, state[SPECTRAL]["left"], scales)
    weight = _annealed(coefficients["smoothness"], smoothness_start, beta)
    loss = bound + weight * (spectral + largest)

    if train:
        new_state = {**new_state, SPECTRAL: {"left": left}}
    metrics = bound_terms(loss, log_likelihood, kl.sum(-1), batch)
    metrics |= {"spectral_norms": spectral, "norm_scales": largest}
    return loss, Aux(metrics, new_state)


def _annealed(end: Array | float, start: float | None, beta: Array) -> Array:
    """Returns the weight of the penalty, whose logarithm goes by beta."""
    if start is None:
        return jnp.asarray(end)
    log_start, log_end = jnp.log(start), jnp.log(jnp.maximum(end, 1e-12))
    return jnp.exp((1.0 - beta) * log_start + beta * log_end)
