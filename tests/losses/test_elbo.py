"""The bound adds up; its knobs do what they say; KL costs what algebra says."""

import functools
import math
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae import losses, models
from jvae.distributions import DiagGaussian, Gaussian
from jvae.errors import ConfigError
from jvae.losses import elbo, objective

KEY = jax.random.key(0)
B, D = 6, 3


class Free(models.SingleLatent, nn.Module):
    """q(z|x) is a pair of parameters for every example, p(x|z) = N(z, I)."""

    target = "image"

    def setup(self):
        self.mean = self.param("mean", nn.initializers.zeros, (B, D))
        self.log_var = self.param("log_var", nn.initializers.zeros, (B, D))

    def posterior(self, batch):
        return DiagGaussian(self.mean, self.log_var)

    def prior(self, batch):
        return DiagGaussian.standard(B, D)

    def likelihood(self, z, batch):
        return Gaussian(z, jnp.zeros((1, 1)))


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


PARAMS = {"mean": normal(0, B, D), "log_var": normal(1, B, D)}
BATCH = {"image": normal(2, B, D)}
KL = 0.5 * (
    np.square(PARAMS["mean"]) + np.exp(PARAMS["log_var"]) - 1 - PARAMS["log_var"]
)


@functools.cache
def compiled(name, given):
    loss = losses.build(name, Free(), **dict(given))
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def evaluate(coefficients=None, name="elbo", params=PARAMS, batch=BATCH, **given):
    """Returns (loss, metrics, gradient) of an objective for the model above."""
    # Floats as arrays of one dtype, so that all calls share one compilation.
    defaults = (
        {"beta": 1.0, "free_bits": 0.0, "capacity": 0.0} if name == "elbo" else {}
    )
    given_now = {k: np.float32(v) for k, v in (defaults | (coefficients or {})).items()}
    run = compiled(name, tuple(given.items()))
    (loss, aux), gradient = jax.device_get(run(params, {}, KEY, batch, given_now))
    return loss, aux.metrics, gradient


def test_the_bound_is_the_mean_log_likelihood_less_the_mean_kl():
    loss, metrics, _ = evaluate()
    np.testing.assert_allclose(metrics["kl"], KL.sum(-1).mean(), rtol=1e-5)
    z = np.asarray(jax.jit(DiagGaussian.sample)(DiagGaussian(**PARAMS), KEY))
    squares = np.square(BATCH["image"] - z).sum(-1)
    log_likelihood = (-0.5 * squares - D / 2 * math.log(2 * math.pi)).mean()
    np.testing.assert_allclose(metrics["log_likelihood"], log_likelihood, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["elbo"], metrics["log_likelihood"] - metrics["kl"], rtol=1e-6
    )
    np.testing.assert_allclose(loss, -metrics["elbo"], rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 2.0])
def test_beta_weighs_the_kl_and_leaves_the_bound_alone(beta):
    loss, metrics, _ = evaluate({"beta": beta})
    np.testing.assert_allclose(
        loss, beta * metrics["kl"] - metrics["log_likelihood"], rtol=1e-6
    )
    np.testing.assert_allclose(metrics["elbo"], evaluate()[1]["elbo"], rtol=1e-6)


def test_one_more_beta_costs_one_more_kl():
    difference = evaluate({"beta": 2.0})[0] - evaluate({"beta": 1.0})[0]
    np.testing.assert_allclose(difference, KL.sum(-1).mean(), rtol=1e-5)


@pytest.mark.parametrize("free_bits", [0.1, 0.5, 5.0])
def test_free_bits_bound_every_group_from_below_without_gradient_there(free_bits):
    loss, metrics, gradient = evaluate({"free_bits": free_bits})
    penalty = loss + metrics["log_likelihood"]
    assert penalty >= D * free_bits - 1e-5
    np.testing.assert_allclose(
        penalty, np.maximum(KL, free_bits).sum(-1).mean(), rtol=1e-5
    )
    np.testing.assert_allclose(metrics["kl"], KL.sum(-1).mean(), rtol=1e-5)
    without_kl = evaluate({"beta": 0.0})[2]
    free = free_bits > KL
    for name in PARAMS:
        np.testing.assert_array_equal(gradient[name][free], without_kl[name][free])
        assert np.all(gradient[name][~free] != without_kl[name][~free])


def test_free_bits_over_the_total_let_the_groups_share_them():
    loss, metrics, _ = evaluate({"free_bits": 2.0}, free_bits_over="total")
    penalty = loss + metrics["log_likelihood"]
    total = KL.sum(-1)
    np.testing.assert_allclose(penalty, np.maximum(total, 2.0).mean(), rtol=1e-5)
    assert np.any(total < 2.0) and np.any(total > 2.0)


