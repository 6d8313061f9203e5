"""Discretised logistics and their mixtures against differences of SciPy's CDF."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jvae.distributions import DiscretizedLogistic, DiscretizedLogisticMixture
from jvae.distributions.discretized_logistic import LOOSE_EDGE
from jvae.errors import ConfigError
from tests.distributions.jitted import log_prob, mean, normal, sample

KEY = jax.random.key(0)


def levels(num_bits):
    """All 2^num_bits levels of [-1, 1]."""
    return np.linspace(-1.0, 1.0, 2**num_bits, dtype="float32")


SHAPE = (4, 1, 1, 3)
SINGLE = DiscretizedLogistic(normal(0, *SHAPE), normal(1, *SHAPE) - 1.0, 3)


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


@pytest.mark.parametrize("num_bits", [*range(1, 9), 10, 12, 16])
@pytest.mark.parametrize("log_scale", [-30.0, -7.0, -1.0, 3.0, 7.0])
def test_discretized_logistic_levels_sum_to_one(num_bits, log_scale):
    loc = np.array([-1.7, -1.0, 0.003, 0.9, 5.0])
    x = np.tile(levels(num_bits)[:, None], (5, 1))
    centers = np.repeat(loc, 2**num_bits)[:, None]
    p = DiscretizedLogistic(centers, np.full_like(centers, log_scale), num_bits)
    total = np.exp(log_prob(p, x), dtype=np.float64).reshape(5, -1).sum(-1)
    # Levels of 16 bits lie 3e-5 apart, and float32 moves each by up to 3e-8.
    np.testing.assert_allclose(total, np.ones(5), atol=5e-6 if num_bits > 12 else 2e-6)


def test_levels_that_float32_does_not_tell_apart_are_refused():
    zero = np.zeros((1, 1))
    with pytest.raises(ConfigError, match="num_bits must be in 1 .. 16, got 17"):
        DiscretizedLogistic(zero, zero, 17).log_prob(zero)


@pytest.mark.parametrize("log_scale", [30.0, 59.9, 60.1, 87.0, 110.0, 1e4])
def test_of_a_wide_logistic_a_bin_has_its_width_times_the_density(log_scale):
    """1 / (4 scale), whatever its centre: so the slope by the log scale is -1."""

    def at(log_scale):
        one = jnp.ones((1, 1))
        return DiscretizedLogistic(0.1 * one, log_scale * one, 8).log_prob(one / 255)[0]

    value, slope = jax.value_and_grad(at)(log_scale)
    np.testing.assert_allclose(value, math.log(2 / 255 / 4) - log_scale, rtol=1e-6)
    np.testing.assert_allclose(slope, -1.0, rtol=1e-6)


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
    copies = (np.repeat(a[..., None], 3, -1) for a in (SINGLE.loc, SINGLE.log_scale))
    many = DiscretizedLogisticMixture(np.zeros((4, 1, 1, 3)), *copies, None, 3)
    x = sample(SINGLE, KEY)
    np.testing.assert_allclose(log_prob(many, x), log_prob(SINGLE, x), rtol=1e-5)
    np.testing.assert_allclose(mean(many), mean(SINGLE), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_mixture_probabilities_sum_to_one_over_all_pixels(channels, mixture_of):
    """Every colour of one pixel; with three channels they depend on each other."""
    colors = np.stack(np.meshgrid(*channels * [levels(2)]), -1)
    colors = colors.reshape(-1, 1, 1, channels)
    p = jax.tree.map(
        lambda a: np.repeat(a, len(colors), 0), mixture_of(0, 3, channels, 4, 2)
    )
    found = np.exp(log_prob(p, np.tile(colors, (3, 1, 1, 1))))
    np.testing.assert_allclose(found.reshape(3, -1).sum(-1), np.ones(3), atol=1e-5)


def test_mixture_matches_the_cdf_differences_of_each_component(mixture_of):
    """The RGB pixel of Salimans et al. written out with SciPy, edges included."""
    p = mixture_of(5, 1, 3, 2, 8)
    x = np.array([-1.0, levels(8)[200], 1.0])
    total = 0.0
    for k, weight in enumerate(scipy.special.softmax(p.logits[0, 0, 0])):
        loc, log_scale, c = (
            a[0, 0, 0, :, k].astype("float64")
            for a in (p.loc, p.log_scale, p.coefficients)
        )
        centers = loc + [0.0, c[0] * x[0], c[1] * x[0] + c[2] * x[1]]
        low = [-np.inf, x[1] - 1 / 255, x[2] - 1 / 255]
        high = [x[0] + 1 / 255, x[1] + 1 / 255, np.inf]
        cdf = scipy.stats.logistic(centers, np.exp(log_scale)).cdf
        total += weight * np.prod(cdf(high) - cdf(low))
    found = log_prob(p, x.astype("float32").reshape(1, 1, 1, 3))
    np.testing.assert_allclose(found, [np.log(total)], rtol=1e-4)


@pytest.mark.parametrize("kind", ["logistic", "mixture"])
def test_samples_are_levels_of_the_data(kind, kinds):
    x = np.asarray(sample(kinds[kind], KEY, 3)).reshape(-1, 1)
    nearest = np.abs(x - levels(3)).min(-1)
    np.testing.assert_allclose(nearest, np.zeros(len(x)), atol=1e-6)


def test_mixture_mean_of_one_tight_component_is_the_coupled_center():
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


def test_mixture_mean_is_that_of_its_draws_where_components_differ():
    """Three tight components with slopes of their own: 20,000 draws, 4.5 errors."""
    loc = normal(0, 1, 1, 1, 3, 3, scale=0.3)
    p = DiscretizedLogisticMixture(
        normal(1, 1, 1, 1, 3),
        loc,
        np.full_like(loc, -9.0),
        np.tanh(normal(2, *loc.shape)),
    )
    draws = np.asarray(sample(p, KEY, 20_000))
    error = draws.std(0) / math.sqrt(len(draws)) + 1 / 255 / 4
    assert np.all(np.abs(draws.mean(0) - mean(p)) < 4.5 * error)


@pytest.mark.parametrize(("num_bits", "log_scale"), [(8, -7.0), (8, -3.0), (5, -3.0)])
def test_a_loose_edge_counts_the_last_level_twice(num_bits, log_scale):
    """Of 8 bits level 254 gets P(254) + P(255); of 5 bits there is no difference."""
    x = levels(num_bits).reshape(-1, 1, 1, 1)
    n = len(x)
    arrays = np.zeros((n, 1, 1, 1)), np.full((n, 1, 1, 1, 1), 0.9)
    scales = np.full((n, 1, 1, 1, 1), log_scale)
    exact = DiscretizedLogisticMixture(*arrays, scales, None, num_bits)
    loose = DiscretizedLogisticMixture(*arrays, scales, None, num_bits, LOOSE_EDGE)
    p, defective = np.exp(log_prob(exact, x)), np.exp(log_prob(loose, x))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    extra = p[-1] if num_bits == 8 else 0.0
    np.testing.assert_allclose(defective.sum(), 1.0 + extra, rtol=1e-5)
    np.testing.assert_allclose(defective[-2], p[-2] + extra, rtol=1e-4, atol=1e-12)
    assert exact.is_normalized and loose.is_normalized == (num_bits == 5)
