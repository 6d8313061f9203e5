"""What every kind of distribution has, and the plain kinds against SciPy."""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import scipy.special
import scipy.stats

from jvae import keys
from jvae.distributions import (
    Bernoulli,
    Categorical,
    DiagGaussian,
    DiscretizedLogistic,
    Distribution,
    Gaussian,
    as_distribution,
    kl_per_group,
    softplus,
)
from tests.distributions.jitted import log_prob, mean, normal, sample

KEY = jax.random.key(0)


SHAPE = (4, 1, 1, 3)


def test_every_kind_has_densities_means_and_samples_of_one_shape(p):
    assert isinstance(p, Distribution)
    x = sample(p, KEY)
    assert x.shape == mean(p).shape == SHAPE
    assert log_prob(p, x).shape == (4,)
    assert log_prob(p, x).dtype == jnp.float32


def test_parameters_of_bfloat16_are_widened_before_anything_is_computed(p):
    narrow = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), p)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), narrow)
    x = sample(wide, KEY)
    np.testing.assert_allclose(log_prob(narrow, x), log_prob(wide, x), rtol=1e-6)


def test_data_of_another_shape_are_refused_instead_of_broadcast(p):
    if not isinstance(p, DiagGaussian):  # a likelihood
        with pytest.raises(AssertionError):
            p.log_prob(np.zeros((4, 1, 1, 1)))


def test_a_draw_depends_on_its_own_key_and_example_alone(p):
    each = keys.per_example(KEY, 4)
    whole = np.asarray(sample(p, each))
    assert np.any(np.asarray(sample(p, jax.random.key(1))) != whole)
    order = np.array([2, 0, 3, 1])
    shuffled = sample(jax.tree.map(lambda a: a[order], p), each[order])
    np.testing.assert_array_equal(shuffled, whole[order])


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_draw_j_of_many_uses_key_j_of_each_examples_split(kind, kinds):
    p, each = kinds[kind], keys.per_example(KEY, 4)
    many = np.asarray(sample(p, each, 3))
    assert many.shape == (3, *SHAPE)
    for j, draw_keys in enumerate(keys.split_each(each, 3)):
        np.testing.assert_allclose(many[j], sample(p, draw_keys), rtol=1e-6)


def test_a_draw_does_not_depend_on_how_the_batch_is_chunked(kinds):
    p, each = kinds["mixture"], keys.per_example(KEY, 4)
    chunked = [
        sample(jax.tree.map(lambda a, i=i: a[i : i + 2], p), each[i : i + 2])
        for i in (0, 2)
    ]
    np.testing.assert_array_equal(np.concatenate(chunked), sample(p, KEY))


def test_the_gradient_of_log_prob_is_its_slope(p):
    x = sample(p, KEY)
    direction = jax.tree.map(lambda a: normal(7, *a.shape), p)

    @jax.jit
    @jax.value_and_grad
    def along(t):
        moved = jax.tree.map(lambda a, d: a + t * d, p, direction)
        return moved.log_prob(x).sum()

    slope = (float(along(1e-2)[0]) - float(along(-1e-2)[0])) / 2e-2
    np.testing.assert_allclose(along(0.0)[1], slope, rtol=0.01)


