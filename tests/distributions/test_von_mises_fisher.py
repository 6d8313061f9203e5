"""Von Mises-Fisher against SciPy's Bessel functions, quadrature and its exact law."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from jvae import keys
from jvae.distributions import (
    DiagGaussian,
    Distribution,
    UniformOnSphere,
    VonMisesFisher,
    arc,
    kl_per_group,
    slerp,
)
from jvae.distributions.von_mises_fisher import angle_table, log_area, mean_length
from jvae.errors import ConfigError
from tests.tiers import others_slow

KEY = jax.random.key(0)
N = 50_000
GRID = [
    (2, 1e-3),
    (2, 1.0),
    (2, 700.0),
    (3, 1e-3),
    (3, 5.0),
    (4, 20.0),
    (5, 1e4),
    (32, 13.0),
    (50, 80.0),
    (129, 1e5),
    (300, 30.0),
]


def units(seed, *shape):
    x = np.random.default_rng(seed).standard_normal(shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype("float32")


def log_bessel(order, kappa):
    return np.log(scipy.special.ive(order, kappa)) + kappa


def log_constant(dim, kappa):
    order = dim / 2 - 1
    rest = order * np.log(kappa) - dim / 2 * np.log(2 * np.pi)
    return rest - log_bessel(order, kappa)


@functools.partial(jax.jit, static_argnums=2)
def sample(q, key, n=None):
    return q.sample(key, n)


@jax.jit
def log_prob(q, z):
    return q.log_prob(z)


@functools.cache
def draws(dim, kappa):
    """Returns ([N, d] draws around one direction, the direction [1, d])."""
    mean = units(dim, 1, dim)
    q = VonMisesFisher(np.repeat(mean, N, 0), kappa)
    return np.asarray(sample(q, KEY), np.float64), mean.astype(np.float64)


def cosine_law(dim, kappa):
    """Returns the distribution function of <z, mean>, by quadrature of its own.

    In w = cos t the density is exp(kappa w) (1 - w^2)^((d - 3) / 2); its poles for
    d = 2 are integrated by a rule made for them.
    """
    power = (dim - 3) / 2
    poles = {-1.0: (power, 0.0), 1.0: (0.0, power), 0.0: (0.0, 0.0)} if dim < 4 else {}

    def mass(low, high):
        # A factor with a pole is given to `quad` as a weight.
        left, right = poles.get(low, (0, 0))[0], poles.get(high, (0, 0))[1]

        def smooth(w):
            factors = (1.0 + w) ** (power - left) * (1.0 - w) ** (power - right)
            return math.exp(kappa * (w - 1.0)) * factors

        weight = {"weight": "alg", "wvar": (left, right)} if poles else {}
        options = {"epsabs": 0.0, "epsrel": 1e-8, "limit": 200, **weight}
        return scipy.integrate.quad(smooth, low, high, **options)[0]

    below, above = mass(-1.0, 0.0), mass(0.0, 1.0)

    @np.vectorize
    def cdf(w):
        if w >= 1.0:
            return 1.0
        part = mass(-1.0, w) if w < 0 else below + above - mass(w, 1.0)
        return part / (below + above)

    return cdf


@pytest.mark.parametrize(("dim", "kappa"), GRID)
def test_mean_length_and_kl_match_scipys_bessel_functions(dim, kappa):
    order = dim / 2 - 1
    length = np.exp(log_bessel(order + 1, kappa) - log_bessel(order, kappa))
    np.testing.assert_allclose(mean_length(dim, kappa), length, rtol=1e-9)
    # kappa A and the constants cancel: at kappa = 1e-3 SciPy's own terms keep 1e-15.
    wanted = kappa * length + log_constant(dim, kappa) + log_area(dim)
    q = VonMisesFisher(units(0, 3, dim), kappa)
    found = q.kl_to(UniformOnSphere(3, dim))
    assert found.shape == (3,)
    np.testing.assert_allclose(found, [wanted] * 3, rtol=2e-6, atol=1e-13)
    np.testing.assert_allclose(q.entropy(), [log_area(dim) - wanted] * 3, rtol=2e-6)


@pytest.mark.parametrize(
    ("dim", "kappa", "nats"), [(4, 20, 3.2584), (32, 13, 2.1726), (50, 80, 19.515)]
)
def test_kl_has_the_values_of_the_literature(dim, kappa, nats):
    found = VonMisesFisher(units(0, 1, dim), kappa).kl_to(UniformOnSphere(1, dim))
    np.testing.assert_allclose(found, [nats], rtol=3e-5)
    if dim == 4:
        np.testing.assert_allclose(mean_length(4, 20), 0.92599, rtol=1e-5)


@pytest.mark.parametrize(("dim", "kappa"), GRID)
def test_log_prob_matches_scipys_bessel_functions(dim, kappa):
    mean, z = units(0, 6, dim), units(1, 6, dim)
    z[0] = mean[0]
    found = log_prob(VonMisesFisher(mean, kappa), z)
    cosine = (mean.astype(np.float64) * z).sum(-1)
    wanted = log_constant(dim, kappa) + kappa * cosine
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6 * (1 + kappa))


def test_in_three_dimensions_it_is_scipys_own():
    mean, z = units(0, 1, 3), units(1, 8, 3)
    wanted = scipy.stats.vonmises_fisher(mean[0], 7.0).logpdf(z)
    found = log_prob(VonMisesFisher(np.repeat(mean, 8, 0), 7.0), z)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    uniform = UniformOnSphere(8, 3).log_prob(z)
    np.testing.assert_allclose(uniform, [-math.log(4 * math.pi)] * 8, rtol=1e-6)


@pytest.mark.parametrize(
    ("dim", "kappa"),
    others_slow(
        [(2, 0.5), (2, 50.0), (3, 5.0), (4, 20.0), (50, 80.0)], (2, 50.0), (4, 20.0)
    ),
)
def test_the_cosine_to_the_mean_has_its_exact_law(dim, kappa):
    """Kolmogorov-Smirnov, 50,000 draws; the table itself is within 1e-6."""
    z, mean = draws(dim, kappa)
    w = np.sort((z * mean).sum(-1))
    places = np.linspace(0, N - 1, 1000).astype(int)
    exact = cosine_law(dim, kappa)(np.clip(w[places], -1, 1))
    distance = np.abs(exact - (places + 0.5) / N).max()
    assert distance < 1.63 / math.sqrt(N)  # exceeded with probability 0.01
    cdf, angles = angle_table(dim, kappa)
    at = np.interp([0.003, 0.1, 0.5, 0.9, 0.997], cdf, angles)
    found = 1.0 - cosine_law(dim, kappa)(np.cos(at))
    np.testing.assert_allclose(found, [0.003, 0.1, 0.5, 0.9, 0.997], atol=1e-6)


@pytest.mark.parametrize("kappa", [1e-3, 5.0, 1e4])
def test_in_three_dimensions_the_table_is_the_closed_form(kappa):
    """w = 1 + log(u + (1 - u) exp(-2 kappa)) / kappa, between the nodes too."""
    cdf, angles = angle_table(3, kappa)
    t = 0.5 * (angles[1:] + angles[:-1])
    exact = np.expm1(kappa * (np.cos(t) - 1.0)) / np.expm1(-2.0 * kappa)
    np.testing.assert_allclose(np.interp(t, angles, cdf), exact, atol=1e-6)


@pytest.mark.parametrize(
    ("dim", "kappa"), [(2, 1e-3), (2, 50.0), (3, 5.0), (4, 20.0), (50, 80.0), (3, 1e5)]
)
def test_draws_lie_on_the_sphere_around_a_mean_of_length_a(dim, kappa):
    z, mean = draws(dim, kappa)
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1.0, atol=1e-6)
    cosine = (z * mean).sum(-1)
    error = cosine.std() / math.sqrt(N)
    assert abs(cosine.mean() - mean_length(dim, kappa)) < 4 * error + 1e-7
    side = z - cosine[:, None] * mean  # orthogonal to the mean, without preference
    assert np.all(np.abs(side.mean(0)) < 4.5 * side.std(0) / math.sqrt(N) + 1e-7)


def test_a_concentration_near_zero_is_uniform():
    z, mean = draws(4, 1e-4)
    second = z.T @ z / N  # E z z^T = I / d
    np.testing.assert_allclose(second, np.eye(4) / 4, atol=4.5 / math.sqrt(N) / 4)
    assert np.all(np.abs(z.mean(0)) < 4.5 * 0.5 / math.sqrt(N))
    q = VonMisesFisher(units(0, 2, 4), 1e-4)
    uniform = UniformOnSphere(2, 4)
    np.testing.assert_allclose(q.kl_to(uniform), [0.0, 0.0], atol=1e-8)
    found, wanted = (log_prob(p, z[:2]) for p in (q, uniform))
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_uniform_draws_have_no_direction():
    z = np.asarray(sample(UniformOnSphere(N, 3), KEY))
    np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1.0, atol=1e-6)
    assert np.all(np.abs(z.mean(0)) < 4.5 * math.sqrt(1 / 3 / N))
    # Archimedes: every coordinate is uniform on [-1, 1].
    assert scipy.stats.kstest(z[:, 2], "uniform", (-1, 2)).pvalue > 0.01


def test_the_kl_is_the_mean_of_the_log_ratio_and_zero_to_itself():
    p, q = (
        VonMisesFisher(np.repeat(units(s, 1, 4), N, 0), k)
        for s, k in [(0, 9.0), (1, 4.0)]
    )
    z = sample(p, KEY)

    @jax.jit
    def ratio_and_kl(p, q):
        return p.log_prob(z) - q.log_prob(z), p.kl_to(q)

    for other in (q, UniformOnSphere(N, 4)):
        ratio, kl = jax.device_get(ratio_and_kl(p, other))
        error = ratio.std() / math.sqrt(N)
        assert abs(ratio.mean() - kl[0]) < 4 * error + 1e-6
    np.testing.assert_allclose(ratio_and_kl(p, p)[1], 0.0, atol=2e-6)
    assert p.kl_to(DiagGaussian.standard(N, 4)) is None
    assert jax.eval_shape(kl_per_group, p, q).shape == (N, 1)


def expectation(direction, kappa, f):
    """Returns E f(z) on the circle, by the trapezoid rule, which is exact here."""
    t = np.linspace(0.0, 2 * np.pi, 4000, endpoint=False)
    z = np.stack([np.cos(t), np.sin(t)], -1)
    unit = direction / np.linalg.norm(direction)
    weight = np.exp(kappa * (z @ unit - 1.0))
    return (weight * np.asarray(f(z))).sum() / weight.sum()


def test_the_gradient_of_an_expectation_on_the_circle_is_that_of_quadrature():
    """E f(z) by its mean direction: 50,000 paths, differences of the integral."""
    kappa, start = 3.0, np.array([0.6, -0.8])

    def f(z):
        return jnp.exp(z[..., 0]) + z[..., 0] * z[..., 1] ** 2

    each = jax.random.split(KEY, N)

    def gradient(key):
        def value(direction):
            unit = direction / jnp.linalg.norm(direction)
            return f(VonMisesFisher(unit[None], kappa).sample(key[None]))[0]

        return jax.grad(value)(start.astype("float32"))

    found = np.asarray(jax.jit(jax.vmap(gradient))(each))
    step, at = 1e-4, jax.jit(f)
    for i, axis in enumerate(np.eye(2)):
        ends = [expectation(start + s * step * axis, kappa, at) for s in (1, -1)]
        wanted = (ends[0] - ends[1]) / (2 * step)
        error = found[:, i].std() / math.sqrt(N)
        assert abs(found[:, i].mean() - wanted) < 4 * error


@pytest.mark.parametrize("dim", others_slow([2, 3, 4, 16], 2, 3))
def test_the_gradient_turns_the_mean_of_the_draws(dim):
    """E z = A mean, so d E<a, z> / d mean = A a; no path is long, not for d = 3."""
    kappa, mean, a = 4.0, units(0, 1, dim)[0], units(1, 1, dim)[0]
    side = a - (a @ mean) * mean

    def gradient(key):
        def value(mean):
            return (VonMisesFisher(mean[None], kappa).sample(key[None])[0] * a).sum()

        return jax.grad(value)(mean) @ side  # a direction within the sphere

    paths = np.asarray(jax.jit(jax.vmap(gradient))(jax.random.split(KEY, N)))
    wanted = mean_length(dim, kappa) * (a @ side)
    assert abs(paths.mean() - wanted) < 4 * paths.std() / math.sqrt(N)
    assert np.abs(paths).max() <= 2.0


def test_it_has_densities_means_and_draws_of_one_shape():
    q = VonMisesFisher(units(0, 5, 3), 8.0)
    assert isinstance(q, Distribution)
    z, log_q = jax.jit(lambda q, key: q.sample_and_log_prob(key))(q, KEY)
    assert z.shape == q.mean.shape == q.mode.shape == (5, 3)
    np.testing.assert_allclose(log_q, log_prob(q, z), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(q.mode, axis=-1), 1.0, rtol=1e-6)
    lengths = np.linalg.norm(q.mean, axis=-1)
    np.testing.assert_allclose(lengths, mean_length(3, 8.0), rtol=1e-6)
    np.testing.assert_allclose(
        mean_length(3, 8.0), 1 / math.tanh(8) - 1 / 8, rtol=1e-12
    )


@pytest.mark.parametrize(
    "kind", others_slow(["von_mises_fisher", "uniform"], "von_mises_fisher")
)
def test_a_draw_depends_on_its_own_key_and_example_alone(kind):
    each, mean = keys.per_example(KEY, 4), units(0, 4, 3)
    order = np.array([2, 0, 3, 1])
    q, shuffled = VonMisesFisher(mean, 5.0), VonMisesFisher(mean[order], 5.0)
    if kind == "uniform":
        q = shuffled = UniformOnSphere(4, 3)
    whole = np.asarray(sample(q, each))
    np.testing.assert_array_equal(sample(q, KEY), whole)
    np.testing.assert_array_equal(sample(shuffled, each[order]), whole[order])
    many = np.asarray(sample(q, each, 3))
    assert many.shape == (3, 4, 3)
    for j, draw_keys in enumerate(keys.split_each(each, 3)):
        np.testing.assert_allclose(many[j], sample(q, draw_keys), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.0, -1.0, math.nan, math.inf, 1e6])
def test_a_concentration_out_of_range_is_refused_in_one_line(kappa):
    with pytest.raises(
        ConfigError, match=r"concentration must be within \(0, 100000\]"
    ):
        VonMisesFisher(units(0, 2, 3), kappa).sample(KEY)


def test_a_sphere_of_one_dimension_is_refused_in_one_line():
    for q in (VonMisesFisher(np.ones((2, 1)), 1.0), UniformOnSphere(2, 1)):
        with pytest.raises(
            ConfigError, match="dim of a sphere must be at least 2, got"
        ):
            q.sample(KEY)


def test_the_great_circle_is_on_the_sphere_and_of_equal_speed():
    a, b = units(0, 5, 1, 4), units(1, 5, 1, 4)
    t = np.linspace(0, 1, 9, dtype="float32").reshape(1, 9, 1)
    between = jax.jit(slerp)
    points = np.asarray(between(a, b, t))
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(points[:, 0], a[:, 0], atol=1e-6)
    np.testing.assert_allclose(points[:, -1], b[:, 0], atol=1e-6)
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    np.testing.assert_allclose(steps, steps[:, :1].repeat(8, 1), rtol=1e-3)
    angle = np.arccos((a * b).sum(-1))
    assert np.all(2 * np.sin(angle / 16) > 0.99 * steps[:, :1])  # the shorter way
    np.testing.assert_allclose(between(a, a, t), a.repeat(9, 1), atol=1e-6)


def test_an_arc_turns_evenly_and_changes_its_length_evenly():
    a, b = np.array([[2.0, 0.0]], "f4"), np.array([[0.0, 4.0]], "f4")
    t = np.linspace(0.0, 1.0, 5, dtype="f4")[:, None]
    angle, length = 0.5 * np.pi * t, 2.0 + 2.0 * t
    wanted = np.concatenate([length * np.cos(angle), length * np.sin(angle)], 1)
    np.testing.assert_allclose(jax.jit(arc)(a, b, t), wanted, atol=1e-6)


@pytest.mark.parametrize("end", [[2.0, 0.0], [4.0, 1e-9], [0.0, 0.0], [-2.0, 0.0]])
def test_an_arc_begins_and_ends_at_its_ends(end):
    a, b = np.array([[2.0, 0.0]], "f4"), np.array([end], "f4")
    points = np.asarray(jax.jit(arc)(a, b, np.array([[0.0], [0.5], [1.0]], "f4")))
    assert np.isfinite(points).all()
    np.testing.assert_allclose(points[0], a[0], atol=1e-6)
    np.testing.assert_allclose(points[2], b[0], atol=1e-6)
