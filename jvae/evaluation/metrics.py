"""Metrics as a report has them: a value with its label, unit, error and meaning."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from jvae.evaluation import aggregate
from jvae.evaluation.latents import Information, LatentStatistics
from jvae.evaluation.scales import ScaleStatistics
from jvae.pretrained.likelihood import Estimate, Observation, bits_per_dim

Kind = Literal["bound", "estimate", "metric"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number.

    Attributes:
      label: its name for people.
      value: the number.
      standard_error: of a mean over examples, None where there is none.
      unit: 'nats', 'bits/dim', or 'of D' for a count.
      kind: 'bound' on log p(x) or on an information, 'estimate' of another
        expectation, or 'metric'.
      meaning: what it is, in one line.
      num_examples: how many examples it rests on.
      num_samples: draws of z for each; None where none are made.
    """

    label: str
    value: float
    standard_error: float | None
    unit: str
    kind: Kind
    meaning: str
    num_examples: int
    num_samples: int | None

    @classmethod
    def of(
        cls, label: str, estimate: Estimate, unit: str, kind: Kind, meaning: str
    ) -> Metric:
        """Returns the measure of an estimate."""
        e = estimate
        error, count, draws = e.standard_error, e.num_examples, e.num_samples
        return cls(label, e.mean, error, unit, kind, meaning, count, draws)

    @classmethod
    def score(
        cls, label: str, value: float, meaning: str, count: int, unit: str = "of 1"
    ) -> Metric:
        """Returns a number of `count` examples together, which has no error."""
        return cls(label, value, None, unit, "metric", meaning, count, None)


def likelihood_metrics(
    bounds: Mapping[str, np.ndarray], num_samples: int, observation: Observation
) -> dict[str, Metric]:
    """Returns the ELBO, its parts and the importance-weighted bound, in nats.

    Bits per dimension come with them where the likelihood is that of levels.

    Args:
      bounds: from `evaluate_bounds`.
      num_samples: draws of z for each example.
      observation: what log p(x|z) is; its caution is written beside every number.
    """
    fit, kl = bounds["log_likelihood"], bounds["kl"].sum(-1)

    def estimate(values: np.ndarray) -> Estimate:
        return Estimate.of(values, num_samples)

    kind: Kind = "bound" if observation.is_likelihood else "metric"
    draws = f"{num_samples} importance-weighted draws"
    log_p = f"log p(x{observation.given})"
    bound, weighted = estimate(fit - kl), estimate(bounds["log_p"])

    lower = _said(f"lower bound on {log_p}, the mean over all draws", observation)
    upper = _said(f"upper bound on -{log_p}, from {draws}", observation)
    nll = weighted.scaled(-1.0)
    metrics = {
        "elbo": Metric.of("ELBO", bound, "nats", kind, lower),
        "nll": Metric.of("NLL", nll, "nats", kind, upper),
    }

    is_of_levels = observation.is_discrete and not observation.is_text
    if is_of_levels or observation.bin_bits is not None:
        metrics |= _in_bits(bound, weighted, observation)

    first = _said("the ELBO's first term, z from q(z|x)", observation)
    metrics["log_likelihood"] = Metric.of(
        "log p(x|z)", estimate(fit), "nats", "estimate", first
    )
    label = f"KL(q(z|x) || p(z{observation.given}))"
    second = "the ELBO's second term"
    metrics["kl"] = Metric.of(label, estimate(kl), "nats", "estimate", second)
    return metrics


def _in_bits(
    elbo: Estimate, log_likelihood: Estimate, observation: Observation
) -> dict[str, Metric]:
    """Returns both bounds in bits of a pixel's level."""
    num_dims, bin_bits = observation.num_dims, observation.bin_bits
    noise = ""
    if bin_bits is not None:
        noise = f" + {bin_bits}; of levels, as they are spread over their bins"

    def row(label: str, estimate: Estimate, bound: str) -> Metric:
        bits = bits_per_dim(estimate, num_dims, bin_bits or 0)
        meaning = f"{bound} / ({num_dims} ln 2){noise}"
        return Metric.of(label, bits, "bits/dim", "bound", meaning)

    return {
        "elbo_bits": row("ELBO in bits", elbo, "-ELBO"),
        "nll_bits": row("NLL in bits", log_likelihood, "NLL"),
    }


def sentence_metrics(nll: Estimate) -> dict[str, Metric]:
    """Returns the NLL of a token and the perplexity.

    Args:
      nll: nats of a token, from `likelihood.per_token`.
    """
    perplexity = math.exp(min(nll.mean, 700.0))
    # The error is that of the exponential's tangent.
    scaled = dataclasses.replace(nll.scaled(perplexity), mean=perplexity)
    text = "NLL of all sentences over the number of their tokens, ends counted"
    # Key and units stay those of 0.1.0: a comparison leaves out units that differ.
    per_token = Metric.of("NLL of a token", nll, "nats/symbol", "bound", text)
    text = "exp(NLL of a token)"
    return {
        "nll_per_symbol": per_token,
        "perplexity": Metric.of("Perplexity", scaled, "symbols", "bound", text),
    }


def _said(meaning: str, observation: Observation) -> str:
    """Returns the meaning with the caution; the caution alone if it denies it."""
    if not observation.is_likelihood:
        return observation.caution
    return "; ".join(filter(None, (meaning, observation.caution)))


