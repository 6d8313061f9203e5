"""Categorical codes and their relaxation: frequencies, limits, densities, the KL."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jvae import keys
from jvae.distributions import DiagGaussian, Distribution, GumbelSoftmax, kl_per_group
from tests.distributions.jitted import log_prob, normal, sample
from tests.tiers import others_slow

KEY = jax.random.key(0)
N = 40_000


LOGITS = normal(0, 5, 3, 4, scale=1.5)  # 5 examples, 3 variables, 4 values
TEMPERATURES = [None, 0.01, 0.5, 1.0, 10.0]


@jax.jit
def kl_to(q, p):
    return q.kl_to(p)


@jax.jit
def sample_and_log_ratio(q, p, key):
    return q.sample_and_log_ratio(key, p)


@pytest.mark.parametrize("temperature", others_slow(list(TEMPERATURES), None, 0.5))
def test_the_argmax_of_a_draw_has_the_frequencies_of_the_softmax(temperature):
    """Gumbel-max: 40,000 draws of 15 variables, at any temperature."""
    draws = np.asarray(sample(GumbelSoftmax(LOGITS, temperature), KEY, N))
    found = np.eye(4)[draws.argmax(-1)].mean(0)
    wanted = scipy.special.softmax(LOGITS, -1)
    error = np.sqrt(wanted * (1 - wanted) / N)
    assert np.all(np.abs(found - wanted) < 4.5 * error)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_draws_are_points_of_the_simplex(temperature):
    z = np.asarray(sample(GumbelSoftmax(LOGITS, temperature), KEY, 100))
    assert z.shape == (100, *LOGITS.shape) and z.dtype == np.float32
    assert z.min() >= 0.0
    np.testing.assert_allclose(z.sum(-1), 1.0, atol=1e-6)


def test_a_relaxed_draw_goes_to_the_one_hot_draw_of_its_key():
    one_hot = np.asarray(sample(GumbelSoftmax(LOGITS), KEY))
    assert set(np.unique(one_hot)) == {0.0, 1.0}
    distances = [
        np.abs(np.asarray(sample(GumbelSoftmax(LOGITS, t), KEY)) - one_hot).max()
        for t in (1.0, 0.1, 1e-3)
    ]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-6


def test_a_large_temperature_gives_the_center_of_the_simplex():
    z = sample(GumbelSoftmax(LOGITS, 1e4), KEY)
    np.testing.assert_allclose(z, 0.25, atol=1e-3)


def test_every_example_may_have_a_temperature_of_its_own():
    each = np.array([0.1, 0.5, 1.0, 2.0, 9.0], "float32")
    key = keys.per_example(KEY, 5)
    together = np.asarray(sample(GumbelSoftmax(LOGITS, each), key))
    log_together = np.asarray(log_prob(GumbelSoftmax(LOGITS, each), together))
    for i, t in enumerate(each):
        alone = GumbelSoftmax(LOGITS[i : i + 1], float(t))
        z = np.asarray(sample(alone, key[i : i + 1]))
        np.testing.assert_allclose(z[0], together[i], rtol=1e-5, atol=1e-30)
        np.testing.assert_allclose(log_prob(alone, z), log_together[[i]], rtol=1e-4)


def test_kl_to_uniform_is_the_negative_entropy_plus_n_log_k():
    """With the offset kept: 32 variables of 10 values, 73.683 nats."""
    q = GumbelSoftmax(normal(1, 6, 32, 10, scale=3.0), 0.5)
    kl = kl_to(q, GumbelSoftmax.uniform(6, 32, 10))
    p = scipy.special.softmax(q.logits.astype(np.float64), -1)
    without_offset = (p * np.log(p)).sum((1, 2))
    np.testing.assert_allclose(kl, without_offset + 73.682723, rtol=1e-5)
    wanted = [
        sum(scipy.stats.entropy(p[b, i], np.full(10, 0.1)) for i in range(32))
        for b in range(6)
    ]
    np.testing.assert_allclose(kl, wanted, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(q.entropy)(), -without_offset, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 0.1, 1.0, 10.0, 1e4])
def test_kl_to_uniform_is_between_zero_and_n_log_k(scale):
    q = GumbelSoftmax(normal(2, 6, 32, 10, scale=scale))
    kl = np.asarray(kl_to(q, GumbelSoftmax.uniform(6, 32, 10)))
    most = 32 * math.log(10)
    assert np.all(kl >= -1e-5) and np.all(kl <= most * (1 + 1e-6))
    assert (scale > 0) or np.all(np.abs(kl) < 1e-5)
    assert (scale < 1e4) or np.all(kl > 0.99 * most)


def test_a_group_of_the_kl_is_a_variable():
    q, p = GumbelSoftmax(LOGITS, 0.5), GumbelSoftmax(normal(3, 5, 3, 4))
    groups = np.asarray(jax.jit(kl_per_group)(q, p))
    assert groups.shape == (5, 3)
    np.testing.assert_allclose(groups.sum(-1), kl_to(q, p), rtol=1e-5)
    one = kl_to(GumbelSoftmax(q.logits[:, 1:2]), GumbelSoftmax(p.logits[:, 1:2]))
    np.testing.assert_allclose(groups[:, 1], one, rtol=1e-5)
    assert kl_per_group(q, DiagGaussian.standard(5, 3, 4)) is None
    np.testing.assert_allclose(kl_to(q, q), 0.0, atol=1e-6)


def test_a_value_that_is_ruled_out_counts_for_nothing():
    """Numbers and gradients are those of the variable without it."""

    def numbers(logits, uniform):
        q = GumbelSoftmax(logits)
        first = jax.nn.one_hot(jnp.zeros((1, 1), int), logits.shape[-1])
        return q.kl_to(uniform), q.entropy(), q.log_prob(first)

    left = jnp.array([[[0.5, 1.0, -0.3]]])
    with_it = jnp.concatenate([left, jnp.full((1, 1, 1), -jnp.inf)], axis=-1)
    wanted = jax.jit(numbers)(left, GumbelSoftmax.uniform(1, 1, 3))
    found = jax.jit(numbers)(with_it, GumbelSoftmax.uniform(1, 1, 4))
    wanted = (wanted[0] + math.log(4 / 3), *wanted[1:])  # of the larger uniform
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    jacobian = jax.jit(jax.jacrev(numbers))
    slopes = jacobian(with_it, GumbelSoftmax.uniform(1, 1, 4))
    others = jacobian(left, GumbelSoftmax.uniform(1, 1, 3))
    for slope, other in zip(slopes, others, strict=True):
        np.testing.assert_allclose(slope[..., :3], other, atol=1e-6)
        np.testing.assert_array_equal(slope[..., 3], 0.0)
    never = GumbelSoftmax(with_it).log_prob(jax.nn.one_hot(jnp.full((1, 1), 3), 4))
    assert np.isneginf(never)


def test_without_a_temperature_log_prob_is_that_of_the_categorical():
    q = GumbelSoftmax(LOGITS)
    z = np.asarray(sample(q, KEY))
    log_p = scipy.special.log_softmax(LOGITS, -1)
    found = np.asarray(log_prob(q, z))
    np.testing.assert_allclose(found, (z * log_p).sum((1, 2)), rtol=1e-5)
    every = np.eye(4, dtype="float32").repeat(3, 0).reshape(4, 3, 4)  # each value
    repeated = GumbelSoftmax(np.repeat(LOGITS[:1], 4, 0))
    total = np.exp(jax.jit(repeated.log_prob_per_dim)(every)).sum(0)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    best = np.asarray(jax.jit(lambda q: q.mode)(q))
    np.testing.assert_array_equal(best.argmax(-1), LOGITS.argmax(-1))
    assert np.all(np.asarray(log_prob(q, best)) >= found)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_density_of_two_values_is_the_logistic_normal_form_of_its_logit(
    temperature,
):
    """z_1 = sigmoid((a + L) / t) with L logistic: a change of variables, by SciPy."""
    logits = np.array([[[0.7, -0.4]]], "float32")
    z1 = np.array([0.01, 0.2, 0.5, 0.9, 0.999])
    logit, a = scipy.special.logit(z1), 1.1
    wanted = scipy.stats.logistic.logpdf(temperature * logit - a)
    wanted += math.log(temperature) - np.log(z1) - np.log1p(-z1)
    z = np.stack([z1, 1 - z1], -1)[:, None].astype("float32")
    q = GumbelSoftmax(np.repeat(logits, 5, 0), temperature)
    np.testing.assert_allclose(log_prob(q, z), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_the_density_of_three_values_has_mass_one(temperature):
    """On a grid of log-ratios, where the density has no poles."""
    step = np.linspace(-28.0, 28.0, 401)
    a, b = np.meshgrid(step, step, indexing="ij")
    log_z = scipy.special.log_softmax(np.stack([a, b, 0 * a], -1), -1).reshape(-1, 1, 3)
    logits = np.broadcast_to(np.array([[[0.5, -1.0, 0.2]]], "float32"), log_z.shape)
    q = GumbelSoftmax(logits, temperature)
    log_density = log_prob(q, np.exp(log_z).astype("float32"))
    # d z_1 d z_2 = z_1 z_2 z_3 d a d b
    mass = (
        np.exp(np.float64(log_density) + log_z.sum((1, 2))).sum()
        * (step[1] - step[0]) ** 2
    )
    np.testing.assert_allclose(mass, 1.0, rtol=1e-3)


def test_relaxed_importance_weights_have_mean_one():
    """E_q p(z) / q(z) = 1 for the densities of relaxed variables."""
    q = GumbelSoftmax(np.repeat(LOGITS[:1, :1] * 0.5, N, 0), 0.5)
    p = GumbelSoftmax.uniform(N, 1, 4, 0.5)
    z, log_ratio = sample_and_log_ratio(q, p, KEY)
    weights = np.exp(-np.asarray(log_ratio, np.float64))
    assert abs(weights.mean() - 1.0) < 4 * weights.std() / math.sqrt(N)
    wanted = np.subtract(log_prob(q, z), log_prob(p, z))
    np.testing.assert_allclose(log_ratio, wanted, rtol=1e-3, atol=1e-3)


def test_the_log_ratio_of_a_draw_is_exact_where_its_coordinates_underflow():
    """At temperature 0.01, against the formula in float64 with the same noise."""
    q, p = GumbelSoftmax(LOGITS, 0.01), GumbelSoftmax.uniform(5, 3, 4, 0.01)
    each = keys.per_example(KEY, 5)
    z, log_ratio = sample_and_log_ratio(q, p, each)
    assert np.sum(np.asarray(z) == 0.0) > 20  # log z is not to be had from z
    noise = jax.jit(jax.vmap(lambda k: jax.random.gumbel(k, (12,))))(each)
    noise = np.asarray(noise).reshape(5, 3, 4)
    log_p = scipy.special.log_softmax(LOGITS.astype(np.float64), -1)
    log_z = scipy.special.log_softmax((log_p + noise) / 0.01, -1)

    def density(log_alpha):  # but for what cancels
        scores = log_alpha - 0.01 * log_z
        return scores.sum(-1) - 4 * scipy.special.logsumexp(scores, -1)

    wanted = (density(log_p) - density(np.full((5, 3, 4), -math.log(4)))).sum(-1)
    np.testing.assert_allclose(log_ratio, wanted, rtol=1e-3, atol=1e-3)


def test_the_log_ratio_of_one_hot_draws_has_the_kl_as_its_mean():
    q = GumbelSoftmax(np.repeat(LOGITS[:1], N, 0))
    p = GumbelSoftmax.uniform(N, 3, 4)
    ratio = np.asarray(sample_and_log_ratio(q, p, KEY)[1])
    kl = np.asarray(kl_to(q, p))[0]
    assert abs(ratio.mean() - kl) < 4 * ratio.std() / math.sqrt(N)


def test_the_gradient_of_a_relaxed_expectation_is_that_of_its_integral():
    """E f(z_1) with two values: 40,000 paths against quadrature over the noise."""
    temperature, logit = 0.6, 0.8

    def f(z):
        return jnp.square(z[..., 0] - 0.2)

    @jax.jit
    @jax.vmap
    def path(key):
        def value(a):
            logits = jnp.stack([a, jnp.zeros(())]).reshape(1, 1, 2)
            return f(GumbelSoftmax(logits, temperature).sample(key[None])).sum()

        return jax.grad(value)(jnp.float32(logit))

    def integral(a):
        u = (np.arange(200_000) + 0.5) / 200_000  # quantiles of the logistic
        z1 = scipy.special.expit((a + scipy.special.logit(u)) / temperature)
        return np.square(z1 - 0.2).mean()

    found = np.asarray(path(jax.random.split(KEY, N)))
    wanted = (integral(logit + 1e-3) - integral(logit - 1e-3)) / 2e-3
    assert abs(found.mean() - wanted) < 4 * found.std() / math.sqrt(N)


def test_a_one_hot_draw_has_no_gradient():
    total = jax.jit(jax.grad(lambda a: GumbelSoftmax(a).sample(KEY)[..., 0].sum()))
    gradient = total(LOGITS)
    np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_it_has_densities_means_and_draws_of_one_shape(temperature):
    q = GumbelSoftmax(LOGITS, temperature)
    assert isinstance(q, Distribution)
    all_of = jax.jit(lambda q, key: (*q.sample_and_log_prob(key), q.mean, q.mode))
    z, log_q, mean, mode = jax.device_get(all_of(q, KEY))
    assert z.shape == mean.shape == mode.shape == LOGITS.shape
    assert log_q.shape == (5,) and log_q.dtype == jnp.float32
    np.testing.assert_allclose(log_q, log_prob(q, z), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(mean, scipy.special.softmax(LOGITS, -1), rtol=1e-5)
    with pytest.raises(AssertionError):
        q.log_prob(z[:, :1])


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_a_draw_depends_on_its_own_key_and_example_alone(temperature):
    q, each = GumbelSoftmax(LOGITS, temperature), keys.per_example(KEY, 5)
    whole, order = np.asarray(sample(q, each)), np.array([2, 0, 4, 3, 1])
    np.testing.assert_array_equal(sample(q, KEY), whole)
    shuffled = sample(GumbelSoftmax(LOGITS[order], temperature), each[order])
    np.testing.assert_array_equal(shuffled, whole[order])
    many = np.asarray(sample(q, each, 2))
    split = jax.jit(keys.split_each, static_argnums=1)
    for j, draw_keys in enumerate(split(each, 2)):
        np.testing.assert_allclose(many[j], sample(q, draw_keys), rtol=1e-5, atol=1e-30)
