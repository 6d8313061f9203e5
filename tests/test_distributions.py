"""Densities against SciPy and NumPyro, probabilities against their sums."""

import functools
import math

import hypothesis
import hypothesis.strategies as st
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
    DiscretizedLogisticMixture,
    Distribution,
    Gaussian,
    kl_per_group,
    softplus,
)

KEY = jax.random.key(0)


@jax.jit
def log_prob(p, x):
    return p.log_prob(x)


@jax.jit
def kl(q, p):
    return q.kl_to(p)


@jax.jit
def mean(p):
    return p.mean


@functools.partial(jax.jit, static_argnums=2)
def sample(p, key, n=None):
    return p.sample(key, n)


def normal(seed, *shape, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(shape).astype("float32")


def gaussians(seed, *shape):
    return DiagGaussian(normal(seed, *shape), normal(seed + 1, *shape))


def levels(num_bits):
    """All 2^num_bits levels of [-1, 1]."""
    return np.linspace(-1.0, 1.0, 2**num_bits, dtype="float32")


def mixture(seed, batch, channels, k, num_bits):
    """A random mixture for images of one pixel, its channels coupled if three."""
    spread = (batch, 1, 1, channels, k)
    return DiscretizedLogisticMixture(
        normal(seed, batch, 1, 1, k),
        normal(seed + 1, *spread, scale=0.5),
        normal(seed + 2, *spread, scale=0.5) - 1.5,
        np.tanh(normal(seed + 3, *spread)) if channels == 3 else None,
        num_bits,
    )


SHAPE = (4, 1, 1, 3)
LOC, LOG_SCALE = normal(0, *SHAPE), normal(1, *SHAPE) - 1.0
LIKELIHOODS = {
    "diag_gaussian": DiagGaussian(LOC, LOG_SCALE),
    "bernoulli": Bernoulli(LOC),
    "gaussian": Gaussian(LOC, LOG_SCALE[..., :1]),
    "logistic": DiscretizedLogistic(LOC, LOG_SCALE, 3),
    "mixture": mixture(0, 4, 3, 4, 3),
    "categorical": Categorical(normal(2, *SHAPE, 8)),
}
every_kind = pytest.mark.parametrize("p", LIKELIHOODS.values(), ids=LIKELIHOODS)


# The diagonal Gaussian


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


@hypothesis.settings(deadline=None, derandomize=True, database=None)
@hypothesis.given(
    mean=st.floats(-1e3, 1e3, width=32),
    log_var=st.floats(-15, 10, width=32),
    other=st.floats(-15, 10, width=32),
)
def test_kl_is_never_negative_and_zero_against_itself(mean, log_var, other):
    q = DiagGaussian(np.full((1, 1), mean), np.full((1, 1), log_var))
    p = DiagGaussian(np.zeros((1, 1)), np.full((1, 1), other))
    assert kl(q, p)[0] >= 0.0
    assert kl(q, q)[0] == 0.0


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


# The likelihoods


@every_kind
def test_every_kind_has_densities_means_and_samples_of_one_shape(p):
    assert isinstance(p, Distribution)
    x = sample(p, KEY)
    assert x.shape == mean(p).shape == SHAPE
    assert log_prob(p, x).shape == (4,)
    assert log_prob(p, x).dtype == jnp.float32


@pytest.mark.parametrize("kind", [k for k in LIKELIHOODS if k != "diag_gaussian"])
def test_data_of_another_shape_are_refused_instead_of_broadcast(kind):
    with pytest.raises(AssertionError):
        LIKELIHOODS[kind].log_prob(np.zeros((4, 1, 1, 1)))


@every_kind
def test_a_draw_depends_on_its_own_key_and_example_alone(p):
    each = keys.per_example(KEY, 4)
    whole = np.asarray(sample(p, each))
    assert np.any(sample(p, jax.random.key(1)) != whole)
    order = np.array([2, 0, 3, 1])
    shuffled = sample(jax.tree.map(lambda a: a[order], p), each[order])
    np.testing.assert_array_equal(shuffled, whole[order])


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_draw_j_of_many_uses_key_j_of_each_examples_split(kind):
    p, each = LIKELIHOODS[kind], keys.per_example(KEY, 4)
    many = sample(p, each, 3)
    assert many.shape == (3, *SHAPE)
    for j, draw_keys in enumerate(keys.split_each(each, 3)):
        np.testing.assert_allclose(many[j], sample(p, draw_keys), rtol=1e-6)


def test_a_draw_does_not_depend_on_how_the_batch_is_chunked():
    p, each = LIKELIHOODS["mixture"], keys.per_example(KEY, 4)
    chunked = [
        sample(jax.tree.map(lambda a, i=i: a[i : i + 2], p), each[i : i + 2])
        for i in (0, 2)
    ]
    np.testing.assert_array_equal(np.concatenate(chunked), sample(p, KEY))


@every_kind
def test_the_gradient_of_log_prob_is_its_slope(p):
    x = sample(p, KEY)
    direction = jax.tree.map(lambda a: normal(7, *a.shape), p)

    @jax.jit
    @jax.value_and_grad
    def along(t):
        moved = jax.tree.map(lambda a, d: a + t * d, p, direction)
        return moved.log_prob(x).sum()

    slope = (along(1e-2)[0] - along(-1e-2)[0]) / 2e-2
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
    nats = -log_prob(Bernoulli(np.zeros_like(x)), x)
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


def test_grey_cross_entropy_is_least_at_its_entropy_and_never_zero():
    logits = np.linspace(-8, 8, 2001, dtype="float32").reshape(-1, 1)
    losses = -np.asarray(log_prob(Bernoulli(logits), np.full_like(logits, 0.3)))
    np.testing.assert_allclose(losses.min(), 0.610864302, rtol=1e-5)
    best = logits[losses.argmin(), 0]
    np.testing.assert_allclose(scipy.special.expit(best), 0.3, atol=2e-3)


@pytest.mark.parametrize("x", [-1e30, -200.0, -90.0, -1e-3, 0.0, 0.5, 90.0, 1e30])
def test_softplus_is_finite_everywhere_and_its_gradient_the_sigmoid(x):
    value, slope = jax.jit(jax.value_and_grad(softplus))(x)
    np.testing.assert_allclose(value, np.logaddexp(0.0, x), rtol=1e-6, atol=1e-37)
    np.testing.assert_allclose(slope, scipy.special.expit(x), rtol=1e-6, atol=1e-37)


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
    found = -log_prob(Gaussian(x, np.zeros((1, 1, 1, 1))), x)
    np.testing.assert_allclose(found, [nats], rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_discretized_logistic_bins_are_differences_of_the_cdf(seed):
    loc, log_scale = normal(seed, 6), normal(seed + 1, 6) - 2.0
    x = levels(8)
    edges = np.concatenate([[-np.inf], (x[1:] + x[:-1]) / 2, [np.inf]])
    cdf = scipy.stats.logistic.cdf(edges, loc[:, None], np.exp(log_scale)[:, None])
    p = DiscretizedLogistic(*(np.repeat(a, 256)[:, None] for a in (loc, log_scale)))
    found = np.exp(log_prob(p, np.tile(x, 6)[:, None])).reshape(6, 256)
    np.testing.assert_allclose(found, np.diff(cdf), rtol=2e-4, atol=1e-6)


def test_discretized_logistic_has_its_known_values():
    p = DiscretizedLogistic(np.zeros((256, 1)), np.full((256, 1), math.log(0.1)))
    found = np.exp(log_prob(p, levels(8)[:, None]))
    np.testing.assert_allclose(found[[127, 128]], 0.0195977979, rtol=1e-5)
    np.testing.assert_allclose(found[[0, 255]], 4.72134604e-5, rtol=1e-5)


@pytest.mark.parametrize("num_bits", [1, 2, 5, 8])
@pytest.mark.parametrize("log_scale", [-30.0, -7.0, -1.0, 3.0, 7.0])
def test_discretized_logistic_levels_sum_to_one(num_bits, log_scale):
    loc = np.array([-1.7, -1.0, 0.003, 0.9, 5.0])
    x = np.tile(levels(num_bits)[:, None], (5, 1))
    centres = np.repeat(loc, 2**num_bits)[:, None]
    p = DiscretizedLogistic(centres, np.full_like(centres, log_scale), num_bits)
    total = np.exp(log_prob(p, x)).reshape(5, -1).sum(-1)
    np.testing.assert_allclose(total, np.ones(5), atol=2e-6)


def test_only_the_outermost_levels_take_a_tail():
    """With the centre far outside, all the mass is in the level on its side."""
    x = np.repeat(levels(8)[[0, 1, 254, 255]], 2)[:, None]
    loc = np.tile([-3.0, 3.0], 4)[:, None]
    p = DiscretizedLogistic(loc, np.full_like(loc, math.log(0.05)))
    found = np.exp(log_prob(p, x)).reshape(4, 2)
    np.testing.assert_allclose(found, [[1, 0], [0, 0], [0, 0], [0, 1]], atol=1e-6)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(1, 2, 3))
def single_and_mixture(x, loc, log_scale, logit):
    x, loc, log_scale, logit = (
        a.reshape(1, 1, 1, 1) for a in (x, loc, log_scale, logit)
    )
    single = DiscretizedLogistic(loc, log_scale)
    mix = DiscretizedLogisticMixture(logit, loc[..., None], log_scale[..., None])
    return single.log_prob(x)[0] + mix.log_prob(x)[0]


@pytest.mark.parametrize("log_scale", [-30.0, -7.0, 7.0])
@pytest.mark.parametrize("level", [0, 100, 255])
def test_discretized_logistics_are_finite_at_extreme_scales(log_scale, level):
    value, gradient = single_and_mixture(levels(8)[level], 0.3, log_scale, 0.0)
    assert np.isfinite([value, *gradient]).all()


def test_a_mixture_of_equal_components_is_one_component():
    one = LIKELIHOODS["logistic"]
    copies = (np.repeat(a[..., None], 3, -1) for a in (one.loc, one.log_scale))
    many = DiscretizedLogisticMixture(np.zeros((4, 1, 1, 3)), *copies, None, 3)
    x = sample(one, KEY)
    np.testing.assert_allclose(log_prob(many, x), log_prob(one, x), rtol=1e-5)
    np.testing.assert_allclose(mean(many), mean(one), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_mixture_probabilities_sum_to_one_over_all_pixels(channels):
    """Every colour of one pixel; with three channels they depend on each other."""
    colours = np.stack(np.meshgrid(*channels * [levels(2)]), -1)
    colours = colours.reshape(-1, 1, 1, channels)
    p = jax.tree.map(
        lambda a: np.repeat(a, len(colours), 0), mixture(0, 3, channels, 4, 2)
    )
    found = np.exp(log_prob(p, np.tile(colours, (3, 1, 1, 1))))
    np.testing.assert_allclose(found.reshape(3, -1).sum(-1), np.ones(3), atol=1e-5)


def test_mixture_matches_the_cdf_differences_of_each_component():
    """The RGB pixel of Salimans et al. written out with SciPy, edges included."""
    p = mixture(5, 1, 3, 2, 8)
    x = np.array([-1.0, levels(8)[200], 1.0])
    total = 0.0
    for k, weight in enumerate(scipy.special.softmax(p.logits[0, 0, 0])):
        loc, log_scale, c = (
            a[0, 0, 0, :, k].astype("float64")
            for a in (p.loc, p.log_scale, p.coefficients)
        )
        centres = loc + [0.0, c[0] * x[0], c[1] * x[0] + c[2] * x[1]]
        low = [-np.inf, x[1] - 1 / 255, x[2] - 1 / 255]
        high = [x[0] + 1 / 255, x[1] + 1 / 255, np.inf]
        cdf = scipy.stats.logistic(centres, np.exp(log_scale)).cdf
        total += weight * np.prod(cdf(high) - cdf(low))
    found = log_prob(p, x.astype("float32").reshape(1, 1, 1, 3))
    np.testing.assert_allclose(found, [np.log(total)], rtol=1e-4)


@pytest.mark.parametrize(
    ("p", "values"),
    [
        (Bernoulli(np.full((1, 1, 1, 1), 0.4)), np.arange(2.0)),
        (DiscretizedLogistic(*np.full((2, 1, 1, 1, 1), -0.6), 3), levels(3)),
        (mixture(2, 1, 3, 3, 1), levels(1)),
        (Categorical(normal(1, 1, 1, 1, 1, 8)), np.arange(8)),
    ],
    ids=["bernoulli", "logistic", "mixture", "categorical"],
)
def test_sample_frequencies_match_the_probabilities(p, values):
    """All values of one pixel: 40,000 draws, within 4.5 standard errors."""
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
def test_sample_moments_match_the_parameters(kind):
    """40,000 draws of 12 pixels, within 4.5 standard errors."""
    p = LIKELIHOODS[kind]
    draws = np.asarray(sample(p, KEY, 40_000))
    error = draws.std(0) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - p.mean) < 4.5 * error)
    if kind == "gaussian":
        relative = draws.var(0) / np.exp(p.log_var) - 1.0
        assert np.all(np.abs(relative) < 4.5 * math.sqrt(2 / len(draws)))