_PARTS = {
    "mutual_info": (
        "Mutual information",
        "I(x; z), from the mixture of all posteriors",
    ),
    "marginal_kl": ("KL(q(z) || p(z))", "how far the codes of the data miss the prior"),
    "total_correlation": (
        "Total correlation",
        "KL(q(z) || prod q(z_d)), 0 for independent dimensions",
    ),
    "dimension_wise_kl": (
        "Dimension-wise KL",
        "sum of KL(q(z_d) || p(z_d)) over dimensions",
    ),
}


def latent_metrics(latents: LatentStatistics) -> dict[str, Metric]:
    """Returns active units and the parts of the KL, those that the posterior has."""
    metrics = {}
    if latents.active is not None:
        metrics["active_units"] = Metric.score(
            "Active units",
            float(latents.active.sum()),
            "dimensions whose posterior mean has a variance over 0.01",
            latents.num_examples,
            f"of {len(latents.active)}",
        )
    if latents.information is None:
        return metrics

    for name, (label, meaning) in _PARTS.items():
        if name in latents.information.terms:
            text = meaning + _reservation(name, latents.information)
            term = latents.information.terms[name]
            is_bound = name in latents.information.at_most
            label = f"{label}, at most" if is_bound else label
            kind: Kind = "bound" if is_bound else "estimate"
            metrics[name] = Metric.of(label, term, "nats", kind, text)

    if latents.draws is not None:
        metrics |= _aggregate_metrics(latents.draws)
    return metrics


def _aggregate_metrics(codes: np.ndarray) -> dict[str, Metric]:
    """Returns how far codes [N, D] miss N(0, I); of few codes fewer numbers.

    None of codes that are not finite.
    """
    count, dims = codes.shape
    metrics: dict[str, Metric] = {}
    if not np.isfinite(codes).all():
        return metrics

    if count > dims:
        bias = aggregate.moment_kl_bias(count, dims)
        metrics["moment_kl"] = Metric.score(
            "KL of the moment-matched Gaussian",
            aggregate.moment_kl(codes),
            "of the Gaussian with the codes' mean and covariance to the prior, at most "
            f"KL(q(z) || p(z)); in the mean {bias:.2g} of {count:,} draws of the prior",
            count,
            "nats",
        )

    if count >= aggregate.MIN_CODES:
        accuracy, used = aggregate.two_sample_accuracy(codes)
        metrics["two_sample_accuracy"] = Metric.score(
            "Two-sample accuracy",
            accuracy,
            f"of a random forest between {used // 2:,} held-out codes and draws of the "
            "prior; 0.5 where they cannot be told apart",
            used,
        )

    return metrics


def scale_metrics(
    scales: Sequence[ScaleStatistics], num_examples: int
) -> dict[str, Metric]:
    """Returns the active units of a hierarchy."""
    active = sum(sum(scale.active) for scale in scales)
    count = sum(len(scale.kl) * scale.num_latents for scale in scales)
    meaning = (
        "latents whose posterior mean, in standard deviations of the prior from its "
        "mean, has a variance over 0.01"
    )
    value, unit = float(active), f"of {count:,}"
    score = Metric.score("Active units", value, meaning, num_examples, unit)
    return {"active_units": score}


def left_out(
    latents: LatentStatistics, uniform_prior: bool, is_generative: bool = True
) -> list[str]:
    """Returns why a report lacks numbers and pictures that others have.

    Args:
      latents: what was found.
      uniform_prior: whether the model's prior is uniform.
      is_generative: whether the model draws images.
    """
    why = {}
    if latents.active is None:
        why["Active units"] = "no means of q(z|x) whose scale the prior would give"
    if latents.information is None:
        why["Mutual information"] = "q(z|x) has no density to evaluate"
    elif "total_correlation" not in latents.information.terms:
        parts = "Total correlation and dimension-wise KL"
        why[parts] = "the dimensions of z are not independent in q(z|x)"
    if not is_generative:
        why["Bounds on log p(x), and images"] = "the model has no p(x|z)"
    elif latents.kl_per_dim is None:
        why["Traversals"] = "the KL is not known dimension by dimension"
    if uniform_prior:
        why["Samples at other temperatures"] = "the prior is uniform"
    return [f"{what}: {reason}." for what, reason in why.items()]


def _reservation(name: str, information: Information) -> str:
    """Returns '' or why the number is not the whole truth."""
    cap = f"log N = {information.cap:.2f}"
    if name in information.clamped:
        return "; the estimate was negative and is set to 0"
    if name == "mutual_info":
        more = ": it is there, the truth may be larger" if information.is_capped else ""
        return f"; cannot exceed {cap}{more}"
    if name in information.at_most:
        share = f"{information.own_share:.0%}"
        return f"; smaller with more examples: q(z|x) is {share} of q(z) at its draw"
    return ""


def format_metric(value: float | None, standard_error: float | None) -> str:
    """Returns 'value ± error', with the digits that the error supports.

    None, as JSON has it, is a number that is not finite.
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    if standard_error is None or not standard_error > 0.0:
        text = f"{value:.0f}" if value == int(value) else f"{value:.4g}"
    else:
        decimals = max(0, min(6, 1 - math.floor(math.log10(standard_error))))
        text = f"{value:.{decimals}f} ± {standard_error:.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}", 1) if value < 0 else text
