"""Bounds on log p(x): per example as pure functions, and their means over a split."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jvae.data import transforms
from jvae.data.sources import Source
from jvae.distributions import Bernoulli, as_distribution
from jvae.errors import require
from jvae.losses.elbo import elbo_terms
from jvae.losses.iwae import sample_keys
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Array, Batch, Key, batch_size

GREY_BERNOULLI = "binary cross-entropy on grey values: not a likelihood"


def elbo_per_example(trained: TrainedModel, key: Key, batch: Batch) -> dict[str, Array]:
    """Returns each example's bound and its parts, in nats, from one draw of z.

    elbo = log_likelihood - kl, and its expectation is at most log p(x).

    Args:
      trained: a model with `infer`, `likelihood` and `target`.
      key: one key, or [B] keys, one per example.
      batch: what the model reads, in the support of the likelihood.

    Returns:
      'elbo', 'log_likelihood' (log p(x|z) at the draw) and 'kl', each [B].
    """
    log_likelihood, inference, _ = elbo_terms(
        trained.params, trained.state, key, batch, model=trained.model, train=False
    )
    kl = inference.kl.sum(-1)
    return {"elbo": log_likelihood - kl, "log_likelihood": log_likelihood, "kl": kl}


def log_likelihood_per_example(
    trained: TrainedModel, key: Key, batch: Batch, num_samples: int, chunk_size: int
) -> Array:
    """Returns [B], the 'log_p' of `bounds_per_example`, whose arguments these are."""
    return bounds_per_example(trained, key, batch, num_samples, chunk_size)["log_p"]


def bounds_per_example(
    trained: TrainedModel, key: Key, batch: Batch, num_samples: int, chunk_size: int
) -> dict[str, Array]:
    """Returns each example's bounds on log p(x) and their parts, from the same K draws.

    The expectation of log (1/K) sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x), is at most
    log p(x) and approaches it as K = num_samples grows. That of the ELBO is the same
    for any K. The chunks change memory and time, not the draws.

    Burda et al., 2016, https://arxiv.org/abs/1509.00519.

    Args:
      trained: a model with `infer`, `likelihood` and `target`.
      key: one key, or [B] keys; draw k of an example uses key k of the split of its
        key, and that key itself if K = 1.
      batch: what the model reads, in the support of the likelihood.
      num_samples: K, exactly as many draws are made.
      chunk_size: draws of every example that are in memory at once.

    Returns:
      'log_p' [B], the importance-weighted bound, and means over the draws of
      'log_likelihood' [B], log p(x|z), and 'kl' [B, groups]; all in nats.

    Raises:
      ConfigError: num_samples or chunk_size below 1.
    """
    require(num_samples >= 1, "num_samples", "be at least 1", num_samples)
    require(chunk_size >= 1, "chunk_size", "be at least 1", chunk_size)
    variables = trained.params, trained.state

    def one_draw(draw_keys):
        log_likelihood, inference, _ = elbo_terms(
            *variables, draw_keys, batch, model=trained.model, train=False
        )
        log_w = log_likelihood - inference.log_ratio
        return log_w, (log_likelihood, inference.kl)

    def add_chunk(total, chunk_keys):
        # The weights as exp(peak) * mass: the peak is exact and the mass is near 1.
        peak, mass, sums = total
        log_w, terms = jax.vmap(one_draw)(chunk_keys)
        new_peak = jnp.maximum(peak, log_w.max(0))
        added = jnp.exp(log_w - new_peak[None]).sum(0)
        mass = mass * jnp.exp(peak - new_peak) + added
        sums = jax.tree.map(lambda s, t: s + t.sum(0), sums, terms)
        return (new_peak, mass, sums), None

    draws = sample_keys(key, batch_size(batch), num_samples)
    keys_of_one = jax.ShapeDtypeStruct(draws.shape[1:], draws.dtype)
    shapes = jax.eval_shape(one_draw, keys_of_one)
    mass, sums = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total = jnp.full_like(mass, jnp.finfo(mass.dtype).min), mass, sums

    chunk = min(chunk_size, num_samples)
    whole = num_samples // chunk
    chunks = draws[: whole * chunk].reshape(whole, chunk, -1)
    total, _ = jax.lax.scan(add_chunk, total, chunks)
    if num_samples % chunk:
        total, _ = add_chunk(total, draws[whole * chunk :])

    peak, mass, sums = total
    log_likelihood, kl = jax.tree.map(lambda s: s / num_samples, sums)
    log_p = peak + jnp.log(mass) - math.log(num_samples)
    return {"log_p": log_p, "log_likelihood": log_likelihood, "kl": kl}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over examples.

    Attributes:
      mean: the mean.
      standard_error: of the mean, over examples; None if there is only one.
      num_examples: how many examples.
      num_samples: draws of z for each.
    """

    mean: float
    standard_error: float | None
    num_examples: int
    num_samples: int = 1

    @classmethod
    def of(cls, values: np.ndarray, num_samples: int = 1) -> Estimate:
        """Returns the estimate from one value per example, summed in float64."""
        values = np.asarray(values, np.float64)
        count = len(values)
        error = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else None
        return cls(float(values.mean()), error, count, num_samples)

    def scaled(self, factor: float) -> Estimate:
        """Returns the estimate of `factor` times the quantity."""
        error = self.standard_error
        error = None if error is None else error * abs(factor)
        return dataclasses.replace(self, mean=self.mean * factor, standard_error=error)


