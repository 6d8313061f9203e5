import dataclasses
import math

import numpy as np
import pytest

from jvae.evaluation.latents import Information, LatentStatistics
from jvae.evaluation.metrics import format_metric, latent_metrics, likelihood_metrics
from jvae.pretrained.likelihood import GREY_BERNOULLI, Estimate, Observation

BOUNDS = {
    "log_p": np.array([-84.0, -88.0]),
    "log_likelihood": np.array([-70.0, -70.0]),
    "kl": np.array([[12.0, 6.0], [20.0, 2.0]]),
}


def rows(observation):
    seen = dataclasses.replace(observation, num_dims=784)
    return likelihood_metrics(BOUNDS, 100, seen)


def test_nll_is_positive_and_both_bounds_have_bits_where_levels_are_discrete():
    found = rows(Observation("Bernoulli", True, True, ""))
    assert (found["nll"].value, found["nll"].standard_error) == (86.0, 2.0)
    assert (found["elbo"].value, found["elbo"].standard_error) == (-90.0, 2.0)
    assert (found["kl"].value, found["log_likelihood"].value) == (20.0, -70.0)
    assert {row.num_samples for row in found.values()} == {100}
    assert found["nll_bits"].value == pytest.approx(86.0 / (784 * math.log(2)))
    assert found["elbo_bits"].value == pytest.approx(90.0 / (784 * math.log(2)))
    assert {row.kind for row in found.values()} == {"bound", "estimate"}


def test_a_density_is_a_bound_without_bits():
    found = rows(Observation("Gaussian", True, False, "a density"))
    assert found.keys() == {"elbo", "nll", "log_likelihood", "kl"}
    assert found["nll"].kind == "bound" and "a density" in found["nll"].meaning


def test_a_density_of_noised_levels_has_the_bits_of_its_bins_too():
    found = rows(Observation("Gaussian", True, False, "a density", bin_bits=8))
    wanted = 86.0 / (784 * math.log(2)) + 8
    assert found["nll_bits"].value == pytest.approx(wanted)
    assert found["elbo_bits"].value == pytest.approx(wanted + 4 / (784 * math.log(2)))
    assert found["nll_bits"].meaning.startswith("NLL / (784 ln 2) + 8; of levels")
    assert "a density" in found["nll"].meaning


@pytest.mark.parametrize(("given", "x", "z"), [("", "x", "z"), ("|y", "x|y", "z|y")])
def test_with_a_prior_per_class_the_bounds_are_on_the_density_given_the_class(
    given, x, z
):
    found = rows(Observation("Bernoulli", True, True, "", given))
    assert found["elbo"].meaning.startswith(f"lower bound on log p({x}), the mean")
    assert found["nll"].meaning.startswith(f"upper bound on -log p({x}), from 100")
    assert found["kl"].label == f"KL(q(z|x) || p({z}))"


def test_cross_entropy_on_gray_values_is_never_called_a_likelihood():
    found = rows(Observation("Bernoulli", False, False, GREY_BERNOULLI))
    for name in ("elbo", "nll", "log_likelihood"):
        assert found[name].meaning == GREY_BERNOULLI
        assert found[name].kind != "bound"
    assert not any(row.unit == "bits/dim" for row in found.values())


def test_caps_and_clamped_terms_are_said_beside_the_number():
    terms = {
        name: Estimate(0.0, 0.1, 64) for name in ("marginal_kl", "total_correlation")
    }
    terms["mutual_info"] = Estimate(4.15, 0.0, 64)
    parts = Information(terms, ("total_correlation",), math.log(64), 0.9)
    found = latent_metrics(LatentStatistics(np.ones(3), 64, np.eye(3), parts))
    assert "cannot exceed log N = 4.16" in found["mutual_info"].meaning
    assert "may be larger" in found["mutual_info"].meaning
    assert "negative" in found["total_correlation"].meaning
    assert "smaller with more" in found["marginal_kl"].meaning
    assert found["active_units"].value == 3.0
    assert found["active_units"].unit == "of 3"


def test_latents_without_a_diagonal_posterior_have_no_such_numbers():
    assert latent_metrics(LatentStatistics(np.ones(3), 64)) == {}


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-86.2449, 0.3123, "−86.24 ± 0.31"),
        (0.51234, 0.0048, "0.5123 ± 0.0048"),
        (1234.5, 23.0, "1234 ± 23"),
        (12.0, None, "12"),
        (0.0, 0.0, "0"),
        (1.23456, None, "1.235"),
        (None, None, "not finite"),
        (math.inf, None, "not finite"),
    ],
)
def test_values_have_the_digits_that_their_error_supports(value, error, text):
    assert format_metric(value, error) == text
