"""Codes that say much of their x, and look like the prior, learned without a decoder.

A critic tells pairs (a view of x, z of the same x) from pairs with the z of another x;
how well it does is a bound on what z says of the view.

Hjelm et al., 2019, https://arxiv.org/abs/1808.06670; Su, 2018,
https://kexue.fm/archives/6024.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

import chex
import jax
import jax.numpy as jnp

from jvae import keys
from jvae.contract import Model
from jvae.errors import ConfigError, require
from jvae.losses.objective import apply_to_rows, masked_mean, objective
from jvae.ranges import Ge
from jvae.types import Array, Aux, Batch, Coefficients, Key, Params, State, batch_size

Estimator = Literal["jensen_shannon", "info_nce", "donsker_varadhan"]
KlOver = Literal["sum", "mean"]


def jensen_shannon(
    positive: Array, negative: Array, mask: Array | None = None
) -> Array:
    """Returns E log s(T) + E log(1 - s(T')), s the sigmoid, T of true and T' of false.

    At most 2 JS - 2 log 2, where JS <= log 2 is the Jensen-Shannon divergence of true
    and false pairs, and equal to it at T = log p(true) / p(false). -2 log 2 for T = 0.
    No number of nats of mutual information.

    Args:
      positive: [B, ...], T of true pairs; averaged over all but the first axis.
      negative: [N, B, ...], T' of N false pairs for each example.
      mask: [B] bool; rows that are False do not count.
    """
    _check_scores(positive, negative)
    each = -jax.nn.softplus(-positive) - jax.nn.softplus(negative).mean(0)
    return _mean(each, mask)


def info_nce(positive: Array, negative: Array, mask: Array | None = None) -> Array:
    """Returns E[T - log (e^T + sum_n e^T'_n) / (N + 1)], T of true and T' of false.

    At most the mutual information in nats, and at most log(N + 1); 0 for a constant T.
    Van den Oord et al., 2018, https://arxiv.org/abs/1807.03748; Poole et al., 2019,
    https://arxiv.org/abs/1905.06922.

    Args:
      positive: [B, ...], T of true pairs; averaged over all but the first axis.
      negative: [N, B, ...], T' of N false pairs for each example.
      mask: [B] bool; rows that are False do not count.
    """
    _check_scores(positive, negative)
    scores = jnp.concatenate([positive[None], negative])
    each = positive - jax.nn.logsumexp(scores, axis=0) + math.log(len(scores))
    return _mean(each, mask)


def donsker_varadhan(
    positive: Array, negative: Array, mask: Array | None = None
) -> Array:
    """Returns E T - log E e^T', T of true and T' of false pairs.

    At most the mutual information in nats if the expectations are exact; 0 for a
    constant T. Of a batch the logarithm is too small on average, so the value may
    exceed it. Donsker & Varadhan, 1983, https://doi.org/10.1002/cpa.3160360204;
    Belghazi et al., 2018, https://arxiv.org/abs/1801.04062.

    Args:
      positive: [B, ...], T of true pairs; each place of the other axes is a bound of
        its own, and their mean is returned.
      negative: [N, B, ...], T' of N false pairs for each example.
      mask: [B] bool; rows that are False do not count.
    """
    _check_scores(positive, negative)
    is_real = jnp.ones(len(positive), bool) if mask is None else mask.astype(bool)
    counted = jnp.where(
        is_real.reshape(1, -1, *(1,) * (negative.ndim - 2)), negative, -jnp.inf
    )
    count = (negative.shape[0] * jnp.maximum(is_real.sum(), 1)).astype(negative.dtype)
    log_mean = jax.nn.logsumexp(counted, axis=(0, 1)) - jnp.log(count)
    return _mean(positive, mask) - log_mean.mean()


ESTIMATORS: dict[str, Callable[..., Array]] = {
    "jensen_shannon": jensen_shannon,
    "info_nce": info_nce,
    "donsker_varadhan": donsker_varadhan,
}


def _check_scores(positive: Array, negative: Array) -> None:
    chex.assert_equal_shape([positive, negative[0]])


def _mean(values: Array, mask: Array | None) -> Array:
    """Returns the mean of [B, ...] over the rows that the mask keeps."""
    per_example = values.reshape(values.shape[0], -1).mean(-1)
    return masked_mean(per_example, {} if mask is None else {"mask": mask})


def in_batch_negatives(
    key: Key, num_examples: int, num_negatives: int, mask: Array | None = None
) -> Array:
    """Returns [N, B], for each example N others of the batch, all different.

    Example i gets i + s, i + s + 1, ... around the batch, past itself and past rows of
    padding, with s drawn: never itself, as a shuffle would give one in the mean.
    Every example is somebody's partner N times.

    Args:
      key: of s.
      num_examples: B.
      num_negatives: N, at most B - 1; where the mask leaves no more than N rows some
        come twice.
      mask: [B] bool; rows that are False are nobody's partner.
    """
    is_real = jnp.ones(num_examples, bool) if mask is None else mask.astype(bool)
    count = jnp.maximum(is_real.sum(), 1)
    # Bits, not a number below B: padding must not change which partners are drawn.
    bits = jax.random.bits(key, dtype=jnp.uint32) >> 1
    shift = bits.astype(jnp.int32) % jnp.maximum(count - 1, 1)
    steps = 1 + (shift + jnp.arange(num_negatives)) % jnp.maximum(count - 1, 1)
    rank = jnp.cumsum(is_real) - 1
    places = jnp.argsort(~is_real, stable=True)  # rows that count come first
    return places[(rank[None, :] + steps[:, None]) % count]


def _scores(model: Any, batch: Batch, key: Key, others: Array) -> tuple:
    """Returns ((true, false) scores of the whole, of its places, the draw)."""
    inference, vector, local = model.views(batch, key)
    if local.ndim != 4 or vector.ndim != 2:
        raise ConfigError(
            f"views of {type(model).__name__} must be a vector [B, F] and a map "
            f"[B, h, w, C], got {list(vector.shape)} and {list(local.shape)}"
        )
    z = inference.latents

    def compare(scores, view):
        return scores(view, z), scores(view[None], z[others])

    whole = compare(model.global_scores, vector)
    return whole, compare(model.local_scores, local), inference


@objective(
    coefficients={"global_info": 0.5, "local_info": 1.5, "prior_kl": 0.01},
    needs=("views", "global_scores", "local_scores"),
)
def infomax(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    coefficients: Coefficients,
    *,
    model: Model,
    estimator: Estimator = "jensen_shannon",
    num_negatives: Annotated[int, Ge(1)] = 1,
    kl_over: KlOver = "sum",
    train: bool = True,
) -> tuple[Array, Aux]:
    """Returns -alpha I(whole; z) - beta I(place; z) + gamma KL(q(z|x) || p(z)).

    Each I is the estimator's bound, the second averaged over the places of the map.
    False pairs are made within the batch: couples its examples, always those of the
    global batch under `jit` over a mesh; under pmap those of each device.

    Hjelm et al., 2019, https://arxiv.org/abs/1808.06670; Su, 2018,
    https://kexue.fm/archives/6024, whose code takes `kl_over='mean'` and a model with
    `global_view='code'`.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: key of the draws; example i uses key i of `split(key, B)`.
      batch: what the model reads. Rows where 'mask' [B] is False do not count.
      coefficients: 'global_info', 'local_info', 'prior_kl', scalars.
      model: offers `views`, `global_scores` and `local_scores`.
      estimator: 'jensen_shannon', 'info_nce' or 'donsker_varadhan', see there.
      num_negatives: false pairs for each example, below the batch.
      kl_over: whether the KL is the 'sum' over dimensions, nats, or their 'mean'.
      train: whether BatchNorm uses, and updates, batch statistics.
      global_info: weight alpha of what z says of the whole.
      local_info: weight beta of what z says of a place.
      prior_kl: weight gamma of the KL to the prior.

    Returns:
      (loss, aux): aux.metrics holds 'global_bound' and 'local_bound', the estimators'
      values, and 'kl' in nats per example, always the sum; unweighted.

    Raises:
      ConfigError: impossible options, a batch with no more than num_negatives examples,
        or views of the wrong rank.
    """
    size = batch_size(batch)
    rule = f"be below the batch of {size}"
    require(num_negatives < size, "loss.num_negatives", rule, num_negatives)
    mask = batch.get("mask")
    each = keys.per_example(key, size)
    # Cloned: the key of an example's draws is used once more, on purpose.
    first = jax.random.clone(each[0 if mask is None else jnp.argmax(mask)])
    others = in_batch_negatives(jax.random.fold_in(first, 1), size, num_negatives, mask)

    def score(model, batch, key):
        return _scores(model, batch, key, others)

    (whole, places, inference), state = apply_to_rows(
        model, score, params, state, each, batch, train=train
    )
    bound = ESTIMATORS[estimator]
    of_whole, of_places = bound(*whole, mask), bound(*places, mask)
    kl = masked_mean(inference.kl.sum(-1), batch)
    dims = inference.kl.shape[-1] if kl_over == "mean" else 1
    loss = coefficients["prior_kl"] * kl / dims
    loss -= coefficients["global_info"] * of_whole
    loss -= coefficients["local_info"] * of_places
    metrics = {
        "loss": loss,
        "global_bound": of_whole,
        "local_bound": of_places,
        "kl": kl,
    }
    return loss, Aux(metrics, state)
