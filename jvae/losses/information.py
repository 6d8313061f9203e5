"""What the latents keep: E KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)).

p(z) is one prior for all x, q(z) = E_x q(z|x) the aggregate posterior. If the
dimensions of p(z) are independent, the second part splits further into the total
correlation KL(q(z) || prod_j q(z_j)) and the dimension-wise sum_j KL(q(z_j) || p(z_j)).

Hoffman & Johnson, 2016,
http://approximateinference.org/accepted/HoffmanJohnson2016.pdf; Chen et al., 2018,
https://arxiv.org/abs/1802.04942.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import chex
import jax
import jax.numpy as jnp

from jvae.contract import Model
from jvae.distributions import DiagGaussian, data_log_prob, sum_events
from jvae.errors import ConfigError, require
from jvae.losses.objective import apply_to_rows, masked_mean, objective, require_kind
from jvae.ranges import Ge
from jvae.types import Array, Aux, Batch, Coefficients, Key, Params, State

Estimator = Literal["weighted", "stratified"]
NAME, INSTEAD = "loss 'decomposed_elbo'", "Use loss 'elbo'."
PARTS = ("mutual_info", "total_correlation", "dimension_wise_kl")
"""Of the KL, each with a weight."""


def mixture_log_weights(
    num_examples: int,
    dataset_size: int | None,
    estimator: Estimator,
    mask: Array | None = None,
    dtype: Any = jnp.float32,
) -> Array:
    """Returns [B, B] logs of the weights of q(z_i|x_j) in the estimate of q(z_i).

    Every row sums to one, and the own component, which is always in the batch, has
    its true weight 1/N. 'weighted': the others share the rest equally. 'stratified':
    one other has (N - M) / (N M), the rest 1/M, M = B - 1. Where the batch is all of
    the data every weight is 1/B, and where a mask leaves one row it is all there is.

    Args:
      num_examples: B, the batch.
      dataset_size: N, the data set that the batch was drawn from; None if the batch
        is all of it.
      estimator: see above.
      mask: [B] bool; rows that are False have no weight and B counts the others.
      dtype: of the result.

    Raises:
      ConfigError: N < B, or B = 1 of a larger data set; not where there is a mask.
    """
    b, n = num_examples, dataset_size or num_examples
    rule = f"be at least the batch, {b}, and the batch at least 2"
    fits = mask is not None or (n >= b and (b > 1 or n == 1))
    require(fits, "dataset_size", rule, n)

    is_real = jnp.ones(b, bool) if mask is None else mask.astype(bool)
    count = jnp.maximum(is_real.sum(dtype=jnp.int32), 1)
    size, is_one = count.astype(dtype), is_real.astype(dtype)
    equal = jnp.broadcast_to(is_one / size, (b, b))
    if dataset_size is None:
        return jnp.log(equal)

    m = jnp.maximum(size - 1.0, 1.0)
    others = jnp.broadcast_to((n - 1) / (n * m), (b, b))
    if estimator == "stratified":
        rank = jnp.cumsum(is_real, dtype=jnp.int32) - 1
        heavy = rank[None, :] == (rank[:, None] + 1) % count
        others = jnp.where(heavy, (n - m) / (n * m), 1.0 / m)
    weights = jnp.where(jnp.eye(b, dtype=bool), 1.0 / n, others) * is_one[None, :]
    return jnp.log(jnp.where((count == 1) | (count >= n), equal, weights))


def decompose_kl_per_example(
    q: DiagGaussian,
    z: Array,
    *,
    dataset_size: int | None = None,
    estimator: Estimator = "weighted",
    mask: Array | None = None,
    prior: DiagGaussian | None = None,
) -> dict[str, Array]:
    """Returns the terms of `decompose_kl` for every draw, each [B], in nats.

    Their means are the estimates. For every draw,
    kl = mutual_info + total_correlation + dimension_wise_kl, exactly.

    Args:
      q: posteriors with mean and log_var [B, D].
      z: [B, D], a draw from each.
      dataset_size: N, the size of the data set that the batch was drawn from; None
        if the batch is the data set.
      estimator: 'weighted' or 'stratified', see `mixture_log_weights`.
      mask: [B] bool; rows that are False are no components (and their terms mean
        nothing), and do not count in a mean.
      prior: p(z), a diagonal Gaussian [B, D] that is the same in every row; None for
        N(0, I). The parts are those of one p(z): class means are not.
    """
    chex.assert_rank(z, 2)
    chex.assert_equal_shape([z, q.mean, q.log_var])
    if mask is not None:  # what is in a padding row may be nan, and -inf + nan is nan
        is_real = mask.astype(bool)[:, None]
        q, z = jax.tree.map(lambda a: jnp.where(is_real, a, 0.0), (q, z))

    repeated = jnp.broadcast_to(z[:, None], (len(z), *z.shape))
    components = jax.vmap(q.log_prob_per_dim)(repeated)  # log q(z_i,d | x_j), [i, j, d]
    log_weights = mixture_log_weights(
        len(z), dataset_size, estimator, mask, components.dtype
    )

    log_q_z = jax.nn.logsumexp(log_weights + components.sum(-1), axis=1)
    log_q_dims = jax.nn.logsumexp(log_weights[..., None] + components, axis=1)
    log_q_given_x = q.log_prob(z)

    p = DiagGaussian.standard(*z.shape) if prior is None else prior
    chex.assert_equal_shape([z, p.mean, p.log_var])
    log_p_dims = p.log_prob_per_dim(z)
    product = sum_events(log_q_dims)

    return {
        "kl": log_q_given_x - sum_events(log_p_dims),
        "mutual_info": log_q_given_x - log_q_z,
        "marginal_kl": log_q_z - sum_events(log_p_dims),
        "total_correlation": log_q_z - product,
        "dimension_wise_kl": product - sum_events(log_p_dims),
    }


def decompose_kl(
    q: DiagGaussian,
    z: Array,
    *,
    dataset_size: int | None = None,
    estimator: Estimator = "weighted",
    mask: Array | None = None,
    prior: DiagGaussian | None = None,
) -> dict[str, Array]:
    """Returns Monte Carlo estimates of E KL(q(z|x) || p(z)) and its parts, in nats.

    'kl' = 'mutual_info' + 'marginal_kl' and 'marginal_kl' = 'total_correlation' +
    'dimension_wise_kl', exactly. 'mutual_info' cannot exceed log N; what it is over
    that is counted as 'marginal_kl' and 'total_correlation', which then are upper
    bounds of those of the data that the N come from. From a batch of a larger data set
    they are biased: log q(z) comes out too small on average, so that 'mutual_info' is
    too large and 'marginal_kl' too small, less with a larger batch.

    An array-level function that couples the batch: under pmap or shard_map gather q and
    z ([B, D] each) first, a mean over devices of per-device values is something else.

    Args:
      q: posteriors with mean and log_var [B, D].
      z: [B, D], a draw from each.
      dataset_size: N, the size of the data set that the batch was drawn from; None
        if the batch is the data set.
      estimator: 'weighted' or 'stratified', see `mixture_log_weights`.
      mask: [B] bool; rows that are False do not count. One row that is left has no
        'mutual_info' and no 'total_correlation', 0.
      prior: p(z), a diagonal Gaussian [B, D] that is the same in every row; None for
        N(0, I). The parts are those of one p(z): class means are not.

    Returns:
      Scalars 'kl', 'mutual_info', 'marginal_kl', 'total_correlation' and
      'dimension_wise_kl'.
    """
    terms = decompose_kl_per_example(
        q, z, dataset_size=dataset_size, estimator=estimator, mask=mask, prior=prior
    )
    batch = {} if mask is None else {"mask": mask}
    return {name: masked_mean(values, batch) for name, values in terms.items()}


def _check(*, model: Model, dataset_size: int | None, estimator: str) -> None:
    """Raises ConfigError for a model with several groups of latents."""
    has_one_group = model.offers("posterior", "prior")
    needed = "a model with posterior and prior"
    require_kind(has_one_group, NAME, needed, model, INSTEAD)


def _depends(function: Callable[[Batch], Any], batch: Batch) -> bool:
    """Returns whether function(batch) depends on a number in `batch`, from its trace.

    Shapes do not count: a prior may have as many rows as the batch. What a nested
    program (scan, cond) returns counts as depending on all that goes in.
    """
    program = jax.make_jaxpr(function)(dict(batch)).jaxpr
    reached = {id(v) for v in program.invars}
    for step in program.eqns:
        if any(id(v) in reached for v in step.invars):
            reached |= {id(v) for v in step.outvars}
    return any(id(v) in reached for v in program.outvars)


def _require_diagonal(role: str, posterior: Any) -> DiagGaussian:
    needed = f"a {role} that is a DiagGaussian, whose dimensions are independent"
    fits = isinstance(posterior, DiagGaussian)
    require_kind(fits, NAME, needed, posterior, INSTEAD)
    return posterior


@objective(coefficients=dict.fromkeys(PARTS, 1.0), check=_check)
def negative_decomposed_elbo(
    params: Params,
    state: State,
    key: Key,
    batch: Batch,
    coefficients: Coefficients,
    *,
    model: Model,
    dataset_size: Annotated[int, Ge(2)] | None = None,
    estimator: Estimator = "weighted",
    train: bool = True,
) -> tuple[Array, Aux]:
    """Returns E_q[-log p(x|z)] + alpha MI + beta TC + gamma dimension-wise KL.

    All three weights 1 give the negative ELBO with a Monte Carlo KL, draw by draw; a
    smaller alpha keeps the pressure on q(z) to match the prior but lets z carry more
    of x (InfoVAE), a larger beta asks for independent dimensions (beta-TCVAE). The
    prior is the model's, which must be one diagonal Gaussian for all examples: with
    p(z|y) the parts would be other quantities. Couples the batch: under pmap the value
    is that of each device's own rows.

    Zhao et al., 2017, https://arxiv.org/abs/1706.02262; Chen et al., 2018,
    https://arxiv.org/abs/1802.04942.

    Args:
      params: parameters of `model`.
      state: its other collections, {} if it has none.
      key: key of the draws; example i uses key i of `split(key, B)`.
      batch: what the model reads. Rows where 'mask' [B] is False do not count.
      coefficients: 'mutual_info', 'total_correlation', 'dimension_wise_kl'.
      model: offers `posterior` and `prior` (diagonal Gaussians [B, D]), `likelihood`
        and `target`.
      dataset_size: training examples, None to take the batch for all of them.
      estimator: 'weighted' or 'stratified', how q(z) is estimated from a batch.
      train: whether BatchNorm uses, and updates, batch statistics.
      mutual_info: weight of I(x; z), alpha.
      total_correlation: weight of KL(q(z) || prod_j q(z_j)), beta.
      dimension_wise_kl: weight of sum_j KL(q(z_j) || p(z_j)), gamma.

    Returns:
      (loss, aux): nats per example; aux.metrics holds every term, unweighted.

    Raises:
      ConfigError: dataset_size below 2 or below the batch, or a prior that is no
        diagonal Gaussian or depends on the example.
    """

    def prior(batch):
        p = model.apply({"params": params, **state}, batch, method="prior")
        return _require_diagonal("prior", p)

    if _depends(prior, batch):
        raise ConfigError(
            f"{NAME} needs one prior for all examples, that of "
            f"{type(model).__name__} depends on the example",
            fix="Use loss 'elbo', or a model without classes.",
        )

    def infer_and_score(model, batch, key):
        q, p = model.posterior(batch), model.prior(batch)
        z = _require_diagonal("posterior", q).sample(key)
        likelihood = model.likelihood(z, batch)
        return q, p, z, data_log_prob(likelihood, batch[model.target])

    (q, p, z, log_likelihood), state = apply_to_rows(
        model, infer_and_score, params, state, key, batch, train=train
    )
    mask = batch.get("mask")
    terms = decompose_kl_per_example(
        q, z, dataset_size=dataset_size, estimator=estimator, mask=mask, prior=p
    )
    weighted = sum(coefficients[name] * terms[name] for name in coefficients)
    loss = masked_mean(weighted - log_likelihood, batch)
    metrics = {name: masked_mean(term, batch) for name, term in terms.items()}
    metrics |= {
        "loss": loss,
        "elbo": masked_mean(log_likelihood - terms["kl"], batch),
        "log_likelihood": masked_mean(log_likelihood, batch),
    }
    return loss, Aux(metrics, state)
