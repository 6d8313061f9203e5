"""The objective of deep hierarchies against its parts."""

import functools

import jax
import numpy as np
import pytest

from jvae import losses, models
from jvae.errors import ConfigError
from jvae.losses.hierarchical import balance
from tests.losses.hierarchy import TwoGroups

KEY = jax.random.key(0)
X = (np.random.default_rng(1).uniform(size=(4, 4, 4, 1)) > 0.6).astype(np.float32)


MODEL = TwoGroups()
factors = jax.jit(balance)


@functools.cache
def variables():
    made = dict(jax.jit(MODEL.init)(KEY, {"image": X}, KEY))
    return made.pop("params"), made


@functools.cache
def jitted(name, **options):
    return jax.jit(losses.build(name, model=MODEL, **options))


def outcome(name="hierarchical_elbo", batch=None, options=None, **coefficients):
    """(loss, aux) at these options and coefficients."""
    loss = jitted(name, **(options or {}))
    values = {k: np.float32(v) for k, v in coefficients.items()}
    return jax.device_get(loss(*variables(), KEY, batch or {"image": X}, values))


def test_balance_is_by_share_over_weight_with_a_mean_of_one():
    kl = np.array([[1.0, 4.0, 0.0], [3.0, -4.0, 0.0]], "f4")
    weights = np.array([1.0, 2.0, 2.0], "f4")
    found = np.asarray(factors(kl, weights))
    shares = np.array([2.01 / 1.0, 4.01 / 2.0, 0.01 / 2.0])
    np.testing.assert_allclose(found, shares / shares.mean(), rtol=1e-5)
    np.testing.assert_allclose(found.mean(), 1.0, rtol=1e-6)


def test_balance_of_equal_shares_is_one():
    weights = np.array([1.0, 2.0, 4.0], "f4")
    kl = np.tile(3.0 * weights - np.float32(0.01), (5, 1))
    np.testing.assert_allclose(factors(kl, weights), np.ones(3), rtol=1e-5)


def test_balance_leaves_padding_out_and_has_no_gradient():
    kl, ones = np.array([[1.0, 2.0], [np.nan, 5.0]], "f4"), np.ones(2, "f4")
    mask = np.array([True, False])
    np.testing.assert_allclose(factors(kl, ones, mask), factors(kl[:1], ones))
    gradient = jax.jit(jax.grad(lambda kl: balance(kl, ones)[0]))(kl[:1])
    np.testing.assert_array_equal(gradient, np.zeros((1, 2)))


def test_without_penalty_and_at_full_weight_it_is_the_elbo():
    """Balanced or not: the factors act only while beta < 1."""
    plain, _ = outcome("elbo")
    for balanced in (True, False):
        loss, aux = outcome(options={"balanced": balanced})
        np.testing.assert_allclose(loss, plain, rtol=1e-6)
        np.testing.assert_allclose(-aux.metrics["elbo"], plain, rtol=1e-6)


def test_with_balance_off_the_groups_are_a_plain_sum():
    loss, aux = outcome(options={"balanced": False}, beta=0.25)
    m = aux.metrics
    np.testing.assert_allclose(loss, 0.25 * m["kl"] - m["log_likelihood"], rtol=1e-5)


def test_below_one_the_groups_are_weighed():
    loss, aux = outcome(beta=0.25)
    infer = functools.partial(MODEL.apply, method="infer", mutable=["batch_stats"])
    params, state = variables()
    inference, _ = jax.jit(infer)({"params": params, **state}, {"image": X}, KEY)
    kl = np.asarray(inference.kl)
    found = np.asarray(factors(kl, np.float32(MODEL.group_weights)))
    wanted = 0.25 * (kl @ found).mean() - aux.metrics["log_likelihood"]
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)
    assert np.abs(found - 1.0).max() > 0.1


def test_the_penalty_is_the_sum_of_largest_values_and_scales():
    loss, aux = outcome(smoothness=0.5)
    bare, _ = outcome()
    params = variables()[0]
    kernels, scales = jax.device_get(
        jax.jit(
            lambda: [
                MODEL.apply({"params": params}, method=method)
                for method in ("conv_kernels", "norm_scales")
            ]
        )()
    )
    exact = sum(
        float(np.linalg.svd(w, compute_uv=False)[:, 0].sum()) for w in kernels.values()
    )
    largest = sum(float(np.abs(s).max(-1).sum()) for s in scales.values())
    np.testing.assert_allclose(aux.metrics["spectral_norms"], exact, rtol=1e-2)
    np.testing.assert_allclose(aux.metrics["norm_scales"], largest, rtol=1e-6)
    np.testing.assert_allclose(
        loss - bare,
        0.5 * (aux.metrics["spectral_norms"] + aux.metrics["norm_scales"]),
        rtol=1e-4,
    )


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_weight_of_the_penalty_goes_by_beta(beta):
    options = {"smoothness_start": 0.5, "balanced": False}
    loss, aux = outcome(options=options, beta=beta, smoothness=0.01)
    bare, _ = outcome(options={"balanced": False}, beta=beta)
    penalty = aux.metrics["spectral_norms"] + aux.metrics["norm_scales"]
    wanted = 0.5 ** (1 - beta) * 0.01**beta
    np.testing.assert_allclose((loss - bare) / penalty, wanted, rtol=1e-3)


def test_vectors_are_handed_on_in_training_only():
    _, aux = outcome()
    before = jax.device_get(variables()[1]["spectral"]["left"])
    after = aux.state["spectral"]["left"]
    assert before.keys() == after.keys()
    moved = [float(np.abs(before[n] - after[n]).max()) for n in before]
    assert 0.0 < max(moved) < 0.5
    loss = losses.build("hierarchical_elbo", model=MODEL, train=False)
    _, evaluated = jax.jit(loss)(*variables(), KEY, {"image": X}, {})
    for name in before:
        left = evaluated.state["spectral"]["left"]
        np.testing.assert_array_equal(left[name], before[name])


def test_rows_of_padding_do_not_count():
    bad, other = X.copy(), X.copy()
    bad[2:], other[2:] = np.nan, 7.0
    batches = ({"image": x, "mask": np.arange(4) < 2} for x in (bad, other))
    found, wanted = (outcome(batch=batch, beta=0.5)[0] for batch in batches)
    assert np.isfinite(found) and found == wanted


def test_other_models_are_refused():
    mlp = models.build("mlp", image_shape=(4, 4, 1), latent_dim=2)
    with pytest.raises(ConfigError, match="hierarchical_elbo.* needs a model with"):
        losses.build("hierarchical_elbo", model=mlp)
    with pytest.raises(ConfigError, match="smoothness_start must be None or positive"):
        losses.build("hierarchical_elbo", model=MODEL, smoothness_start=0.0)
    with pytest.raises(ConfigError, match="must hold the collection 'spectral'"):
        loss = losses.build("hierarchical_elbo", model=MODEL)
        jax.eval_shape(loss, variables()[0], {}, KEY, {"image": X}, {})