@pytest.mark.parametrize("kind", ["logistic", "mixture"])
def test_samples_are_levels_of_the_data(kind):
    x = np.asarray(sample(LIKELIHOODS[kind], KEY, 3)).reshape(-1, 1)
    nearest = np.abs(x - levels(3)).min(-1)
    np.testing.assert_allclose(nearest, np.zeros(len(x)), atol=1e-6)


def test_mixture_mean_of_one_tight_component_is_the_coupled_centre():
    """With no noise the pixel is red, then green and blue moved by what came before."""
    loc = np.array([0.4, 0.1, -0.2], "float32").reshape(1, 1, 1, 3, 1)
    c = np.array([0.5, -0.25, 0.75], "float32").reshape(1, 1, 1, 3, 1)
    p = DiscretizedLogisticMixture(
        np.zeros((1, 1, 1, 1), "float32"), loc, np.full_like(loc, -20.0), c
    )
    green = 0.1 + 0.5 * 0.4
    blue = -0.2 - 0.25 * 0.4 + 0.75 * green
    np.testing.assert_allclose(mean(p)[0, 0, 0], [0.4, green, blue], rtol=1e-6)
    np.testing.assert_allclose(sample(p, KEY), mean(p), atol=3 / 255)


def test_categorical_matches_scipy():
    logits, x = normal(0, 5, 4), np.array([0, 1, 2, 3, 0])
    expected = scipy.special.log_softmax(logits, -1)[np.arange(5), x]
    np.testing.assert_allclose(log_prob(Categorical(logits), x), expected, rtol=1e-5)
    expected = scipy.special.softmax(logits, -1) @ np.arange(4.0)
    np.testing.assert_allclose(mean(Categorical(logits)), expected, rtol=1e-5)


def test_uniform_levels_cost_eight_bits_per_dimension():
    x = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3))
    nats = -log_prob(Categorical(np.zeros((1, 32, 32, 3, 256))), x)
    np.testing.assert_allclose(nats, [17034.785109], rtol=2e-5)
    np.testing.assert_allclose(nats / (3072 * math.log(2)), [8.0], rtol=2e-5)


def test_distributions_are_pytrees_that_pass_through_vmap():
    p = LIKELIHOODS["mixture"]
    x = sample(p, KEY)
    stacked = jax.tree.map(lambda a: np.stack([a, a]), p)
    twice = jax.vmap(log_prob, (0, None))(stacked, x)
    np.testing.assert_allclose(twice, np.stack(2 * [log_prob(p, x)]), rtol=1e-5)