@pytest.mark.parametrize("capacity", [0.5, 3.0, 50.0])
def test_capacity_pulls_the_kl_to_it_from_both_sides(capacity):
    loss, metrics, _ = evaluate({"capacity": capacity, "beta": 4.0})
    expected = 4.0 * np.abs(KL.sum(-1) - capacity).mean()
    np.testing.assert_allclose(loss + metrics["log_likelihood"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    "coefficients",
    [{"free_bits": 5.0}, {"capacity": 50.0}, {"free_bits": 0.5, "capacity": 0.5}],
    ids=str,
)
def test_the_reported_bound_is_the_plain_one_whatever_is_minimized(coefficients):
    loss, metrics, _ = evaluate(coefficients | {"beta": 3.0})
    plain = evaluate()[1]
    for name in ("elbo", "kl", "log_likelihood"):
        np.testing.assert_allclose(metrics[name], plain[name], rtol=1e-6)
    assert abs(loss + metrics["elbo"]) > 1.0


def test_a_posterior_equal_to_the_prior_costs_nothing():
    zero = jax.tree.map(np.zeros_like, PARAMS)
    for name, kl_estimate in (("elbo", "closed_form"), ("elbo", "monte_carlo")):
        metrics = evaluate(name=name, params=zero, kl_estimate=kl_estimate)[1]
        np.testing.assert_allclose(metrics["kl"], 0.0, atol=1e-6)


def test_monte_carlo_kl_has_the_expectation_of_the_closed_form():
    """4,000 draws, within 4 standard errors."""
    loss = compiled("prior_kl", (("kl_estimate", "monte_carlo"),))
    draws = jax.random.split(KEY, 4000)
    run = jax.jit(jax.vmap(lambda key: loss(PARAMS, {}, key, BATCH, {})[0][0]))
    found = np.asarray(run(draws))
    error = np.abs(found.mean() - evaluate(name="prior_kl")[0])
    assert error < 4 * found.std() / math.sqrt(len(found))


def test_both_kl_estimates_are_those_of_the_bound():
    exact, sampled = (
        evaluate(kl_estimate=name)[1] for name in ("closed_form", "monte_carlo")
    )
    np.testing.assert_allclose(evaluate(name="prior_kl")[0], exact["kl"], rtol=1e-6)
    found = evaluate(name="prior_kl", kl_estimate="monte_carlo")[0]
    np.testing.assert_allclose(found, sampled["kl"], rtol=1e-5)
    assert exact["kl"] != sampled["kl"]
    assert exact["log_likelihood"] == sampled["log_likelihood"]


def test_a_negative_monte_carlo_kl_counts_as_it_is():
    near = {"mean": 0.1 * PARAMS["mean"], "log_var": 0.1 * PARAMS["log_var"]}
    loss, metrics, _ = evaluate(params=near, kl_estimate="monte_carlo")
    terms = jax.jit(functools.partial(elbo.elbo_terms, model=Free()))
    log_ratio = np.asarray(terms(near, {}, KEY, BATCH)[1].log_ratio)
    assert np.any(log_ratio < 0) and np.any(log_ratio > 0)
    expected = log_ratio.mean() - metrics["log_likelihood"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_gradients_reach_mean_and_variance_through_the_draw():
    gradient = evaluate({"beta": 0.0})[2]
    z = np.asarray(jax.jit(DiagGaussian.sample)(DiagGaussian(**PARAMS), KEY))
    residual = (z - BATCH["image"]) / B
    np.testing.assert_allclose(gradient["mean"], residual, rtol=1e-4, atol=1e-6)
    by_log_var = residual * 0.5 * (z - PARAMS["mean"])
    np.testing.assert_allclose(gradient["log_var"], by_log_var, rtol=1e-4, atol=1e-6)


def test_elbo_terms_are_the_summands_of_the_mean():
    terms = jax.jit(functools.partial(elbo.elbo_terms, model=Free()))
    log_likelihood, inference, state = jax.device_get(terms(PARAMS, {}, KEY, BATCH))
    assert log_likelihood.shape == inference.log_ratio.shape == (B,)
    assert state == {}
    np.testing.assert_allclose(inference.kl, KL, rtol=1e-5)
    found = (log_likelihood - inference.kl.sum(-1)).mean()
    np.testing.assert_allclose(found, evaluate()[1]["elbo"], rtol=1e-6)


@pytest.mark.parametrize("mask", [[True] * 6, [True, False, True, False, False, True]])
def test_masked_mean_is_the_mean_of_what_is_kept(mask):
    mask = np.array(mask)
    values = np.where(mask, np.arange(6.0, dtype="float32"), np.nan)
    found = jax.jit(objective.masked_mean)(values, {"mask": mask})
    np.testing.assert_allclose(found, values[mask].mean())


def test_a_batch_of_padding_alone_has_the_mean_zero():
    found = jax.jit(objective.masked_mean)(
        np.full(3, np.inf, "float32"), {"mask": np.zeros(3, bool)}
    )
    assert float(found) == 0.0


def test_without_train_the_state_stays_and_running_statistics_are_used():
    model = models.build(
        "conv", image_shape=(2, 2, 1), latent_dim=2, channels=(2,), batch_norm=True
    )
    batch = {"image": np.eye(4, dtype="float32").reshape(4, 2, 2, 1)}
    variables = jax.jit(model.init)(KEY, batch, KEY)
    params = variables["params"]
    state = {"batch_stats": jax.device_get(variables["batch_stats"])}
    found = {}
    for train in (True, False):
        run = jax.jit(functools.partial(elbo.negative_elbo, model=model, train=train))
        loss, aux = jax.device_get(run(params, state, KEY, batch, {}))
        found[train] = float(loss)
        moved = jax.tree.map(lambda a, b: np.any(a != b), aux.state, state)
        assert all(jax.tree.leaves(moved)) == train
        assert any(jax.tree.leaves(moved)) == train
    assert found[True] != found[False]


def test_coefficients_at_a_call_go_before_those_of_the_config():
    loss = jax.jit(losses.build("elbo", Free(), beta=3.0))
    fixed = loss(PARAMS, {}, KEY, BATCH, {})[0]
    np.testing.assert_allclose(fixed, evaluate({"beta": 3.0})[0], rtol=1e-6)
    annealed = loss(PARAMS, {}, KEY, BATCH, {"beta": 0.5})[0]
    np.testing.assert_allclose(annealed, evaluate({"beta": 0.5})[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("elboo", {}, "loss.name 'elboo' is unknown. Did you mean 'elbo'?"),
        ("elbo", {"betta": 1.0}, "loss.betta is unknown. Did you mean 'beta'?"),
        ("elbo", {"beta": "1"}, "loss.beta must be float >= 0, got '1'."),
        ("elbo", {"beta": -1.0}, "loss.beta must be at least 0, got -1.0."),
        ("elbo", {"beta": math.inf}, "loss.beta must be finite"),
        ("elbo", {"free_bits": math.nan}, "loss.free_bits must be a number"),
        ("elbo", {"kl_estimate": "exact"}, "loss.kl_estimate must be 'closed_form' |"),
    ],
)
def test_a_wrong_config_is_refused_before_any_tracing(name, given, message):
    with pytest.raises(ConfigError) as error:
        losses.build(name, Free(), **given)
    assert message in str(error.value)


def test_train_is_for_callers_and_no_field_of_a_config():
    assert "train" not in losses.config_fields(losses.LOSSES["elbo"])


@pytest.mark.parametrize("train", [True, False])
def test_batch_statistics_are_used_and_updated_only_in_training(train):
    model = models.build("conv", image_shape=(4, 4, 1), channels=(2,), batch_norm=True)
    batch = {"image": np.eye(4, dtype="f4")[None, :, :, None].repeat(3, 0)}
    variables = dict(jax.jit(model.init)(KEY, batch, KEY))
    params = variables.pop("params")
    loss = jax.jit(losses.build("elbo", model, train=train))
    _, aux = loss(params, variables, KEY, batch, {})
    same = jax.tree.map(np.array_equal, variables, aux.state)
    assert all(jax.tree.leaves(same)) != train


@pytest.mark.parametrize(
    ("objective", "option"),
    [
        (elbo.negative_elbo, "kl_estimate"),
        (elbo.negative_elbo, "free_bits_over"),
        (elbo.prior_kl, "kl_estimate"),
    ],
)
def test_an_unknown_option_is_refused_where_nothing_was_built(objective, option):
    with pytest.raises(ConfigError, match=f"loss.{option} must be '.*', got 'x'"):
        objective({}, {}, KEY, BATCH, {}, model=Free(), **{option: "x"})


class Labelled(Free):
    target = "label"


class Compared(Free):
    def views(self, batch, key):
        raise NotImplementedError

    global_scores = local_scores = views


class Clustered(Free):
    def cluster_log_probs(self, z):
        raise NotImplementedError


class Grouped(Free):
    group_weights = (1.0,)

    def conv_kernels(self):
        raise NotImplementedError

    norm_scales = conv_kernels


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_coefficient_that_an_objective_does_not_read_is_refused(name):
    fitting = {"bottleneck": Labelled, "cluster_elbo": Clustered, "infomax": Compared}
    fitting |= {"hierarchical_elbo": Grouped}
    loss = losses.build(name, fitting.get(name, Free)())
    with pytest.raises(ConfigError, match="coefficient 'gamma' is unknown"):
        loss(PARAMS, {}, KEY, BATCH, {"gamma": 1.0})


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_field_of_every_objective_has_a_meaning(name):
    known = losses.config_fields(losses.LOSSES[name])
    assert [field.name for field in known.values() if not field.meaning] == []
    assert set(losses.coefficients_of(losses.LOSSES[name])) <= set(known)


def squared_error(
    params, state, key, batch, coefficients, *, model, scale: float = 1.0
):
    """An objective of a user.

    Args:
      scale: factor.
    """
    return scale * jnp.square(params["mean"] - batch["image"]).mean(), None


def test_an_objective_of_ones_own_is_built_from_its_import_path(monkeypatch):
    package = types.ModuleType("my_objectives")
    package.squared_error = squared_error
    monkeypatch.setitem(sys.modules, "my_objectives", package)
    loss = losses.build("my_objectives:squared_error", Free(), scale=2.0)
    expected = 2.0 * np.square(PARAMS["mean"] - BATCH["image"]).mean()
    found, _ = loss(PARAMS, {}, KEY, BATCH, {})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
