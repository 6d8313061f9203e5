"""Codes beside a standard normal prior, where the truth is known."""

import math

import jax
import numpy as np
import pytest

from jvae.distributions import DiagGaussian
from jvae.evaluation import aggregate
from jvae.evaluation.latents import LatentStatistics, information
from jvae.evaluation.metrics import latent_metrics


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_the_kl_of_moments_is_that_of_their_gaussian():
    codes = normal(200, 3) @ normal(3, 3, seed=1) + [1.0, 0.0, -2.0]
    mean, covariance = codes.mean(0), np.cov(codes.T, bias=True)
    values = np.linalg.eigvalsh(covariance)
    wanted = 0.5 * (values - 1.0 - np.log(values)).sum() + 0.5 * mean @ mean
    assert aggregate.moment_kl(codes) == pytest.approx(wanted)
    assert aggregate.moment_kl(codes[:, :1]) < wanted


def test_draws_of_the_prior_have_the_bias_that_is_said():
    """The mean of 100 sets, within four of its standard errors."""
    for count, dims in ((400, 8), (60, 40)):
        found = [aggregate.moment_kl(normal(count, dims, seed=s)) for s in range(100)]
        error = np.std(found) / 10.0
        bias = aggregate.moment_kl_bias(count, dims)
        assert np.mean(found) == pytest.approx(bias, abs=4.0 * error)
    assert aggregate.moment_kl_bias(10**6, 3) == pytest.approx(18 / 4e6, rel=1e-3)


def test_codes_that_are_not_finite_are_no_codes_to_compare():
    parts = information(DiagGaussian.standard(60, 2), np.zeros((60, 2), "float32"))
    codes = np.where(np.arange(60)[:, None] == 7, np.inf, normal(60, 2))
    found = latent_metrics(
        LatentStatistics(np.ones(2), 60, np.eye(60, 2), parts, codes)
    )
    assert not {"moment_kl", "two_sample_accuracy"} & found.keys()


def test_codes_of_a_ring_are_told_from_the_prior_though_their_moments_are_its():
    """Half of 2,000 decisions have the standard error 0.011."""
    angle = 2.0 * np.pi * np.random.default_rng(0).random(2000)
    ring = math.sqrt(2.0) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    assert aggregate.moment_kl(ring) < 0.01
    accuracy, count = aggregate.two_sample_accuracy(ring)
    assert accuracy > 0.9 and count == 2000
    same, _ = aggregate.two_sample_accuracy(normal(2000, 2))
    assert abs(same - 0.5) < 0.05


def test_numbers_that_no_cap_limits_stand_beside_those_that_it_does():
    """2,000 narrow posteriors whose mixture over all data would be exactly N(0, I).

    log 2,000 of their 37 nats are seen as information, 29 as a miss of the prior.
    """
    width, shape = 0.1, (2000, 16)
    means = math.sqrt(1.0 - width**2) * normal(*shape)
    q = DiagGaussian(np.float32(means), np.full(shape, 2 * math.log(width), "float32"))
    z = q.sample(jax.random.key(0))
    log_prior = DiagGaussian.standard(*shape).log_prob(z)
    parts = information(q, z, log_prior=log_prior)
    assert parts.at_most == ("marginal_kl", "total_correlation")
    assert parts.terms["marginal_kl"].mean > 25.0

    found = latent_metrics(
        LatentStatistics(np.ones(16), 2000, means, parts, np.asarray(z))
    )
    for name in parts.at_most:
        assert found[name].label.endswith(", at most") and found[name].kind == "bound"
        assert "smaller with more examples" in found[name].meaning
    assert found["dimension_wise_kl"].value < 0.2
    assert found["moment_kl"].value < 2 * aggregate.moment_kl_bias(*shape)
    assert abs(found["two_sample_accuracy"].value - 0.5) < 0.05


@pytest.mark.parametrize(
    ("dims", "widths", "is_bound"),
    [
        (2, (0.9,), False),
        (2, (0.5,), False),
        (2, (0.01,), True),
        (16, (0.5,), True),
        (16, (0.1, 0.95), True),
        (16, (0.95,), False),
    ],
)
def test_what_more_examples_would_make_smaller_is_called_a_bound(
    dims, widths, is_bound
):
    """The mixture over all data is exactly N(0, I): the truth is 0.

    Of half the examples the information is over its cap where the mean is far below.
    """
    shape = (2000, dims)
    width = np.resize(widths, 2000)[:, None] * np.ones(dims)
    means = np.sqrt(1.0 - width**2) * normal(*shape)
    q = DiagGaussian(*np.float32((means, 2.0 * np.log(width))))
    z = q.sample(jax.random.key(0))
    log_prior = DiagGaussian.standard(*shape).log_prob(z)
    parts = information(q, z, log_prior=log_prior)
    assert (parts.terms["marginal_kl"].mean > 0.3) == is_bound
    assert (parts.at_most == ("marginal_kl", "total_correlation")) == is_bound
    assert not parts.is_capped


def test_few_codes_have_no_such_numbers():
    parts = information(
        DiagGaussian(np.zeros((8, 8), "float32"), np.zeros((8, 8), "float32")),
        np.zeros((8, 8), "float32"),
    )
    statistics = LatentStatistics(np.ones(8), 8, np.eye(8), parts, np.eye(8))
    assert not {"moment_kl", "two_sample_accuracy"} & set(latent_metrics(statistics))
