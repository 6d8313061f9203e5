"""The importance-weighted bound on a linear-Gaussian model that can be integrated."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from flax import linen as nn

from jvae import keys, losses, models
from jvae.distributions import DiagGaussian, Gaussian
from jvae.errors import ConfigError
from jvae.layers import BatchNorm
from jvae.losses import iwae

KEY = jax.random.key(0)


class LinearGaussian(models.SingleLatent, nn.Module):
    """z ~ N(prior mean, 1), x ~ N(W z, I), q(z|x) = N(A x, var)."""

    target = "image"

    def setup(self):
        self.encoder = nn.Dense(1, use_bias=False)
        self.log_var = self.param("log_var", nn.initializers.zeros, (1, 1))
        self.prior_mean = self.param("prior_mean", nn.initializers.zeros, (1, 1))
        self.decoder = nn.Dense(2, use_bias=False)

    def posterior(self, batch):
        mean = self.encoder(batch["image"])
        return DiagGaussian(mean, jnp.broadcast_to(self.log_var, mean.shape))

    def prior(self, batch):
        mean = jnp.broadcast_to(self.prior_mean, (len(batch["image"]), 1))
        return DiagGaussian(mean, jnp.zeros_like(mean))

    def likelihood(self, z, batch):
        return Gaussian(self.decoder(z), jnp.zeros((1, 1)))


W = np.array([[1.0, 2.0]], "float32")
MARGINAL = scipy.stats.multivariate_normal([0, 0], np.eye(2) + W.T @ W)


def params(encoder, var):
    return {
        "encoder": {"kernel": np.array(encoder, "float32").reshape(2, 1)},
        "log_var": np.full((1, 1), math.log(var), "float32"),
        "prior_mean": np.zeros((1, 1), "float32"),
        "decoder": {"kernel": W},
    }


# p(z|x) = N(W x / (1 + |W|^2), 1 / (1 + |W|^2)) with |W|^2 = 5.
EXACT, PRIOR, ROUGH = (
    params([1 / 6, 2 / 6], 1 / 6),
    params([0, 0], 1),
    params([0.0, 0.1], 0.4),
)


def repeated(n, x=(1.0, 1.0)):
    return {"image": np.tile(np.array(x, "float32"), (n, 1))}


@functools.partial(jax.jit, static_argnums=3)
def log_weights(params, key, batch, num_samples):
    arguments = (params, {}, key, batch)
    options = {"model": LinearGaussian(), "num_samples": num_samples}
    return iwae.log_weights(*arguments, **options)[0]


def bounds(params, num_samples, repeats, key=KEY):
    """Returns `repeats` independent draws of L_K at x = (1, 1)."""
    log_w = log_weights(params, key, repeated(repeats), num_samples)
    return np.asarray(jax.jit(iwae.iwae_terms)(log_w))


def test_the_marginal_of_the_model_is_the_one_of_algebra():
    np.testing.assert_allclose(MARGINAL.logpdf([1, 1]), -2.983756801, rtol=1e-8)


@pytest.mark.parametrize("num_samples", [1, 5, 50])
def test_with_the_exact_posterior_every_weight_is_the_likelihood(num_samples):
    x = np.random.default_rng(0).standard_normal((256, 2)).astype("float32")
    log_w = log_weights(EXACT, KEY, {"image": x}, num_samples)
    assert log_w.shape == (num_samples, 256)
    wanted = np.broadcast_to(MARGINAL.logpdf(x), log_w.shape)
    np.testing.assert_allclose(log_w, wanted, atol=2e-5)
    assert np.std(log_weights(EXACT, KEY, repeated(256), num_samples)) < 1e-5


def test_with_the_prior_as_posterior_elbo_and_bound_are_those_of_algebra():
    """5,000 draws in 8 repeats: the ELBO is their mean, within 4 standard errors."""
    log_w = np.asarray(log_weights(PRIOR, KEY, repeated(8), 5000))
    error = abs(log_w.mean() + 5.337877066)
    assert error < 4 * log_w.std() / math.sqrt(log_w.size)
    found = jax.jit(iwae.iwae_terms)(log_w).mean()
    np.testing.assert_allclose(found, -2.983756801, atol=0.05)


def test_the_bound_rises_with_the_samples_up_to_the_marginal():
    """Means of 256 draws, with 2 standard errors of slack."""
    one, five, fifty = (bounds(PRIOR, k, 256) for k in (1, 5, 50))
    for lower, upper in ((one, five), (five, fifty)):
        slack = 2 * math.hypot(lower.std(), upper.std()) / 16
        assert lower.mean() <= upper.mean() + slack
    assert fifty.mean() <= -2.983756801 + 2 * fifty.std() / 16
    assert five.mean() - one.mean() > 1.0  # not all the same either


def test_one_sample_is_the_elbo_with_a_monte_carlo_kl():
    batch = repeated(7, (0.3, -1.0))
    found, sampled = (
        jax.jit(jax.value_and_grad(loss, has_aux=True))(ROUGH, {}, KEY, batch, {})
        for loss in (
            losses.build("iwae", LinearGaussian(), num_samples=1),
            losses.build("elbo", LinearGaussian(), kl_estimate="monte_carlo"),
        )
    )
    np.testing.assert_allclose(found[0][0], sampled[0][0], rtol=1e-6)
    np.testing.assert_allclose(
        found[0][1].metrics["elbo"], sampled[0][1].metrics["elbo"], rtol=1e-6
    )
    for f, s in zip(
        jax.tree.leaves(found[1]), jax.tree.leaves(sampled[1]), strict=True
    ):
        np.testing.assert_allclose(f, s, rtol=1e-5, atol=1e-6)


def test_weights_depend_neither_on_the_chunk_nor_on_the_batch_of_a_draw():
    """Exactly n = 20 draws are used; draw k of an example has key k of its split."""
    x = np.random.default_rng(0).standard_normal((6, 2)).astype("float32")
    each = keys.per_example(KEY, 6)
    whole = np.asarray(log_weights(ROUGH, each, {"image": x}, 20))
    assert whole.shape == (20, 6)
    assert len(np.unique(whole)) == 120
    draws = keys.split_each(each, 20)
    one = jax.jit(jax.vmap(lambda k: log_weights(ROUGH, k, {"image": x}, 1)[0]))
    parts = [one(draws[i : i + 5]) for i in range(0, 20, 5)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-6)
    part = log_weights(ROUGH, each[2:5], {"image": x[2:5]}, 20)
    np.testing.assert_allclose(part, whole[:, 2:5], rtol=1e-6)


def test_the_bound_is_the_log_of_the_mean_weight():
    log_w = np.random.default_rng(0).standard_normal((9, 4)).astype("float32") * 100
    expected = scipy.special.logsumexp(log_w, axis=0) - math.log(9)
    np.testing.assert_allclose(jax.jit(iwae.iwae_terms)(log_w), expected, rtol=1e-6)


def test_loss_and_metrics_are_means_over_the_true_examples():
    loss = jax.jit(losses.build("iwae", LinearGaussian(), num_samples=5))
    batch = repeated(256) | {"mask": np.arange(256) % 3 == 0}
    found, aux = loss(ROUGH, {}, KEY, batch, {})
    log_w = np.asarray(log_weights(ROUGH, KEY, repeated(256), 5))[:, batch["mask"]]
    nll = -(scipy.special.logsumexp(log_w, axis=0) - math.log(5)).mean()
    np.testing.assert_allclose(found, nll, rtol=1e-6)
    np.testing.assert_allclose(aux.metrics["iwae"], -nll, rtol=1e-6)
    np.testing.assert_allclose(aux.metrics["elbo"], log_w.mean(), rtol=1e-6)


class Normalized(LinearGaussian):
    """The same with a BatchNorm in the decoder, whose statistics follow the draws."""

    def setup(self):
        super().setup()
        self.normalise = BatchNorm()

    def likelihood(self, z, batch):
        return super().likelihood(self.normalise(z), batch)


@pytest.mark.parametrize("gradient", ["reparameterized", "doubly_reparameterized"])
def test_the_updated_state_is_the_mean_over_the_draws(gradient):
    stats = {"mean": np.zeros(1, "float32"), "var": np.ones(1, "float32")}
    scale = {"scale": np.ones(1, "float32"), "bias": np.zeros(1, "float32")}
    params = ROUGH | {"normalise": {"BatchNorm_0": scale}}
    state = {"batch_stats": {"normalise": {"BatchNorm_0": stats}}}
    each = keys.per_example(KEY, 16)

    def updated(key, **options):
        loss = losses.build("iwae", Normalized(), gradient=gradient, **options)
        return loss(params, state, key, repeated(16), {})[1].state

    together = jax.jit(functools.partial(updated, num_samples=3))(each)
    alone = jax.jit(jax.vmap(functools.partial(updated, num_samples=1)))
    apart = alone(keys.split_each(each, 3))
    for f, w in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        assert np.ptp(w) > 1e-4
        np.testing.assert_allclose(f, w.mean(0), rtol=1e-5)


@functools.cache
def compiled(gradient):
    loss = losses.build("iwae", LinearGaussian(), num_samples=3, gradient=gradient)
    run = jax.value_and_grad(loss, has_aux=True)
    return jax.jit(jax.vmap(lambda p, key: run(p, {}, key, repeated(1), {}), (None, 0)))


def both_gradients(params):
    """Returns (loss, gradient) of either kind for 4,000 draws at x = (1, 1)."""
    for gradient in ("reparameterized", "doubly_reparameterized"):
        run = compiled(gradient)
        (value, _), found = jax.device_get(run(params, jax.random.split(KEY, 4000)))
        yield value, found


def test_both_gradients_have_one_value_and_one_gradient_of_decoder_and_prior():
    (value, plain), (again, doubly) = both_gradients(ROUGH)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    for found, wanted in (
        (doubly["decoder"]["kernel"], plain["decoder"]["kernel"]),
        (doubly["prior_mean"], plain["prior_mean"]),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_both_gradients_of_the_encoder_agree_on_average_one_with_less_noise():
    """4,000 draws, within 4 standard errors of the difference."""
    (_, plain), (_, doubly) = both_gradients(ROUGH)
    for f, w in (
        (doubly["encoder"]["kernel"], plain["encoder"]["kernel"]),
        (doubly["log_var"], plain["log_var"]),
    ):
        difference = f - w
        error = difference.std(0) / math.sqrt(len(f))
        assert np.all(np.abs(difference.mean(0)) < 4 * error)
        assert np.all(np.abs(w.mean(0)) > 4 * error)  # they are not both zero
        assert np.all(f.var(0) < 0.5 * w.var(0))


def test_at_the_exact_posterior_the_doubly_reparameterized_gradient_has_no_noise():
    (_, plain), (_, doubly) = both_gradients(EXACT)
    for part in ("encoder", "log_var"):
        for leaf in jax.tree.leaves(doubly[part]):
            np.testing.assert_allclose(leaf, np.zeros_like(leaf), atol=1e-5)
        assert all(np.std(leaf) > 0.05 for leaf in jax.tree.leaves(plain[part]))


def test_the_doubly_reparameterized_gradient_needs_a_posterior_and_a_prior():
    class OwnInfer(nn.Module):
        target = "image"

        @nn.compact
        def infer(self, batch, key):
            x = batch["image"]
            return models.vae.Inference(x, x, x.sum(-1))

        def likelihood(self, latents, batch):
            return Gaussian(latents, jnp.zeros((1, 1)))

    with pytest.raises(
        ConfigError, match="needs a model with posterior and prior, got OwnInfer"
    ):
        losses.build("iwae", OwnInfer(), gradient="doubly_reparameterized")


def test_the_doubly_reparameterized_gradient_needs_a_density_at_any_point():
    class AtItsDraws:
        def sample_and_log_prob(self, key):
            return jnp.zeros((2, 1)), jnp.zeros(2)

    class Flow(LinearGaussian):
        def posterior(self, batch):
            return AtItsDraws()

    loss = losses.build("iwae", Flow(), gradient="doubly_reparameterized")
    with pytest.raises(ConfigError, match="a posterior with log_prob, got AtItsDraws"):
        jax.eval_shape(loss, ROUGH, {}, KEY, repeated(2), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "loss.num_samples must be at least 1, got 0."),
        ({"gradient": "dreg"}, "loss.gradient must be "),
    ],
    ids=str,
)
def test_impossible_options_are_refused_before_tracing(options, message):
    with pytest.raises(ConfigError) as error:
        losses.build("iwae", LinearGaussian(), **options)
    assert message in str(error.value)
    with pytest.raises(ConfigError) as error:
        iwae.negative_iwae({}, {}, KEY, {}, {}, model=LinearGaussian(), **options)
    assert message in str(error.value)
