"""Diagonal Gaussians against SciPy, NumPyro and algebra."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import scipy.stats

from jvae.distributions import DiagGaussian, kl_per_group
from tests.distributions.jitted import normal

KEY = jax.random.key(0)


@jax.jit
def log_prob(p, x):
    return p.log_prob(x)


@jax.jit
def kl(q, p):
    return q.kl_to(p)


@functools.partial(jax.jit, static_argnums=2)
def sample(p, key, n=None):
    return p.sample(key, n)


def gaussians(seed, *shape):
    return DiagGaussian(normal(seed, *shape), normal(seed + 1, *shape))


@pytest.mark.parametrize("seed", range(5))
def test_gaussian_log_prob_entropy_and_kl_match_scipy_and_numpyro(seed):
    q, p, z = gaussians(seed, 5, 4), gaussians(seed + 9, 5, 4), normal(seed, 5, 4)
    std = np.exp(0.5 * q.log_var)
    expected = scipy.stats.norm.logpdf(z, q.mean, std).sum(-1)
    np.testing.assert_allclose(log_prob(q, z), expected, rtol=1e-5)
    expected = np.log(std * math.sqrt(2 * math.pi * math.e)).sum(-1)
    np.testing.assert_allclose(jax.jit(DiagGaussian.entropy)(q), expected, rtol=1e-5)
    np.testing.assert_allclose(kl(q, p), numpyro_kl(q, p), rtol=1e-5)


@jax.jit
def numpyro_kl(q, p):
    q, p = (npd.Normal(d.mean, jnp.exp(0.5 * d.log_var)).to_event(1) for d in (q, p))
    return npd.kl_divergence(q, p)


@pytest.mark.parametrize(
    ("mean", "log_var", "dims", "nats"),
    [
        (0.0, 0.0, 1, 0.0),
        (1.0, 0.0, 1, 0.5),
        (1.0, 0.0, 10, 5.0),
        (0.0, 1.0, 1, 0.359140914),
        (0.0, -1.0, 1, 0.183939721),
        (1.0, 1.0, 10, 8.591409142),
        (2.0, 2 * math.log(0.5), 1, 2.318147181),
    ],
)
def test_kl_to_the_standard_normal_has_its_known_values(mean, log_var, dims, nats):
    counted = np.arange(10.0)[None] < dims  # the other dimensions are the prior's
    q = DiagGaussian(np.where(counted, mean, 0.0), np.where(counted, log_var, 0.0))
    found = jax.jit(DiagGaussian.kl_to_standard_normal)(q)
    np.testing.assert_allclose(found, [nats], rtol=1e-5)
    np.testing.assert_allclose(kl(q, DiagGaussian.standard(1, 10)), found, rtol=1e-6)


@pytest.mark.parametrize(("z", "value"), [(0.0, -0.918938533), (1.0, -1.418938533)])
def test_standard_normal_log_density_has_its_constant(z, value):
    found = log_prob(DiagGaussian.standard(1, 1), np.full((1, 1), z))
    np.testing.assert_allclose(found, [value], rtol=1e-6)


def test_kl_is_never_negative_and_zero_against_itself():
    mean, log_var, other = np.meshgrid(
        [-1e3, -1e-3, 0.0, 1e-6, 2.0],
        np.linspace(-15, 10, 41),
        np.linspace(-15, 10, 41),
    )
    q, p = (
        DiagGaussian(m.reshape(-1, 1), v.reshape(-1, 1))
        for m, v in ((mean, log_var), (np.zeros_like(mean), other))
    )
    assert np.min(kl(q, p)) >= 0.0
    np.testing.assert_array_equal(kl(q, q), np.zeros(mean.size))


@pytest.mark.parametrize("log_var", [1e-2, 1e-4, -1e-3])
def test_kl_near_the_prior_does_not_cancel(log_var):
    q = DiagGaussian(np.zeros((1, 1)), np.full((1, 1), log_var))
    expected = 0.5 * (log_var**2 / 2 + log_var**3 / 6)
    found = kl(q, DiagGaussian.standard(1, 1))
    np.testing.assert_allclose(found, [expected], rtol=2e-3)


def test_monte_carlo_kl_agrees_with_the_closed_form():
    """100,000 draws: within 4 standard errors, and within 0.02 nats a dimension."""
    q = DiagGaussian(normal(3, 2, 3, scale=0.7), normal(4, 2, 3, scale=0.5))
    p = DiagGaussian.standard(2, 3)
    z = sample(q, KEY, 100_000)
    ratios = np.asarray(jax.jit(jax.vmap(lambda z: q.log_prob(z) - p.log_prob(z)))(z))
    error = np.abs(ratios.mean(0) - kl(q, p))
    assert np.all(error < 4 * ratios.std(0) / math.sqrt(len(z)))
    assert np.all(error < 0.02 * 3)


def test_of_bfloat16_parameters_kl_and_entropy_are_those_of_float32():
    arrays = (jnp.asarray(normal(i, 4, 256), jnp.bfloat16) for i in range(2))
    narrow = DiagGaussian(*arrays)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), narrow)
    for reduction in (DiagGaussian.kl_to_standard_normal, DiagGaussian.entropy):
        np.testing.assert_allclose(reduction(narrow), reduction(wide), rtol=1e-6)


def test_reductions_are_float32_for_bfloat16_parameters():
    q = DiagGaussian(*2 * (jnp.ones((2, 3), jnp.bfloat16),))
    reductions = jax.eval_shape(
        lambda q: (q.log_prob(q.mean), q.entropy(), q.kl_to_standard_normal()), q
    )
    assert {r.dtype for r in reductions} == {jnp.dtype("float32")}


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_temperature_scales_the_standard_deviation(temperature):
    q = gaussians(1, 4, 3)
    cooler = jax.jit(DiagGaussian.tempered)(q, temperature)
    std = np.exp(0.5 * q.log_var)
    np.testing.assert_allclose(np.exp(0.5 * cooler.log_var), temperature * std, 1e-6)
    expected = q.mean + temperature * (np.asarray(sample(q, KEY)) - q.mean)
    np.testing.assert_allclose(sample(cooler, KEY), expected, atol=1e-5)


def test_a_draw_has_the_gradient_of_mean_plus_std_times_noise():
    q = gaussians(1, 4, 3)
    gradient = jax.jit(jax.grad(lambda q: q.sample(KEY).sum()))(q)
    np.testing.assert_allclose(gradient.mean, np.ones((4, 3)))
    noise = np.asarray(sample(q, KEY)) - q.mean
    np.testing.assert_allclose(gradient.log_var, 0.5 * noise, atol=1e-5)


def test_closed_form_kl_has_a_group_per_dimension_where_both_are_gaussian():
    q, p = gaussians(1, 4, 3), gaussians(5, 4, 3)
    groups = np.asarray(jax.jit(kl_per_group)(q, p))
    assert groups.shape == (4, 3)
    np.testing.assert_allclose(groups.sum(-1), kl(q, p), rtol=1e-6)


def test_closed_form_kl_is_none_where_either_side_offers_a_density_only():
    class DensityOnly:
        def log_prob(self, z):
            return z.sum(-1)

    q = gaussians(1, 4, 3)
    assert kl_per_group(q, DensityOnly()) is None
    assert kl_per_group(DensityOnly(), q) is None
