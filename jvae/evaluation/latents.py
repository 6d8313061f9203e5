"""What the latents carry: KL of every group, active units, mutual information.

E KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)), where q(z) is the mixture of the
posteriors of all evaluated examples; `jvae.losses.information` splits it further.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jvae import keys
from jvae.data.sources import Source
from jvae.distributions import DiagGaussian, as_distribution
from jvae.flows import FlowPrior
from jvae.pretrained.likelihood import Estimate
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Array, Batch, Key, batch_size

ACTIVE_VARIANCE = 0.01
"""Burda et al., 2016, https://arxiv.org/abs/1509.00519."""
MIN_GROUP_KL = 0.01
"""Nats below which a group of latents counts as unused where no means exist."""
MIN_TOTAL_KL = 0.1
"""Nats per example below which a decoder is told next to nothing."""
MAX_OWN_SHARE = 0.1
"""Mean share of the mixture, at a draw, of the posterior that it is of; above it
KL(q(z) || p(z)) is too large by a tenth of a nat or more."""
MAP_ELEMENTS = 2**23
"""Log densities that are in memory at once for the mixture, 32 MB of float32."""


@dataclasses.dataclass(frozen=True)
class Information:
    """The mixture estimates of `decompose_kl` over N examples.

    Attributes:
      terms: 'mutual_info', 'marginal_kl', 'total_correlation', 'dimension_wise_kl' in
        nats, none below 0; those against the prior only where it is N(0, I) or uniform,
        those of single dimensions only where the posterior has `log_prob_per_dim`.
      clamped: the terms whose estimates were negative and are reported as 0.
      cap: log N, the largest mutual information that N examples can show.
      own_share: the mean of q(z_i|x_i) / N q(z_i): how much of the mixture at a draw
        is the posterior that it is of, between 1/N and 1.
    """

    terms: dict[str, Estimate]
    clamped: tuple[str, ...]
    cap: float
    own_share: float

    @property
    def is_capped(self) -> bool:
        """Whether the mutual information is so near its cap that it may be larger."""
        return self.terms["mutual_info"].mean > self.cap - 0.1

    @property
    def at_most(self) -> tuple[str, ...]:
        """The terms that are upper bounds of those of what the examples are drawn from.

        Every example shows at most log N nats, and what it has over that is counted as
        theirs. Where posteriors reach across few others, in whatever part of the
        examples, a mixture of more of them would be smaller at the draws. Single
        dimensions show no more than a few nats each, so that the dimension-wise KL is
        not among them.
        """
        is_sparse = self.own_share > MAX_OWN_SHARE
        bounds = ("marginal_kl", "total_correlation") if is_sparse else ()
        return tuple(name for name in bounds if name in self.terms)


@dataclasses.dataclass(frozen=True)
class LatentStatistics:
    """What N examples put into the latents.

    Attributes:
      kl: [G], mean KL to the prior of every group in nats; the groups are the
        dimensions of a diagonal posterior.
      num_examples: N.
      means: [N, D], posterior means; None without one posterior over vectors, or where
        the prior is a flow.
      information: see there; None without one posterior that has a density.
      draws: [N, D], one of each posterior, where the prior is one N(0, I); else None.
    """

    kl: np.ndarray
    num_examples: int
    means: np.ndarray | None = None
    information: Information | None = None
    draws: np.ndarray | None = None

    @property
    def active(self) -> np.ndarray | None:
        """[D], whether the posterior mean varies over examples by more than 0.01."""
        return None if self.means is None else active_units(self.means)

    @property
    def kl_per_dim(self) -> np.ndarray | None:
        """[D], the KL of every dimension of `means`; None without means or such groups.

        Groups beyond the dimensions, such as a cluster's, come last.
        """
        if self.means is None or len(self.kl) < self.means.shape[1]:
            return None
        return self.kl[: self.means.shape[1]]


