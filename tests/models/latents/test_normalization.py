"""What keeps the KL up: moments over a batch, floors at any weights, running values."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import losses, models
from jvae.distributions import DiagGaussian
from jvae.errors import ConfigError
from jvae.models.latents.normalization import KlFloor, LogMeanNorm, MeanNorm, MomentNorm

KEY = jax.random.key(0)
B, D = 64, 32


def outputs(scale=1.0, rows=B, shift=0.0):
    draws = np.random.default_rng(0).standard_normal((rows, 2 * D))
    return (scale * draws + shift).astype("float32")


@functools.cache
def in_training(module):
    @jax.jit
    def call(x, mask, changed):
        variables = dict(module.init(KEY, x))
        params = {**variables.pop("params", {}), **changed}
        mutable = list(variables)
        return module.apply({"params": params, **variables}, x, mask, mutable=mutable)

    return call


def through(module, x, mask=None, **changed):
    """Returns (q, updated state) in training mode, with the parameters `changed`."""
    out, state = in_training(module)(x, mask, changed)
    return DiagGaussian(*np.split(np.asarray(out), 2, axis=-1)), state


@jax.jit
def kl_per_dim(q):
    return q.kl_per_dim(DiagGaussian.standard(*q.mean.shape))


def kl(q):
    return np.asarray(kl_per_dim(q), np.float64)


@functools.cache
def slope(module):
    return jax.jit(jax.grad(lambda x: module.apply({}, x).sum()))


@pytest.mark.parametrize(
    ("gamma", "floor"), [(0.3, 1.44), (0.4, 2.56), (0.5, 4.0), (0.6, 5.76), (0.7, 7.84)]
)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_normalized_means_put_a_floor_under_the_kl(gamma, floor, scale):
    """L36 and T5, however small or large the encoder's numbers are."""
    x = outputs(scale, shift=scale)
    q, _ = through(MeanNorm(gamma), x)
    np.testing.assert_allclose(q.mean.mean(0), 0.0, atol=1e-5)
    variance = x[:, :D].astype(np.float64).var(0)
    share = variance / (variance + 1e-8)  # 0.99 of the smallest scale's
    np.testing.assert_allclose(q.mean.std(0), gamma * np.sqrt(share), rtol=1e-3)
    assert floor == pytest.approx(D * gamma**2 / 2)
    least = floor * share.min() * 0.999
    assert kl(q).mean(0).sum() >= (0.5 * np.square(q.mean)).mean(0).sum() >= least


def test_a_shift_adds_its_square_to_the_floor():
    shift = np.linspace(-1, 1, D).astype("float32")
    x = outputs()
    x[:, D:] = 0.0  # a variance of 1 costs nothing
    q, _ = through(MeanNorm(0.5), x, shift=shift)
    np.testing.assert_allclose(q.mean.mean(0), shift, atol=1e-5)
    wanted = D * 0.25 / 2 + np.square(shift).sum() / 2
    assert kl(q).mean(0).sum() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("variance", ["signed", "positive"])
@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("theta", [-3.0, 0.0, 2.0])
def test_means_and_variances_together_have_the_moments_of_the_prior(
    variance, tau, theta
):
    """T6: squares sum to 1; KL a dimension >= -log(1 - tau) / 2."""
    thetas = np.full(D, theta, "float32")
    q, _ = through(MomentNorm(tau, variance), outputs(2.0), theta=thetas)
    variances = np.exp(q.log_var)
    of_means = tau + (1 - tau) / (1 + math.exp(-theta))
    np.testing.assert_allclose(q.mean.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.square(q.mean).mean(0), of_means, rtol=1e-4)
    np.testing.assert_allclose(variances.mean(0), 1 - of_means, rtol=1e-4, atol=2e-6)
    # so the KL is that of the logarithms alone
    found, logs = kl(q).mean(0), -0.5 * q.log_var.mean(0)
    np.testing.assert_allclose(found, logs, rtol=1e-3, atol=1e-4)
    assert (found >= -0.5 * math.log(1 - of_means) - 1e-4).all()
    assert (found >= -0.5 * math.log(1 - tau)).all()


def test_a_signed_spread_of_gaussian_numbers_has_the_known_kl():
    """0.3466 + 0.635 + log(2) / 2 = 1.32 nats a dimension at tau 0.5 and theta 0."""
    q, _ = through(MomentNorm(0.5, "signed"), outputs(rows=20_000))
    assert kl(q).mean() == pytest.approx(
        -0.5 * math.log(0.25) + 0.5 * (math.log(2) + np.euler_gamma), abs=0.01
    )
    assert kl(q).mean() == pytest.approx(1.328, abs=0.01)


@pytest.mark.parametrize("variance", ["signed", "positive"])
def test_a_spread_that_crosses_zero_has_finite_gradients(variance):
    x = outputs()
    x[0, D:] = x[:, D:].mean(0)  # normalised: 0
    module = MomentNorm(0.5, variance)
    variables = jax.jit(module.init)(KEY, x)

    def total(x):
        out, _ = module.apply(variables, x, mutable=["batch_stats"])
        mean, log_var = jnp.split(out, 2, axis=-1)
        return kl_sum(mean, log_var)

    def kl_sum(mean, log_var):
        q = DiagGaussian(mean, log_var)
        return q.kl_to(DiagGaussian.standard(*mean.shape)).sum()

    gradient = jax.jit(jax.grad(total))(x)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("delta", [0.05, 0.15, 1.0])
