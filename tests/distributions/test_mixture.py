"""Mixtures of Gaussians against SciPy, closed forms and their own limits."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.exceptions
import sklearn.mixture

from jvae.distributions import DiagGaussian, GaussianMixture, mixture
from tests.distributions.jitted import log_prob, normal, sample

KEY = jax.random.key(0)
K, B, D = 3, 5, 2


MIXTURE = GaussianMixture(normal(0, K), normal(1, K, D), normal(2, K, D))
Z = normal(3, B, D)
fit = jax.jit(GaussianMixture.fit, static_argnums=(1, 3, 4))


@jax.jit
def densities(p, z):
    return p.joint_log_prob(z), p.log_prob(z), p.log_responsibilities(z)


@jax.jit
def weights_and_variances(p):
    return jnp.exp(p.log_weights), jnp.exp(p.log_vars)


def test_two_components_at_plus_and_minus_two_have_the_known_responsibilities():
    zeros = np.zeros((2, 1), "float32")
    pair = GaussianMixture(zeros[:, 0], np.float32([[2.0], [-2.0]]), zeros)
    found = np.exp(densities(pair, np.float32([[1.0]]))[2])
    np.testing.assert_allclose(found, [[0.982013790, 0.017986210]], rtol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-6)
    log_p = densities(pair, zeros[:1])[1]
    np.testing.assert_allclose(log_p, [-2.918938533], rtol=1e-6)


def test_densities_and_responsibilities_are_those_of_scipy():
    weights = scipy.special.log_softmax(MIXTURE.logits)
    parts = scipy.stats.norm(MIXTURE.means, np.exp(0.5 * MIXTURE.log_vars))
    joint = weights + parts.logpdf(Z[:, None]).sum(-1)
    found_joint, log_p, log_shares = densities(MIXTURE, Z)
    np.testing.assert_allclose(found_joint, joint, rtol=1e-5)
    wanted = scipy.special.logsumexp(joint, axis=1)
    np.testing.assert_allclose(log_p, wanted, rtol=1e-5)
    np.testing.assert_allclose(
        log_shares, joint - wanted[:, None], rtol=1e-4, atol=1e-5
    )


def test_the_kl_to_a_component_is_that_of_two_gaussians():
    q = DiagGaussian(Z, normal(4, B, D))
    found = np.asarray(jax.jit(MIXTURE.kl_per_dim)(q))
    assert found.shape == (B, K, D)
    to_chosen = jax.jit(lambda chosen: q.kl_per_dim(MIXTURE.component(chosen)))
    for k in range(K):
        wanted = to_chosen(np.eye(K, dtype="float32")[np.full(B, k)])
        np.testing.assert_allclose(found[:, k], wanted, rtol=1e-5)


def test_the_order_of_the_components_does_not_matter():
    turned = jax.tree.map(lambda a: a[[2, 0, 1]], MIXTURE)
    np.testing.assert_allclose(log_prob(turned, Z), log_prob(MIXTURE, Z), rtol=1e-6)


@jax.jit
def sum_and_gradient(p, z):
    return jax.value_and_grad(lambda z: p.log_prob(z).sum())(z)


@pytest.mark.parametrize("logit", [-1e4, -np.inf], ids=["hardly there", "empty"])
def test_a_component_without_weight_or_far_away_leaves_finite_numbers(logit):
    logits, far = MIXTURE.logits.copy(), MIXTURE.means.copy()
    logits[0], far[1] = logit, 1e4
    found = MIXTURE.replace(logits=logits, means=far)
    value, gradient = sum_and_gradient(found, Z)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    shares = np.exp(densities(found, Z)[2])
    np.testing.assert_allclose(shares, np.tile([0.0, 0.0, 1.0], (B, 1)), atol=1e-6)


def test_draws_have_the_mean_and_variance_of_the_mixture():
    """20,000 draws, within 4 standard errors of what the components add up to."""
    z = np.asarray(sample(MIXTURE, KEY, 20_000), np.float64)
    weights = scipy.special.softmax(MIXTURE.logits)
    mean = weights @ MIXTURE.means
    second = weights @ (np.exp(MIXTURE.log_vars) + np.square(MIXTURE.means))
    error = z.std(0) / np.sqrt(len(z))
    np.testing.assert_array_less(np.abs(z.mean(0) - mean), 4 * error)
    np.testing.assert_allclose(z.var(0), second - mean**2, rtol=0.1)


def test_at_temperature_zero_draws_are_means_and_rows_keep_their_keys():
    each = jax.random.split(KEY, 8)
    cold = jax.jit(MIXTURE.sample, static_argnums=1)
    z = np.asarray(cold(each, 8, temperature=0.0))
    distance = np.abs(z[:, None] - MIXTURE.means[None]).max(-1).min(-1)
    np.testing.assert_allclose(distance, 0.0, atol=1e-6)
    np.testing.assert_array_equal(cold(each[3:], 5, temperature=0.0), z[3:])


def test_latents_of_another_size_are_refused_instead_of_broadcast():
    with pytest.raises(AssertionError):
        MIXTURE.log_prob(np.zeros((B, 1), "float32"))


BLOBS = normal(5, 300, D) * 0.3 + np.repeat([[0, 0], [4, 0], [0, -5]], 100, axis=0)
BLOBS = BLOBS.astype("float32")


def test_a_step_of_expectation_maximization_is_that_of_scikit_learn():
    """It starts with a step M, so its start is the mixture after ours."""
    fitted = sklearn.mixture.GaussianMixture(
        K,
        covariance_type="diag",
        max_iter=4,
        tol=0.0,
        weights_init=scipy.special.softmax(MIXTURE.logits),
        means_init=MIXTURE.means,
        precisions_init=np.exp(-MIXTURE.log_vars),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        fitted.fit(BLOBS.astype(np.float64))
    found = MIXTURE
    step = jax.jit(GaussianMixture.refitted)
    for _ in range(4):
        found = step(found, BLOBS)
    weights, variances = weights_and_variances(found)
    np.testing.assert_allclose(weights, fitted.weights_, rtol=1e-3)
    np.testing.assert_allclose(found.means, fitted.means_, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(variances, fitted.covariances_, rtol=2e-3)


def test_a_fit_finds_blobs_that_lie_apart():
    found = jax.device_get(fit(BLOBS, K, KEY))
    weights, variances = jax.device_get(weights_and_variances(found))
    order = np.lexsort((found.means[:, 1].round(), found.means[:, 0].round()))
    means = BLOBS.reshape(3, 100, D).mean(1)
    np.testing.assert_allclose(found.means[order], means[[2, 0, 1]], atol=1e-3)
    np.testing.assert_allclose(weights, 1 / 3, rtol=1e-3)
    wanted = BLOBS.reshape(3, 100, D).var(1)[np.array([2, 0, 1])]
    np.testing.assert_allclose(variances[order], wanted, rtol=1e-2)


@pytest.mark.slow
def test_of_several_starts_the_likeliest_is_taken():
    one = [fit(BLOBS, 4, k, 1, 3) for k in jax.random.split(KEY, 4)]
    best = max(np.asarray(log_prob(mixture, BLOBS)).mean() for mixture in one)
    found = fit(BLOBS, 4, KEY, 4, 3)
    assert np.asarray(log_prob(found, BLOBS)).mean() >= best - 1e-4


def test_points_that_are_all_the_same_have_a_fit():
    found = fit(np.ones((7, D), "float32"), K, KEY, 2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    np.testing.assert_allclose(found.means, 1.0, rtol=1e-5)


def test_a_fit_begins_at_points_drawn_by_their_squared_distance_from_those_before():
    """20,000 times three of four points; each triple within 5 standard errors."""
    z = np.array([[0, 0, 0], [1, 0, 1], [0, 3, 1], [4, 4, 0]], np.float32)
    count, distance = 20_000, np.square(z[:, None] - z[None]).sum(-1)
    points = jnp.asarray(z)
    draw = jax.jit(jax.vmap(lambda key: mixture._apart(points, 3, key)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(3), count)))
    indices = (drawn[:, :, None] == z).all(-1).argmax(-1)
    for a, b, c in itertools.permutations(range(4), 3):
        second = distance[a, b] / distance[a].sum()
        nearest = np.minimum(distance[a], distance[b])
        p = second * nearest[c] / nearest.sum() / 4
        found = (indices == (a, b, c)).all(1).sum()
        assert abs(found - count * p) < 5 * np.sqrt(count * p * (1 - p))
