"""f-VAEs between their two limits, a flow and a VAE."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import losses, models
from jvae.distributions import DiagGaussian
from jvae.errors import ConfigError
from jvae.layers import space_to_depth
from tests.flows.test_density import noisy

FIELDS = {
    "name": "fvae",
    "image_shape": (4, 4, 1),
    "levels": 1,
    "blocks": 1,
    "block_hidden": 5,
    "flow_levels": 2,
    "depth": 2,
    "hidden": 5,
    "coupling": "affine",
    "mixing": "convolution",
}


@functools.cache
def initial(double):
    """(model, variables at the start, images [3, 4, 4, 1]), arrays of NumPy."""
    with jax.enable_x64(double):
        model, key = models.build(**FIELDS), jax.random.key(0)
        x = np.random.default_rng(0).random((3, *model.image_shape))
        variables = jax.jit(model.init)(key, {"image": x}, key)
        return model, jax.device_get(variables), x.astype("f8" if double else "f4")


def made(double=False):
    """What `initial` returns, the variables in a dictionary of their own."""
    model, variables, x = initial(double)
    return model, dict(variables), x


@functools.partial(jax.jit, static_argnames="model")
def elbo_and_draw(model, params, state, x):
    """(the bound at a draw [B], the draw v [B, D])."""
    arguments = (params, state, jax.random.key(1), {"image": x})
    log_likelihood, drawn, _ = losses.elbo_terms(*arguments, model=model, train=False)
    return log_likelihood - drawn.kl.sum(-1), drawn.latents


@functools.partial(jax.jit, static_argnames=("model", "method"))
def applied(model, variables, *args, method):
    return model.apply(variables, *args, method=method)


def with_std(params, s):
    """The parameters with s1 = s2 = s."""
    log_var = np.full_like(params["observation"]["log_var"], 2.0 * math.log(s))
    observation = {**params["observation"], "log_var": log_var}
    log_std = np.full_like(params["log_std"], math.log(s))
    return {**params, "log_std": log_std, "observation": observation}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("double", "s"), [(True, 0.05), (True, 0.7), (False, 0.05), (False, 0.7)]
)
def test_without_layers_it_is_the_flow_draw_by_draw(double, s):
    """E = G = id: the bound at a draw is the flow's log density there, of any s."""
    with jax.enable_x64(double):
        model, variables, x = made(double)
        params = with_std(variables["params"], s)
        params["flow"] = noisy(params["flow"])
        state = {"batch_stats": variables["batch_stats"]}
        found, v = jax.device_get(elbo_and_draw(model, params, state, x))
        v = v.reshape(3, 2, 2, 4)
        assert np.abs(v - space_to_depth(x)).max() > s

        @jax.jit
        def log_prob(params, v):
            z, log_det = model.flow.apply({"params": params}, v)
            return DiagGaussian.standard(*z.shape).log_prob(z) + log_det

        wanted = log_prob(params["flow"], v)
        np.testing.assert_allclose(found, wanted, atol=1e-10 if double else 1e-3)


def test_at_first_the_bound_is_a_gaussian_of_the_noised_image():
    """L = (D/2) log 2 pi + |x + s u|^2 / 2, as the flow begins as a permutation."""
    model, variables, x = made()
    params, state = with_std(variables.pop("params"), 0.3), variables
    found, v = elbo_and_draw(model, params, state, x)
    square = np.square(np.asarray(v, np.float64)).sum(1)
    wanted = -8 * math.log(2 * math.pi) - square / 2
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def linear(flow_params):
    """Random parameters of norms and mixing; what networks say is 0."""

    def without_networks(path, leaf):
        is_network = any(key.key in ("net", "norm") for key in path)
        return 0.0 * leaf if is_network else leaf

    moved = noisy(flow_params, 0.1, seed=2)
    return jax.tree_util.tree_map_with_path(without_networks, moved)