def test_bernoulli_matches_scipy_and_numpyro():
    logits, x = normal(0, 3, 8, scale=3.0), np.eye(3, 8, dtype="float32")
    expected = scipy.stats.bernoulli.logpmf(x, scipy.special.expit(logits)).sum(-1)
    found = log_prob(Bernoulli(logits), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    oracle = jax.jit(lambda logits, x: npd.BernoulliLogits(logits).log_prob(x).sum(-1))
    np.testing.assert_allclose(found, oracle(logits, x), rtol=1e-5)
    np.testing.assert_allclose(
        mean(Bernoulli(logits)), scipy.special.expit(logits), 1e-5
    )


def test_bernoulli_without_an_opinion_costs_log_two_per_pixel():
    x = (normal(0, 2, 28, 28, 1) > 0).astype("float32")
    nats = -np.asarray(log_prob(Bernoulli(np.zeros_like(x)), x))
    np.testing.assert_allclose(nats, [543.427390] * 2, rtol=1e-5)


@jax.jit
@jax.value_and_grad
def bernoulli_nll(logit, x):
    return -Bernoulli(logit.reshape(1, 1)).log_prob(x.reshape(1, 1))[0]


@pytest.mark.parametrize("size", [90.0, 200.0, 1e4])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("x", [0.0, 1.0])
def test_bernoulli_is_finite_at_extreme_logits(size, sign, x):
    nll, gradient = bernoulli_nll(sign * size, x)
    right = (sign > 0) == (x == 1.0)
    np.testing.assert_allclose(nll, 0.0 if right else size, atol=1e-30)
    np.testing.assert_allclose(gradient, 0.0 if right else sign, atol=1e-30)


def test_gray_cross_entropy_is_least_at_its_entropy_and_never_zero():
    logits = np.linspace(-8, 8, 2001, dtype="float32").reshape(-1, 1)
    losses = -np.asarray(log_prob(Bernoulli(logits), np.full_like(logits, 0.3)))
    np.testing.assert_allclose(losses.min(), 0.610864302, rtol=1e-5)
    best = logits[losses.argmin(), 0]
    np.testing.assert_allclose(scipy.special.expit(best), 0.3, atol=2e-3)


softplus_and_slope = jax.jit(jax.value_and_grad(softplus))


@pytest.mark.parametrize("x", [-1e30, -200.0, -90.0, -1e-3, 0.0, 0.5, 90.0, 1e30])
def test_softplus_is_finite_everywhere_and_its_gradient_the_sigmoid(x):
    value, slope = softplus_and_slope(x)
    np.testing.assert_allclose(value, np.logaddexp(0.0, x), rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(slope, scipy.special.expit(x), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("x", [-200.0, -1.0, -1e-6, 0.0, 2.0, 200.0])
def test_the_second_derivative_of_softplus_is_the_slope_of_the_sigmoid(x):
    p = scipy.special.expit(x)
    found = jax.grad(jax.grad(softplus))(x)
    np.testing.assert_allclose(found, p * (1.0 - p), rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("log_var_shape", [(1, 1, 1, 1), (3, 2, 2, 1)])
def test_gaussian_likelihood_matches_scipy_with_any_variance(log_var_shape):
    mean, x = normal(0, 3, 2, 2, 1), normal(1, 3, 2, 2, 1)
    log_var = normal(2, *log_var_shape)
    std = np.broadcast_to(np.exp(0.5 * log_var), mean.shape)
    expected = scipy.stats.norm.logpdf(x, mean, std).sum((1, 2, 3))
    found = log_prob(Gaussian(mean, log_var), x)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "nats"),
    [((28, 28, 1), 720.447810), ((64, 64, 3), 11291.92)],
    ids=["mnist", "celeba"],
)
def test_unit_gaussian_at_its_mean_costs_half_d_log_two_pi(shape, nats):
    x = normal(0, 1, *shape)
    found = -np.asarray(log_prob(Gaussian(x, np.zeros((1, 1, 1, 1))), x))
    np.testing.assert_allclose(found, [nats], rtol=1e-5)


def one_pixel(kind, mixture_of):
    """Returns (a distribution of one pixel, the values of a channel)."""
    if kind == "bernoulli":
        return Bernoulli(np.full((1, 1, 1, 1), 0.4)), np.arange(2.0)
    if kind == "logistic":
        levels = np.linspace(-1.0, 1.0, 8, dtype="float32")
        return DiscretizedLogistic(*np.full((2, 1, 1, 1, 1), -0.6), 3), levels
    if kind == "mixture":
        return mixture_of(2, 1, 3, 3, 1), np.array([-1.0, 1.0])
    return Categorical(normal(1, 1, 1, 1, 1, 8)), np.arange(8)


@pytest.mark.parametrize("kind", ["bernoulli", "logistic", "mixture", "categorical"])
def test_sample_frequencies_match_the_probabilities(kind, mixture_of):
    """All values of one pixel: 40,000 draws, within 4.5 standard errors."""
    p, values = one_pixel(kind, mixture_of)
    draws = np.asarray(sample(p, KEY, 40_000)).reshape(40_000, -1)
    channels = draws.shape[1]
    grid = np.stack(np.meshgrid(*channels * [values]), -1).reshape(-1, channels)
    repeated = jax.tree.map(lambda a: np.repeat(a, len(grid), 0), p)
    expected = np.exp(log_prob(repeated, grid.reshape(-1, 1, 1, channels)))
    np.testing.assert_allclose(expected.sum(), 1.0, atol=1e-5)
    found = np.array([np.isclose(draws, g, atol=1e-6).all(-1).mean() for g in grid])
    np.testing.assert_allclose(found.sum(), 1.0)  # no draw between the values
    error = np.sqrt(expected * (1 - expected) / len(draws))
    assert np.all(np.abs(found - expected) < 4.5 * error + 1e-6)


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli"])
def test_sample_moments_match_the_parameters(kind, kinds):
    """40,000 draws of 12 pixels, within 4.5 standard errors."""
    p = kinds[kind]
    draws = np.asarray(sample(p, KEY, 40_000))
    error = draws.std(0) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - p.mean) < 4.5 * error)
    if kind == "gaussian":
        relative = draws.var(0) / np.exp(p.log_var) - 1.0
        assert np.all(np.abs(relative) < 4.5 * math.sqrt(2 / len(draws)))