def posterior_terms(trained: TrainedModel, key: Key, batch: Batch) -> dict[str, Array]:
    """Returns 'kl' [B, G], and of a posterior with a density itself and a draw.

    Args:
      trained: a model with `infer`, and perhaps `posterior` and `prior`.
      key: one key, or [B] keys, one per example.
      batch: what the model reads, prepared.

    Returns:
      'kl'; if `posterior(batch)` has `log_prob` also 'posterior', itself, 'z' [B, ...],
      a draw, 'log_prior' [B], log p(z) there, 'one_prior' [B], whether the prior is
      known to be the same for all: N(0, I) or uniform, and 'has_scale' [B], whether it
      says what a large mean is: a flow, which may be of any scale, does not.
    """

    def terms(model, batch, key):
        inference = model.infer(batch, key)
        if not model.offers("posterior", "prior"):
            return {"kl": inference.kl}
        q, p = map(as_distribution, (model.posterior(batch), model.prior(batch)))
        if not (_has_density(q, len(key)) and p.has_density):
            return {"kl": inference.kl}
        z = q.sample(jax.random.clone(key))  # the draw that `infer` makes
        values = {"kl": inference.kl, "posterior": q, "z": z}
        one_prior = jnp.full(len(key), model.uniform_prior)
        if isinstance(p, DiagGaussian):
            standard = (p.mean == 0.0) & (p.log_var == 0.0)
            one_prior = standard.reshape(len(key), -1).all(-1)
        has_scale = jnp.full(len(key), not isinstance(p, FlowPrior))
        values |= {"one_prior": one_prior, "has_scale": has_scale}
        return values | {"log_prior": p.log_prob(z)}

    return trained.call(terms, batch, keys.per_example(key, batch_size(batch)))


def _has_density(q: Any, num_examples: int) -> bool:
    """Returns whether q can be scored at any point, and is [B, ...] in every leaf."""
    fits = [a.shape[:1] == (num_examples,) for a in jax.tree.leaves(q)]
    return q.has_density and bool(fits) and all(fits)


def evaluate_latents(
    trained: TrainedModel, source: Source, **examples: Unpack[Examples]
) -> LatentStatistics:
    """Returns what the first examples of a split put into the latents.

    Args:
      trained: what is evaluated.
      source: the split.
      **examples: see `Examples`; one z is drawn for each. Time grows as N^2 D with
        their number N, memory does not.

    Raises:
      ConfigError: the devices cannot share batch_size rows.
      DataError: num_examples is more than there are.
    """
    terms = trained.map_examples(posterior_terms, source, **examples)
    kl = terms["kl"].astype(np.float64).mean(0)
    if "posterior" not in terms:
        return LatentStatistics(kl, len(terms["kl"]))
    q, z = jax.tree.map(jnp.asarray, (terms["posterior"], terms["z"]))
    log_prior = terms["log_prior"] if terms["one_prior"].all() else None
    has_means = q.mean.ndim == 2 and terms["has_scale"].all()
    means = np.asarray(q.mean) if has_means else None
    is_normal = has_means and log_prior is not None and not trained.has_uniform_prior
    draws = np.asarray(z) if is_normal else None
    parts = information(q, z, log_prior=log_prior)
    return LatentStatistics(kl, len(terms["kl"]), means, parts, draws)


def active_units(means: np.ndarray) -> np.ndarray:
    """Returns [D], whether the variance over examples of E[z_d|x] is over 0.01.

    Burda et al., 2016, https://arxiv.org/abs/1509.00519.

    Args:
      means: [N, D], posterior means.
    """
    return np.var(np.asarray(means, np.float64), axis=0) > ACTIVE_VARIANCE


