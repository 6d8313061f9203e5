"""Flows as priors and posteriors: densities, draws, and limits in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jvae import models
from jvae.distributions import DiagGaussian
from jvae.errors import ConfigError
from jvae.flows import (
    ActNorm,
    Chain,
    FlowPosterior,
    FlowPrior,
    InvertibleConv,
    VectorSteps,
)
from tests.distributions.jitted import log_prob, normal
from tests.tiers import others_slow

LINEAR = Chain([ActNorm(3), InvertibleConv((2, 0, 1)), ActNorm(3)])


def noisy(tree, scale=0.3, seed=1):
    """Parameters that are not those of the start, arrays of NumPy."""
    draws = np.random.default_rng(seed)

    def moved(a):
        return (np.asarray(a) + scale * draws.normal(size=a.shape)).astype(a.dtype)

    return jax.tree.map(moved, tree)


def prior_of(flow, size, rows, scale=0.3):
    x = np.zeros((1, size), "float32")
    params = noisy(jax.jit(flow.init)(jax.random.key(0), x)["params"], scale)
    return FlowPrior(DiagGaussian.standard(rows, size), params, flow, (size,))


def posterior_of(flow, mean, log_var, cond=None):
    params = noisy(jax.jit(flow.init)(jax.random.key(0), mean, cond)["params"])
    return FlowPosterior(DiagGaussian(mean, log_var), cond, params, flow)


def affine(flow, params, size):
    """(A, b) of f(x) = A x + b."""

    def function(x):
        return flow.apply({"params": params}, x[None])[0][0]

    zero = np.zeros(size, "float32")
    found = jax.jit(lambda x: (jax.jacfwd(function)(x), function(x)))(zero)
    return tuple(np.asarray(a, np.float64) for a in found)


@pytest.mark.slow
def test_the_prior_has_mass_one_and_draws_have_its_moments():
    steps, far = 601, 20.0
    prior = prior_of(VectorSteps(2, 3, hidden=(8,)), 2, steps**2, scale=0.15)
    line = jnp.linspace(-far, far, steps)
    z = jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)
    mass = np.exp(np.asarray(jax.jit(prior.log_prob)(z), np.float64))
    mass *= (2 * far / (steps - 1)) ** 2
    assert abs(mass.sum() - 1.0) < 1e-4
    draws = np.asarray(jax.jit(prior.sample)(jax.random.key(0)))
    mean = (mass[:, None] * z).sum(0)
    second = np.einsum("n,ni,nj->ij", mass, z, z)
    error = 4 / np.sqrt(len(draws))
    np.testing.assert_allclose(draws.mean(0), mean, atol=error * draws.std())
    moments = draws[:, :, None] * draws[:, None]
    assert (abs(moments.mean(0) - second) < error * moments.std(0)).all()


def test_a_linear_flow_is_a_gaussian_prior():
    prior = prior_of(LINEAR, 3, 50)
    matrix, shift = affine(LINEAR, prior.params, 3)
    inverse = np.linalg.inv(matrix)
    exact = multivariate_normal(-inverse @ shift, inverse @ inverse.T)
    z = normal(2, 50, 3)
    np.testing.assert_allclose(log_prob(prior, z), exact.logpdf(z), rtol=1e-4)


def test_a_linear_flow_is_a_gaussian_posterior_whose_kl_is_known():
    count = 20_000
    mean = np.tile(np.float32([[0.5, -1.0, 0.2]]), (count, 1))
    log_var = np.tile(np.float32([[-1.0, 0.3, -2.0]]), (count, 1))
    q = posterior_of(LINEAR, mean, log_var)

    @jax.jit
    def drawn(q, key):
        z, log_q = q.sample_and_log_prob(key)
        ratio = log_q - DiagGaussian.standard(count, 3).log_prob(z)
        return z, log_q, ratio, q.mean[0]

    z, log_q, ratio, mean_of_z = jax.device_get(drawn(q, jax.random.key(3)))
    matrix, shift = affine(LINEAR, q.params, 3)
    center = matrix @ mean[0] + shift
    spread = matrix @ np.diag(np.exp(log_var[0])) @ matrix.T
    exact = multivariate_normal(center, spread)
    np.testing.assert_allclose(log_q, exact.logpdf(z), atol=2e-4)
    np.testing.assert_allclose(mean_of_z, center, rtol=1e-5)
    kl = 0.5 * (np.trace(spread) + center @ center - 3 - np.linalg.slogdet(spread)[1])
    assert abs(ratio.mean() - kl) < 4 * ratio.std() / np.sqrt(count) < 0.1


@pytest.mark.slow
def test_a_posteriors_density_is_that_of_its_inverse_and_depends_on_x():
    keys = jax.random.split(jax.random.key(0), 4)
    mean, log_var = (jax.random.normal(k, (6, 4)) for k in keys[:2])
    cond = jax.random.normal(keys[2], (6, 2))
    flow = VectorSteps(4, 3, hidden=(5,), cond_features=2)
    q = posterior_of(flow, mean, log_var, cond)
    z, log_q = q.sample_and_log_prob(keys[3])
    np.testing.assert_array_equal(q.sample(keys[3]), z)
    start = flow.apply({"params": q.params}, z, cond, method="inverse")
    back = lambda z, cond: flow.apply(  # noqa: E731
        {"params": q.params}, z[None], cond[None], method="inverse"
    )[0]
    jacobians = jax.jit(jax.vmap(jax.jacfwd(back)))(z, cond)
    log_det = np.linalg.slogdet(np.asarray(jacobians))[1]
    wanted = np.asarray(q.base.log_prob(start)) + log_det
    np.testing.assert_allclose(log_q, wanted, atol=2e-4)
    other = posterior_of(flow, mean, log_var, cond + 1.0)
    assert jnp.abs(other.sample(keys[3]) - z).max() > 0.01


@pytest.mark.slow
def test_temperature_acts_on_the_codes():
    prior = prior_of(VectorSteps(2, 3, hidden=(8,)), 2, 5)
    cold = prior.tempered(0.0).sample(jax.random.key(0))
    np.testing.assert_allclose(cold, prior.at(jnp.zeros((5, 2))), rtol=1e-5)
    key = jax.random.key(1)
    half, _ = prior.code(prior.tempered(0.5).sample(key))
    whole, _ = prior.code(prior.sample(key))
    np.testing.assert_allclose(half, 0.5 * whole, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_between_two_points_codes_are_on_a_line():
    prior = prior_of(VectorSteps(2, 3, hidden=(8,)), 2, 4)
    start, end = prior.sample(jax.random.key(0)), prior.sample(jax.random.key(1))
    t = jnp.array([0.0, 0.25, 1.0]).reshape(1, 3, 1)
    path = prior.interpolate(start[:, None], end[:, None], t)
    assert path.shape == (4, 3, 2)
    np.testing.assert_allclose(path[:, 0], start, atol=1e-4)
    np.testing.assert_allclose(path[:, 2], end, atol=1e-4)
    first, last = prior.code(start)[0], prior.code(end)[0]
    quarter, _ = prior.code(path[:, 1])
    np.testing.assert_allclose(quarter, 0.75 * first + 0.25 * last, atol=1e-4)
    straight = 0.75 * start + 0.25 * end
    assert jnp.abs(path[:, 1] - straight).max() > 0.01


LATENT = {"name": "flow", "posterior_depth": 2, "prior_depth": 3, "hidden": (6,)}
VAE = {"name": "mlp", "image_shape": (4, 4, 1), "hidden": (8,), "latent_dim": 3}


@pytest.mark.parametrize(
    "latent",
    others_slow(
        [LATENT, {**LATENT, "prior_depth": 0}, {**LATENT, "posterior_depth": 0}],
        {**LATENT, "posterior_depth": 0},
    ),
    ids=["both", "posterior", "prior"],
)
def test_a_vae_begins_as_one_with_gaussians(latent):
    """The flows begin as permutations, that N(0, I) does not notice."""
    model = models.build(**VAE, latent=latent)
    key = jax.random.key(0)
    one = {"image": np.eye(4, dtype="float32")[None, :, :, None]}
    batch = {"image": np.tile(one["image"], (4000, 1, 1, 1))}
    variables = jax.jit(model.init)(key, one, key)

    @jax.jit
    def drawn(variables, key):
        """Returns (log q - log p of a draw for each, KL of the Gaussians)."""
        ratio = model.apply(variables, batch, key, method="infer").log_ratio
        q = model.apply(variables, one, method="posterior")
        return ratio, getattr(q, "base", q).kl_to_standard_normal()[0]

    ratio, exact = jax.device_get(drawn(variables, jax.random.key(1)))
    assert abs(ratio.mean() - exact) < 4 * ratio.std() / np.sqrt(len(ratio))
    moved = {**variables, "params": noisy(variables["params"])}
    again = np.asarray(drawn(moved, jax.random.key(1))[0])
    assert np.isfinite(again).all()
    assert abs(again.mean() - exact) > 0.05


def test_the_context_reaches_the_posterior():
    model = models.build(**VAE, latent={**LATENT, "context": 2})
    key, batch = jax.random.key(0), {"image": np.ones((2, 4, 4, 1), "float32")}
    params = jax.eval_shape(model.init, key, batch, key)["params"]
    assert params["posterior_head"]["kernel"].shape == (8, 8)
    steps = params["posterior_flow"]["steps"]["parts_2"]["net"]["Dense_0"]["kernel"]
    assert steps.shape == (2, 2 + 2, 6)
    without = models.build(**VAE, latent={**LATENT, "posterior_depth": 0})
    params = jax.eval_shape(without.init, key, batch, key)["params"]
    assert params["posterior_head"]["kernel"].shape == (8, 6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"posterior_depth": 0, "prior_depth": 0}, "prior_depth must be positive"),
        ({"posterior_depth": -1}, "posterior_depth must be at least 0"),
        ({"hidden": (0,)}, "hidden must hold numbers"),
        ({"context": -2}, "context must be at least 0"),
    ],
)
def test_impossible_flows_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        models.build(**VAE, latent={**LATENT, **fields})


@pytest.mark.parametrize(
    "fields", [{"num_classes": 3}, {"clusters": {"num_clusters": 2}}]
)
def test_classes_and_clusters_keep_their_own_prior(fields):
    with pytest.raises(ConfigError, match="unless model.latent is 'gaussian'"):
        models.build(**VAE, latent=LATENT, **fields)
