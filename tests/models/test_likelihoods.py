"""From decoder outputs to p(x|z): what is which output, and what is bounded."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import distributions
from jvae.errors import ConfigError
from jvae.models import likelihoods

KEY = jax.random.key(0)
SIZE = (2, 3, 2)  # examples, height, width
ALL = [
    "bernoulli",
    {"name": "gaussian", "variance": "fixed", "std": 0.5},
    {"name": "gaussian", "variance": "shared", "mean": "sigmoid"},
    {"name": "gaussian", "variance": "pixel", "mean": "tanh"},
    {"name": "discretized_logistic", "num_bits": 3},
    {"name": "discretized_logistic_mixture", "num_components": 1, "num_bits": 3},
    {"name": "discretized_logistic_mixture", "num_components": 4, "num_bits": 3},
    {"name": "categorical", "num_bits": 3},
]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def observe(head, outputs, params=None):
    """Returns p(x|z) of a head, with its parameters where it has any."""
    variables = {"params": params or {}}
    return head.apply(variables, jnp.asarray(outputs))


@pytest.mark.parametrize("likelihood", ALL, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_head_turns_its_number_of_outputs_into_pixels(likelihood, channels):
    head = likelihoods.build(likelihood)
    outputs = jnp.zeros((*SIZE, head.num_outputs(channels)))

    def run(outputs):
        p, variables = head.init_with_output(KEY, outputs)
        x = p.sample(KEY)
        return p.log_prob(x), x, p.mean, variables

    log_prob, x, mean, variables = jax.eval_shape(run, outputs)
    assert log_prob.shape == SIZE[:1] and log_prob.dtype == jnp.float32
    assert x.shape == mean.shape == (*SIZE, channels)
    shared = "shared" in str(likelihood)
    assert bool(jax.tree.leaves(variables)) == shared


@pytest.mark.parametrize("likelihood", ALL, ids=str)
def test_a_head_is_differentiated_forward_as_in_reverse(likelihood):
    head = likelihoods.build(likelihood)
    outputs = 0.1 * normal(0, *SIZE, head.num_outputs(1))
    way = normal(1, *outputs.shape)

    @jax.jit
    def slopes(outputs, way):
        p, variables = head.init_with_output(KEY, outputs)
        x = jax.lax.stop_gradient(p.sample(KEY))
        value = lambda o: head.apply(variables, o).log_prob(x).sum()  # noqa: E731
        along = jax.jvp(jax.grad(value), (outputs,), (way,))[1]
        again = jax.grad(lambda o: jnp.vdot(jax.grad(value)(o), way))(outputs)
        forward = jax.jvp(value, (outputs,), (way,))[1]
        return forward, jnp.vdot(jax.grad(value)(outputs), way), along, again

    forward, reverse, along, again = slopes(outputs, way)
    np.testing.assert_allclose(forward, reverse, rtol=1e-4)
    np.testing.assert_allclose(along, again, rtol=1e-4, atol=1e-5)


def test_bernoulli_outputs_are_logits():
    outputs = normal(0, *SIZE, 1)
    np.testing.assert_array_equal(
        observe(likelihoods.bernoulli(), outputs).logits, outputs
    )


@pytest.mark.parametrize(
    ("mean", "bound"),
    [
        ("linear", lambda x: x),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("tanh", np.tanh),
    ],
)
def test_the_mean_of_a_gaussian_is_bounded_as_asked(mean, bound):
    outputs = normal(0, *SIZE, 1)
    p = observe(likelihoods.gaussian(mean=mean, std=0.5), outputs)
    np.testing.assert_allclose(p.mean, bound(outputs), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(p.log_var, 2 * math.log(0.5), rtol=1e-6)


def test_a_shared_variance_is_one_parameter_that_starts_at_std():
    head = likelihoods.gaussian("shared", std=0.3, min_std=0.1)
    outputs = normal(0, *SIZE, 2)
    params = head.init(KEY, outputs)["params"]
    assert jax.tree.map(jnp.size, params) == {"log_var": 1}
    np.testing.assert_allclose(
        observe(head, outputs, params).log_var, 2 * math.log(0.3)
    )


@pytest.mark.parametrize("variance", ["shared", "pixel"])
def test_a_learned_variance_has_a_floor_that_bounds_the_density(variance):
    head = likelihoods.gaussian(variance, min_std=0.1)
    low = jnp.full((1, 1, 1, 1), -1e4)
    outputs = low if variance == "shared" else jnp.concatenate([low * 0, low], -1)
    p = observe(head, outputs, {"log_var": low})
    np.testing.assert_allclose(p.log_var, 2 * math.log(0.1), rtol=1e-6)
    peak = -0.5 * math.log(2 * math.pi) - math.log(0.1)
    np.testing.assert_allclose(p.log_prob(p.mean), [peak], rtol=1e-5)


def test_a_pixel_variance_is_the_second_half_of_the_outputs():
    outputs = normal(0, *SIZE, 4)
    p = observe(likelihoods.gaussian("pixel"), outputs)
    np.testing.assert_array_equal(p.mean, outputs[..., :2])
    np.testing.assert_array_equal(p.log_var, outputs[..., 2:])


def test_discretized_logistic_outputs_are_centers_then_scales():
    outputs = normal(0, *SIZE, 4)
    p = observe(likelihoods.discretized_logistic(num_bits=5), outputs)
    assert p.num_bits == 5
    np.testing.assert_array_equal(p.loc, outputs[..., :2])
    np.testing.assert_allclose(p.log_scale, outputs[..., 2:] - 2.0, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_mixture_outputs_are_logits_centers_scales_and_couplings(channels):
    k = 3
    head = likelihoods.discretized_logistic_mixture(k, num_bits=5)
    outputs = normal(0, *SIZE, head.num_outputs(channels))
    p = observe(head, outputs)
    parts = outputs.reshape(*SIZE, -1, k)
    assert p.num_bits == 5
    np.testing.assert_array_equal(p.logits, parts[..., 0, :])
    spread = np.array([-1.0, 0.0, 1.0])
    loc = parts[..., 1 : 1 + channels, :] + spread
    np.testing.assert_allclose(p.loc, loc, rtol=1e-5, atol=1e-6)
    scales = parts[..., 1 + channels : 1 + 2 * channels, :] - 2.0
    np.testing.assert_allclose(p.log_scale, scales, rtol=1e-5)
    if channels == 1:
        assert p.coefficients is None
    else:
        np.testing.assert_allclose(p.coefficients, np.tanh(parts[..., 7:, :]), 1e-4)


def test_categorical_outputs_are_the_levels_of_each_channel_in_turn():
    outputs = normal(0, *SIZE, 8)
    p = observe(likelihoods.categorical(num_bits=2), outputs)
    assert isinstance(p, distributions.Categorical)
    np.testing.assert_array_equal(p.logits[..., 0, :], outputs[..., :4])
    np.testing.assert_array_equal(p.logits[..., 1, :], outputs[..., 4:])


@pytest.mark.parametrize("likelihood", ALL, ids=str)
def test_every_head_is_finite_at_extreme_outputs(likelihood):
    head = likelihoods.build(likelihood)

    @jax.jit
    @jax.value_and_grad
    def log_prob(outputs):
        p = head.init_with_output(KEY, outputs)[0]
        return p.log_prob(jnp.zeros_like(p.mean)).sum()

    for size in (-1e4, 1e4):
        outputs = np.full((1, 1, 1, head.num_outputs(3)), size, "float32")
        value, gradient = log_prob(outputs)
        assert np.isfinite(value) and np.isfinite(gradient).all(), size


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ("bernouli", "Did you mean 'bernoulli'?"),
        ({"num_bits": 8}, "model.likelihood.name '' is unknown"),
        ({"name": "bernoulli", "std": 1.0}, "model.likelihood.std is unknown"),
        ({"name": "gaussian", "std": 0.0}, "std must be positive, got 0.0."),
        ({"name": "gaussian", "min_std": -1.0}, "min_std must be positive, got -1.0."),
        ({"name": "gaussian", "variance": "own"}, "variance must be '"),
        (
            {"name": "categorical", "num_bits": 0},
            "num_bits must be within [1, 8], got 0.",
        ),
        (
            {"name": "discretized_logistic", "num_bits": 9},
            "must be within [1, 8], got 9.",
        ),
        (
            {"name": "discretized_logistic_mixture", "num_components": 0},
            "num_components must be at least 1, got 0.",
        ),
    ],
    ids=str,
)
def test_an_impossible_likelihood_is_refused(likelihood, message):
    with pytest.raises(ConfigError) as error:
        likelihoods.build(likelihood)
    assert message in str(error.value)


def test_a_head_of_ones_own_is_found_by_its_import_path():
    head = likelihoods.build("jvae.models.likelihoods:BernoulliHead")
    assert head.num_outputs(3) == 3