def information(
    q: Any, z: Array, *, log_prior: Array | np.ndarray | None = None
) -> Information:
    """Returns the parts of E KL(q(z|x) || p(z)), q(z) the mixture of all N posteriors.

    An array-level function: q and z are those of all examples, gathered.

    Args:
      q: N posteriors with `log_prob`, and with `log_prob_per_dim` [N, D] where their
        dimensions (or variables) are independent.
      z: [N, ...], a draw from each.
      log_prior: [N], log p(z) of one prior for all, whose dimensions are independent;
        None to leave out the parts that compare with it.
    """
    count = len(z)
    rows = max(1, min(count, MAP_ELEMENTS // z.size))
    logs = {n: np.asarray(a, np.float64) for n, a in _logs(q, z, rows=rows).items()}
    draws = {"mutual_info": logs["own"] - logs["joint"]}
    if log_prior is not None:
        prior = np.asarray(log_prior, np.float64)
        draws["marginal_kl"] = logs["joint"] - prior
    if "product" in logs:
        draws["total_correlation"] = logs["joint"] - logs["product"]
        if log_prior is not None:
            draws["dimension_wise_kl"] = logs["product"] - prior
    terms = {name: Estimate.of(values) for name, values in draws.items()}
    clamped = tuple(name for name, term in terms.items() if term.mean < 0.0)
    for name in clamped:
        terms[name] = dataclasses.replace(terms[name], mean=0.0)
    own_share = float(np.exp(logs["own"] - logs["joint"]).mean()) / count
    return Information(terms, clamped, math.log(count), own_share)


@functools.partial(jax.jit, static_argnames="rows")
def _logs(q: Any, z: Array, *, rows: int) -> dict[str, Array]:
    """Returns log densities at the draws z [N, ...], [N] each, `rows` draws at a time.

    'own' is log q(z_i|x_i), 'joint' log q(z_i), and where the dimensions of q are
    independent 'product' sum_d log q(z_i,d), with q(z) = 1/N sum_j q(z|x_j).
    """
    log_count = math.log(len(z))
    q = as_distribution(q)

    def at(point):
        points = jnp.broadcast_to(point, z.shape)
        if not q.is_factorized:
            return {"joint": jax.nn.logsumexp(q.log_prob(points)) - log_count}
        parts = q.log_prob_per_dim(points).reshape(len(z), -1)
        joint = jax.nn.logsumexp(parts.sum(-1)) - log_count
        each = jax.nn.logsumexp(parts, axis=0) - log_count
        return {"joint": joint, "product": each.sum()}

    return {"own": q.log_prob(z), **jax.lax.map(at, z, batch_size=rows)}


Status = Literal["healthy", "partly collapsed", "collapsed", "unknown", "lossless"]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the latents are used.

    Attributes:
      status: 'healthy', 'partly collapsed', 'collapsed', 'unknown' where the KL is not
        finite, or 'lossless' where the code holds the whole image.
      sentence: the same in words, with the numbers that it rests on.
      num_used: dimensions (or groups) that carry something.
      num_groups: how many there are.
      kl: nats per example, all groups together.
    """

    status: Status
    sentence: str
    num_used: int
    num_groups: int
    kl: float


def lossless(kl: np.ndarray) -> Verdict:
    """Returns what is to be said of a flow, which cannot collapse.

    Args:
      kl: [1], mean of log q(z|x) - log p(z) in nats.
    """
    sentence = "A flow: the code holds the whole image, and its KL is all of the NLL."
    return Verdict("lossless", sentence, 1, 1, float(np.sum(kl)))


def collapse_verdict(kl: np.ndarray, active: np.ndarray | None = None) -> Verdict:
    """Returns whether the posterior has collapsed to the prior.

    Collapsed: no dimension is used, or all together carry less than 0.1 nats.

    Args:
      kl: [G], mean KL of every group in nats.
      active: [D], which dimensions (the first D groups) are active units; None to
        call a group used if its KL is at least 0.01 nats. The KL of a von Mises-Fisher
        posterior is the same for every x, collapsed or not: its active units tell.
    """
    total, count = float(np.sum(kl)), len(kl if active is None else active)
    if not math.isfinite(total):
        sentence = "Unknown: the KL to the prior is not finite."
        return Verdict("unknown", sentence, 0, count, total)
    used = int(np.sum(kl >= MIN_GROUP_KL if active is None else active))
    unit, rule = "groups of latents", f"a KL of at least {MIN_GROUP_KL} nats"
    if active is not None:
        unit = "dimensions"
        rule = f"a posterior mean of variance over {ACTIVE_VARIANCE}"
    basis = f"The KL to the prior is {total:.3g} nats per example; used means {rule}."
    if used == 0 or total < MIN_TOTAL_KL:
        status: Status = "collapsed"
        finding = f"Collapsed: {used} of {count} {unit} used, almost no information"
    elif used < count:
        status = "partly collapsed"
        finding = f"Partly collapsed: {count - used} of {count} {unit} unused"
    else:
        status, finding = "healthy", f"Healthy: all {count} {unit} used"
    return Verdict(status, f"{finding}. {basis}", used, count, total)
