"""The importance-weighted bound, and the weights it is made of.

Evaluation estimates log p(x) of the same weights, see `jvae.pretrained.likelihood`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import jax

from jvae import keys
from jvae.contract import Model
from jvae.distributions import as_distribution, data_log_prob
from jvae.losses.objective import apply_to_rows, masked_mean, objective, require_kind
from jvae.ranges import Ge
from jvae.types import Array, Aux, Batch, Coefficients, Key, Params, State, batch_size

Gradient = Literal["reparameterized", "doubly_reparameterized"]
PATHWISE, INSTEAD = "loss.gradient 'doubly_reparameterized'", "Use 'reparameterized'."


def log_weight(model: Any, batch: Batch, key: Key) -> Array:
    """Returns [B], log p(x|z) + log p(z) - log q(z|x) at one draw per example.

    A method for `model.apply`. `key` is one key or [B] keys.
    """
    inference = model.infer(batch, key)
    likelihood = model.likelihood(inference.latents, batch)
    log_likelihood = data_log_prob(likelihood, batch[model.target])
    return log_likelihood - inference.log_ratio


def _scale_gradient(z: Any, scale: Array) -> Any:
    """Returns z [B, ...], its gradient multiplied by scale [B]."""

    def leaf(a):
        s = scale.reshape(-1, *(1,) * (a.ndim - 1))
        return s * a + jax.lax.stop_gradient((1.0 - s) * a)

    return jax.tree.map(leaf, z)


def _pathwise_log_weight(
    model: Any, batch: Batch, key: Key, path_scale: Array
) -> Array:
    """Like `log_weight`; q's parameters act through the draw, times `path_scale`."""
    q, p = model.posterior(batch), model.prior(batch)
    has_density = as_distribution(q).has_density  # a flow has none
    require_kind(has_density, PATHWISE, "a posterior with log_prob", q, INSTEAD)
    z = _scale_gradient(q.sample(key), path_scale)
    fixed_q = jax.tree.map(jax.lax.stop_gradient, q)
    log_likelihood = data_log_prob(model.likelihood(z, batch), batch[model.target])
    return log_likelihood + p.log_prob(z) - fixed_q.log_prob(z)


def sample_keys(key: Key, num_examples: int, num_samples: int) -> Key:
    """Returns [K, B] keys; with K = 1 the examples' own, so that L_1 is the ELBO."""
    each = keys.per_example(key, num_examples)
    return each[None] if num_samples == 1 else keys.split_each(each, num_samples)


def log_weights(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    *,
    model: Any,
    num_samples: int,
    train: bool = False,
) -> tuple[Array, State]:
    """Returns ([K, B] log importance weights, state), K draws per example.

    Args:
      params: parameters of `model`.
      state: its other collections.
      key: one key, or [B] keys, one per example.
      batch: what the model reads.
      model: offers `infer`, `likelihood` and `target`.
      num_samples: K.
      train: whether BatchNorm uses, and updates, batch statistics.
    """
    draws = sample_keys(key, batch_size(batch), num_samples)
    arguments = (model, log_weight, params, state)

    def one(draw_keys):
        return apply_to_rows(*arguments, draw_keys, batch, train=train)

    weights, states = jax.vmap(one)(draws)
    # The K draws' updated states are averaged.
    return weights, jax.tree.map(lambda s: s.mean(0), states) if train else state


def iwae_terms(log_w: Array) -> Array:
    """Returns [B], log (1/K) sum_k exp(log_w[k]) for log weights [K, B]."""
    return jax.nn.logsumexp(log_w, axis=0) - math.log(log_w.shape[0])


def _check(*, model: Model, num_samples: int, gradient: str) -> None:
    """Raises ConfigError for a gradient that the model does not allow."""
    if gradient == "doubly_reparameterized":
        one_group = model.offers("posterior", "prior")
        needed = "a model with posterior and prior"
        require_kind(one_group, PATHWISE, needed, model, INSTEAD)


@objective(needs=("infer", "likelihood"), check=_check)
def negative_iwae(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    coefficients: Coefficients,
    *,
    model: Model,
    num_samples: Annotated[int, Ge(1)] = 8,
    gradient: Gradient = "reparameterized",
    train: bool = True,
) -> tuple[Array, Aux]:
    """Returns -E log (1/K) sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x).

    An upper bound on -log p(x) for every K; its expectation falls with K, and for
    K = 1 it is the negative ELBO with a Monte Carlo KL. Couples the batch only through
    a model that has BatchNorm.

    Burda et al., 2016, https://arxiv.org/abs/1509.00519; the doubly reparameterised
    gradient: Tucker et al., 2019, https://arxiv.org/abs/1810.04152.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: key of the draws; example i uses the K parts of key i of `split(key, B)`,
        and that key itself if K = 1.
      batch: what the model reads. Rows where 'mask' [B] is False do not count.
      coefficients: none, {}.
      model: offers `infer`, `likelihood` and `target`; for the doubly reparameterised
        gradient also `posterior` and `prior`.
      num_samples: draws per example, K.
      gradient: 'reparameterized', or 'doubly_reparameterized', which has the same
        expectation and, for the encoder, less variance as K grows.
      train: whether BatchNorm uses, and updates, batch statistics.

    Returns:
      (loss, aux): nats per example; aux.metrics holds 'iwae', the bound on log p(x),
      and 'elbo', the mean of the log weights.

    Raises:
      ConfigError: num_samples < 1, or, for the doubly reparameterised gradient, a
        model without one posterior and prior; `losses.build` says so before any
        tracing. A posterior without `log_prob` is refused while tracing.
    """
    arguments = (params, state, key, batch)
    log_w, new_state = log_weights(
        *arguments, model=model, num_samples=num_samples, train=train
    )
    bound = iwae_terms(log_w)
    elbo = log_w.mean(0)
    if gradient == "doubly_reparameterized":
        surrogate = _pathwise_surrogate(log_w, *arguments, model=model, train=train)
        bound = jax.lax.stop_gradient(bound - surrogate) + surrogate
    loss = -masked_mean(bound, batch)
    metrics = {"loss": loss, "iwae": -loss, "elbo": masked_mean(elbo, batch)}
    return loss, Aux(metrics, new_state)


def _pathwise_surrogate(log_w, params, state, key, batch, *, model, train):
    """Returns [B], whose gradient is the doubly reparameterised one of the bound.

    d/d theta: sum_k w_k d log w_k; d/d phi: sum_k w_k^2 d log w_k / dz dz / d phi,
    with w the normalised weights: the draw's gradient is scaled by w, the sum by w.
    """
    weights = jax.lax.stop_gradient(jax.nn.softmax(log_w, axis=0))
    draws = sample_keys(key, batch_size(batch), log_w.shape[0])
    arguments = (model, _pathwise_log_weight, params, state)

    def one(draw_keys, scale):
        return apply_to_rows(*arguments, draw_keys, batch, scale, train=train)[0]

    return (weights * jax.vmap(one)(draws, weights)).sum(0)