@pytest.mark.parametrize("scale", [1e-6, 0.5, 3.0])
def test_a_floor_holds_for_every_row_and_dimension(delta, scale):
    q, _ = through(KlFloor(delta), outputs(scale))
    assert (kl(q) >= delta * (1 - 1e-4)).all()
    x = outputs(scale)
    np.testing.assert_array_equal(np.sign(q.mean), np.sign(x[:, :D]))
    free = kl(DiagGaussian(x[:, :D], x[:, D:]))
    far = np.exp(x[:, D:]) - 1 - x[:, D:] > 2 * delta + 1e-3
    np.testing.assert_allclose(kl(q)[far], free[far], rtol=1e-3, atol=1e-5)
    gradient = slope(KlFloor(delta))(np.zeros((2, 4), "float32"))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "module",
    [
        pytest.param(MeanNorm(0.6), marks=pytest.mark.slow),
        MomentNorm(0.5, "signed"),
        pytest.param(MomentNorm(0.5, "positive"), marks=pytest.mark.slow),
    ],
    ids=["mean", "signed", "positive"],
)
def test_rows_of_padding_change_nothing_and_running_values_reach_those_of_the_batch(
    module,
):
    x = outputs(2.0, shift=1.0)
    alone, state = through(module, x)
    padded = np.concatenate([x, np.full((3, 2 * D), 1e6, "float32")])
    mask = np.arange(B + 3) < B
    both, padded_state = through(module, padded, mask)
    np.testing.assert_allclose(both.mean[:B], alone.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both.log_var[:B], alone.log_var, rtol=1e-3, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), state, padded_state
    )
    # nothing but padding is nothing to remember
    _, after = through(module, padded, np.zeros(B + 3, bool))
    start = jax.jit(module.init)(KEY, x)
    jax.tree.map(np.testing.assert_array_equal, after, {k: start[k] for k in after})
    variables = dict(start)
    update = jax.jit(functools.partial(module.apply, mutable=["batch_stats"]))
    for _ in range(1500):
        _, state = update(variables, x)
        variables |= state
    out = np.asarray(jax.jit(module.apply)(variables, x))
    mean, log_var = np.split(out, 2, axis=-1)
    np.testing.assert_allclose(mean, alone.mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(log_var, alone.log_var, rtol=1e-2, atol=1e-3)


def test_a_positive_spread_has_the_mean_one():
    x = outputs(3.0)
    module = LogMeanNorm()
    y, variables = jax.jit(module.init_with_output)(KEY, x)
    assert y.shape == x.shape
    update = jax.jit(functools.partial(module.apply, mutable=["batch_stats"]))
    y = np.asarray(update(variables, x)[0])
    np.testing.assert_allclose(np.exp(y).mean(0), 1.0, rtol=1e-4)


MLP = {"name": "mlp", "image_shape": (2, 2, 1), "latent_dim": 4, "hidden": (6,)}
IMAGES = {"image": np.random.default_rng(0).integers(0, 2, (16, 2, 2, 1)) * 1.0}
KINDS = {
    "normalized_gaussian": ({"gamma": 0.8}, 4 * 0.64 / 2),
    "moment_gaussian": ({"tau": 0.4}, -4 * math.log(0.6) / 2),
    "delta_gaussian": ({"delta": 0.3}, 4 * 0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_any_vae_takes_them_and_its_kl_stays_up_from_the_first_step_to_the_last(name):
    """With beta 20, under which a plain VAE's KL is gone after these 60 steps."""
    fields, floor = KINDS[name]

    def trained(latent):
        model = models.build(**MLP, latent=latent)
        loss = losses.build("elbo", model, beta=20.0)
        state = dict(model.init(KEY, IMAGES, KEY))
        params, found = state.pop("params"), []

        @jax.jit
        def step(params, state, key):
            grads, aux = jax.grad(loss, has_aux=True)(params, state, key, IMAGES, {})
            params = jax.tree.map(lambda p, g: p - 0.02 * g, params, grads)
            return params, aux.state, aux.metrics["kl"]

        for i in range(60):
            key = jax.random.fold_in(KEY, i)
            params, state, value = step(params, state, key)
            found.append(float(value))
        return found

    assert min(trained({"name": name, **fields})) >= floor * 0.999
    assert trained("gaussian")[-1] < 0.1


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        ({"name": "normalized_gaussian", "gamma": 0.0}, "gamma must be positive"),
        ({"name": "moment_gaussian", "tau": 1.0}, "be within (0, 1), got 1.0"),
        (
            {"name": "moment_gaussian", "variance": "no"},
            "must be 'signed' | 'positive'",
        ),
        ({"name": "delta_gaussian", "delta": -1.0}, "delta must be positive"),
    ],
)
def test_impossible_values_are_refused(latent, message):
    with pytest.raises(ConfigError) as error:
        models.build(**MLP, latent=latent)
    assert message in str(error.value)