def test_categorical_matches_scipy():
    logits, x = normal(0, 5, 4), np.array([0, 1, 2, 3, 0])
    expected = scipy.special.log_softmax(logits, -1)[np.arange(5), x]
    np.testing.assert_allclose(log_prob(Categorical(logits), x), expected, rtol=1e-5)
    expected = scipy.special.softmax(logits, -1) @ np.arange(4.0)
    np.testing.assert_allclose(mean(Categorical(logits)), expected, rtol=1e-5)


def test_uniform_levels_cost_eight_bits_per_dimension():
    x = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3))
    nats = -np.asarray(log_prob(Categorical(np.zeros((1, 32, 32, 3, 256))), x))
    np.testing.assert_allclose(nats, [17034.785109], rtol=2e-5)
    np.testing.assert_allclose(nats / (3072 * math.log(2)), [8.0], rtol=2e-5)


def test_distributions_are_pytrees_that_pass_through_vmap(kinds):
    p = kinds["mixture"]
    x = sample(p, KEY)
    stacked = jax.tree.map(lambda a: np.stack([a, a]), p)
    twice = jax.vmap(log_prob, (0, None))(stacked, x)
    np.testing.assert_allclose(twice, np.stack(2 * [log_prob(p, x)]), rtol=1e-5)


@flax.struct.dataclass
class Exponential:
    """Of no class of ours: as little as a distribution may have, and one thing more."""

    rate: jax.Array

    support = "real"

    @property
    def mean(self):
        return 1.0 / self.rate

    def sample(self, key, n=None):
        return jax.random.exponential(key, self.rate.shape) / self.rate

    def log_prob(self, z):
        return (jnp.log(self.rate) - self.rate * z).sum(-1)


@flax.struct.dataclass
class KnownAtDraws:
    """As a flow: no density at a point of another's choice."""

    rate: jax.Array

    def sample_and_log_prob(self, key):
        p = Exponential(self.rate)
        return p.sample(key), p.log_prob(p.sample(key))


def test_a_distribution_of_another_class_gets_what_it_lacks():
    ours = DiagGaussian.standard(2, 3)
    assert as_distribution(ours) is ours
    theirs = Exponential(jnp.full((2, 3), 2.0))
    p = as_distribution(theirs)
    assert as_distribution(p) is p and isinstance(p, Distribution)
    assert (p.support, p.is_discrete, p.is_normalized) == ("real", False, True)
    assert p.num_levels is None and p.has_density and not p.is_factorized
    np.testing.assert_array_equal(p.mode, theirs.mean)
    z, log_p = p.sample_and_log_prob(KEY)
    np.testing.assert_array_equal(z, theirs.sample(KEY))
    np.testing.assert_array_equal(log_p, theirs.log_prob(z))
    again, ratio = p.sample_and_log_ratio(KEY, ours)
    np.testing.assert_array_equal(again, z)
    np.testing.assert_allclose(ratio, log_p - ours.log_prob(z), rtol=1e-6)
    assert kl_per_group(theirs, ours) is None
    inside = jax.jit(lambda p: p.log_prob(jnp.ones((2, 3))))(p)
    np.testing.assert_allclose(inside, theirs.log_prob(jnp.ones((2, 3))), rtol=1e-6)


def test_one_that_is_known_at_its_draws_alone_has_no_density():
    p = as_distribution(KnownAtDraws(jnp.ones((2, 3))))
    assert not p.has_density
    z, log_ratio = p.sample_and_log_ratio(KEY, DiagGaussian.standard(2, 3))
    log_p = -z.sum(-1) - DiagGaussian.standard(2, 3).log_prob(z)
    np.testing.assert_allclose(log_ratio, log_p, rtol=1e-5)


@flax.struct.dataclass
class WithKl(KnownAtDraws):
    """Has a closed form for each dimension and no density of one."""

    def kl_per_dim(self, other):
        return self.rate / other.rate - 1.0 - jnp.log(self.rate / other.rate)


def test_a_closed_form_of_another_class_is_used():
    q, p = WithKl(jnp.full((2, 3), 2.0)), WithKl(jnp.ones((2, 3)))
    np.testing.assert_allclose(
        kl_per_group(q, p), np.full((2, 3), 1.0 - np.log(2.0)), rtol=1e-6
    )
    assert not as_distribution(q).is_factorized
    assert kl_per_group(q, DiagGaussian.standard(2, 3)) is None