def evaluate_elbo(
    trained: TrainedModel, source: Source, **examples: Unpack[Examples]
) -> dict[str, Estimate]:
    """Returns the means of 'elbo', 'log_likelihood' and 'kl' over a split, in nats.

    Args:
      trained: what is evaluated.
      source: the split.
      **examples: which examples, and the key of the draws, one z for each.

    Raises:
      ConfigError: the devices cannot share batch_size rows.
      DataError: num_examples is more than there are.
    """
    terms = trained.map_examples(elbo_per_example, source, **examples)
    return {name: Estimate.of(values) for name, values in terms.items()}


def evaluate_bounds(
    trained: TrainedModel,
    source: Source,
    *,
    num_samples: int,
    chunk_size: int,
    **examples: Unpack[Examples],
) -> dict[str, np.ndarray]:
    """Returns `bounds_per_example` of the examples of a split.

    Args:
      trained: what is evaluated.
      source: the split.
      num_samples: draws of z for each example.
      chunk_size: draws of every example that are in memory at once.
      **examples: which examples, and the key of the draws.

    Raises:
      ConfigError: a number out of range.
      DataError: num_examples is more than there are.
    """
    counts = {"num_samples": num_samples, "chunk_size": chunk_size}
    return trained.map_examples(bounds_per_example, source, **counts, **examples)


def evaluate_log_likelihood(
    trained: TrainedModel,
    source: Source,
    *,
    num_samples: int,
    chunk_size: int,
    **examples: Unpack[Examples],
) -> Estimate:
    """Returns the mean of the importance-weighted bound over a split, in nats.

    Args:
      trained: what is evaluated.
      source: the split.
      num_samples: draws of z for each example.
      chunk_size: draws of every example that are in memory at once.
      **examples: which examples, and the key of the draws.
    """
    counts = {"num_samples": num_samples, "chunk_size": chunk_size}
    values = trained.map_examples(
        log_likelihood_per_example, source, **counts, **examples
    )
    return Estimate.of(values, num_samples)