@pytest.mark.slow
def test_with_a_linear_flow_it_is_a_vae_with_a_gaussian_prior():
    """F(v) = A v + b: the mean of log q - log p over draws is the KL in closed form."""
    model, variables, x = made()
    fixed = variables["params"]
    params = {**noisy(fixed), "flow": linear(fixed["flow"])}
    params = with_std(params, 0.4)
    state = {"batch_stats": variables["batch_stats"]}
    q = applied(model, {"params": params, **state}, x, method="encode")

    def flow(v):
        maps = v.reshape(1, 2, 2, 4)
        return model.flow.apply({"params": params["flow"]}, maps)[0][0]

    zero = jnp.zeros(16)
    a = np.asarray(jax.jit(jax.jacrev(flow))(zero), np.float64)
    off = np.asarray(q.mean) @ a.T + np.asarray(jax.jit(flow)(zero))
    log_det = np.linalg.slogdet(a)[1]
    assert abs(log_det) > 0.5
    variance = 0.4**2
    exact = 0.5 * (variance * (a**2).sum() + (off**2).sum(1) - 16) - log_det
    exact -= 8 * math.log(variance)
    assert exact.std() > 0.01

    @jax.jit
    def ratio(key):
        batch = {"image": x}
        drawn = model.apply({"params": params, **state}, batch, key, method="infer")
        return drawn.log_ratio

    ratios = np.stack([ratio(k) for k in jax.random.split(jax.random.key(3), 2000)])
    error = ratios.std(0) / np.sqrt(len(ratios))
    assert (np.abs(ratios.mean(0) - exact) < 4 * error).all() and error.max() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_a_scalar_deviation_costs_its_logarithm_in_every_dimension(factor):
    """At one draw of u, log q(v|x) falls by D log of the factor."""
    model, variables, x = made()
    log_q = []
    for s in (0.2, 0.2 * factor):
        both = {**variables, "params": with_std(variables["params"], s)}
        q = applied(model, both, x, method="encode")
        log_q.append(q.sample_and_log_prob(jax.random.key(0))[1])
    wanted = -16 * math.log(factor)
    np.testing.assert_allclose(log_q[1] - log_q[0], wanted, atol=1e-4)


@pytest.mark.slow
def test_encoder_and_decoder_begin_as_inverses_and_are_trained():
    model, variables, x = made()
    code = applied(model, variables, x, method="encode").mean
    np.testing.assert_array_equal(code.reshape(3, 2, 2, 4), space_to_depth(x))
    np.testing.assert_array_equal(applied(model, variables, code, method="decode"), x)
    state = {"batch_stats": variables["batch_stats"]}

    def loss(params):
        arguments = (params, state, jax.random.key(0), {"image": x}, {})
        return losses.negative_elbo(*arguments, model=model)[0]

    gradient = jax.jit(jax.grad(loss))(noisy(variables["params"]))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_examples_at_the_start_set_the_actnorms():
    model, variables, _ = made()
    x = 0.5 + 0.2 * np.random.default_rng(5).random((64, 4, 4, 1), "float32")
    variables = {**variables, "params": with_std(variables["params"], 0.02)}
    start = functools.partial(
        model.apply, method="data_dependent_init", mutable=["params"]
    )
    _, new = jax.jit(start)(variables, {"image": x}, jax.random.key(0))

    @jax.jit
    def codes(params):
        q = model.apply({**variables, "params": params}, x, method="encode")
        return model.flow.apply({"params": params["flow"]}, q.mean.reshape(-1, 2, 2, 4))

    before, after = (
        np.asarray(codes(params)[0]) for params in (variables["params"], new["params"])
    )
    assert abs(float(after.mean())) < 0.1 and abs(float(after.std()) - 1.0) < 0.1
    assert abs(float(before.mean())) > 0.3


@pytest.mark.slow
def test_samples_are_decoded_from_the_flow_at_a_temperature():
    model, variables, _ = made()
    variables = {**variables, "params": noisy(variables["params"], 0.1)}

    @jax.jit
    def samples(temperature):
        key = jax.random.key(0)
        return model.apply(variables, key, 3, temperature, method="generate")

    cold, warm = samples(0.0), samples(1.0)
    assert cold.shape == (3, 4, 4, 1)
    np.testing.assert_allclose(cold, jnp.tile(cold[:1], (3, 1, 1, 1)), atol=1e-5)
    assert jnp.abs(warm - cold).min(0).max() > 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": 2, "flow_levels": 2}, "4x4 cannot be squeezed 3 times"),
        ({"flow_levels": 0}, "model.flow_levels must be at least 1"),
        ({"block_hidden": 0}, "model.block_hidden must be None or at least 1"),
        ({"posterior_std": 0.0}, "model.posterior_std must be positive"),
        ({"likelihood": "categorical"}, "model.likelihood must need the 1 outputs"),
    ],
)
def test_what_does_not_fit_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        models.build(**{**FIELDS, **fields})