def per_token(log_p: np.ndarray, lengths: np.ndarray, num_samples: int) -> Estimate:
    """Returns -sum log p(x) over the number of tokens, in nats.

    A ratio of two means over sentences, with the error of such a ratio. The token that
    ends a sentence counts.

    Args:
      log_p: [N], of each sentence, in nats.
      lengths: [N], its tokens.
      num_samples: draws of z for each.
    """
    total = np.asarray(lengths, np.float64)
    nll = -np.asarray(log_p, np.float64)
    ratio = nll.sum() / total.sum()
    residuals = (nll - ratio * total) / total.mean()
    return dataclasses.replace(Estimate.of(residuals, num_samples), mean=float(ratio))


def bits_per_dim(
    log_likelihood: Estimate, num_dims: int, bin_bits: int = 0
) -> Estimate:
    """Returns -log p(x) / (D ln 2) + bin_bits, bits of a pixel's level.

    Args:
      log_likelihood: an estimate of, or bound on, log p(x) in nats.
      num_dims: D, pixels times channels.
      bin_bits: 0 for probabilities of levels; b for a density of levels that are spread
        over bins of width 2^-b, whose logarithm is so much larger.
    """
    bits = log_likelihood.scaled(-1.0 / (num_dims * math.log(2.0)))
    return dataclasses.replace(bits, mean=bits.mean + bin_bits)


@dataclasses.dataclass(frozen=True)
class Observation:
    """What a model's log p(x|z) is of the data that it is given.

    Attributes:
      name: the class of the distribution.
      is_likelihood: whether log p(x|z) is the logarithm of a probability or density.
      is_discrete: whether it is the probability of a pixel's level, so that bits per
        dimension exist.
      caution: what to write beside numbers that are made of it, '' for probabilities.
      given: '' or '|y', if the prior is p(z|y) and so the bounds are on log p(x|y).
      is_text: whether the data are sentences.
      bin_bits: of a density of levels that are spread over bins of width 2^-b, b: so
        bits per dimension exist; None for others.
      num_dims: pixels times channels that the model sees, those of padding too.
    """

    name: str
    is_likelihood: bool
    is_discrete: bool
    caution: str
    given: str = ""
    is_text: bool = False
    bin_bits: int | None = None
    num_dims: int = 0


def observation(trained: TrainedModel, source: Source) -> Observation:
    """Returns what log p(x|z) means for this model and this data; computes nothing."""
    example = source.read(np.zeros(1, np.int64))

    def at_draw(model, batch, key):
        return model.likelihood(model.infer(batch, key).latents, batch)

    def trace(params, state, batch, key):
        traced = dataclasses.replace(trained, params=params, state=state)
        ready = transforms.prepare(batch, key, trained.transform)
        again = jax.random.clone(key)  # of shapes alone
        return traced.call(at_draw, ready, again), ready[trained.model.target]

    key, variables = jax.random.key(0), (trained.params, trained.state)
    likelihood, data = jax.eval_shape(trace, *variables, example, key)
    meaning = _meaning(likelihood, trained.transform.support)
    is_density = meaning.is_likelihood and not meaning.is_discrete
    return dataclasses.replace(
        meaning,
        bin_bits=trained.transform.bin_bits if is_density else None,
        given="" if trained.model.num_classes is None else "|y",
        num_dims=math.prod(data.shape[1:]),
    )


def _meaning(likelihood: Any, support: str) -> Observation:
    """Returns what a likelihood is on data of this support."""
    name, likelihood = type(likelihood).__name__, as_distribution(likelihood)
    kind = likelihood.support or support
    if not likelihood.is_discrete:
        caution = "a density, not a probability of pixel levels"
        if support != "real":
            caution = "a density on discrete levels, without bound: a squared error"
        return Observation(name, True, False, caution)
    if not likelihood.is_normalized:
        caution = "probabilities of a pixel add up to more than 1: not a likelihood"
        return Observation(name, False, False, caution)
    if kind == support:
        return Observation(name, True, True, "", is_text=support == "tokens")
    caution = f"scores {support!r} values, defined on {kind!r}: not a likelihood"
    if isinstance(likelihood, Bernoulli):
        caution = GREY_BERNOULLI
    return Observation(name, False, False, caution)
