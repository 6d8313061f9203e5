"""A classifier with a rate: what it is worth where that is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jvae import losses, models
from jvae.distributions import Bernoulli, DiagGaussian
from jvae.errors import ConfigError
from tests.losses.classifier import Classifier

KEY = jax.random.key(0)
B, K = 24, 10
LABEL = np.arange(B, dtype="int32") % K
BATCH = {
    "image": np.random.default_rng(0).normal(size=(B, 3)).astype("float32"),
    "label": LABEL,
}


TOY = Classifier(num_classes=K)


class OfPixels(Classifier):
    target = "image"


class OfBits(Classifier):
    def likelihood(self, z, batch):
        return Bernoulli(self.decoder(z))


def parameters(encoder=1.0, decoder=1.0):
    shapes = jax.eval_shape(TOY.init, KEY, BATCH, KEY)["params"]
    draws = np.random.default_rng(4)
    params = jax.tree.map(lambda a: draws.normal(size=a.shape), shapes)
    scales = {"encoder": encoder, "decoder": decoder}
    return {
        name: jax.tree.map(lambda a, s=scale: (s * a).astype("float32"), params[name])
        for name, scale in scales.items()
    }


def value(params, **coefficients):
    loss = jax.jit(losses.build("bottleneck", TOY))
    return jax.device_get(loss(params, {}, KEY, BATCH, coefficients))


def by_hand(params):
    """Returns (log p(y|z), log q(z|x) - log p(z)) [B] at the same draws, from SciPy."""
    each = jax.random.split(KEY, B)
    head = BATCH["image"] @ params["encoder"]["kernel"] + params["encoder"]["bias"]
    mean, log_var = np.split(head, 2, axis=-1)
    z = np.asarray(DiagGaussian(mean, log_var).sample(each), np.float64)
    logits = z @ params["decoder"]["kernel"] + params["decoder"]["bias"]
    log_p = scipy.special.log_softmax(logits, axis=-1)[np.arange(B), LABEL]
    log_q = scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * log_var))
    return log_p, (log_q - scipy.stats.norm.logpdf(z)).sum(-1), logits


def test_zero_logits_of_ten_classes_cost_log_ten():
    loss, aux = value(parameters(decoder=0.0), beta=0.0)
    assert loss == pytest.approx(2.302585093, abs=1e-6)
    assert aux.metrics["cross_entropy_bits"] == pytest.approx(3.321928095, abs=1e-6)


def test_codes_that_are_the_prior_have_no_rate():
    loss, aux = value(parameters(encoder=0.0), beta=7.0)
    assert aux.metrics["kl"] == 0.0 and aux.metrics["kl_bits"] == 0.0
    assert loss == pytest.approx(-aux.metrics["log_likelihood"], rel=1e-6)


def test_without_a_rate_it_is_the_cross_entropy_of_the_draw():
    params = parameters()
    log_p, _, logits = by_hand(params)
    loss, aux = value(params, beta=0.0)
    assert loss == pytest.approx(-log_p.mean(), rel=1e-5)
    accuracy = (logits.argmax(-1) == LABEL).mean()
    assert 0 < accuracy < 1 and aux.metrics["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_the_rate_is_the_closed_form_and_beta_its_weight(beta):
    """A VAE is the case y = x: the value is the ELBO's for the same model."""
    params = parameters()
    loss, aux = value(params, beta=beta)
    log_p, _, _ = by_hand(params)
    head = BATCH["image"] @ params["encoder"]["kernel"] + params["encoder"]["bias"]
    mean, log_var = np.split(head.astype(np.float64), 2, axis=-1)
    rate = 0.5 * (mean**2 + np.exp(log_var) - log_var - 1).sum(-1).mean()
    assert aux.metrics["kl"] == pytest.approx(rate, rel=1e-5)
    assert aux.metrics["kl_bits"] == pytest.approx(rate / math.log(2), rel=1e-5)
    assert loss == pytest.approx(beta * rate - log_p.mean(), rel=1e-5)
    elbo = jax.jit(losses.build("elbo", TOY, beta=beta))
    assert loss == pytest.approx(float(elbo(params, {}, KEY, BATCH, {})[0]), rel=1e-6)


@pytest.mark.parametrize("capacity", [0.5, 2.0, 1e6])
def test_what_a_draw_has_below_the_capacity_is_free(capacity):
    params = parameters()
    log_p, log_ratio, _ = by_hand(params)
    loss, _ = value(params, beta=2.0, capacity=capacity)
    wanted = 2.0 * np.maximum(log_ratio - capacity, 0.0).mean() - log_p.mean()
    assert loss == pytest.approx(wanted, rel=1e-5)
    if capacity == 2.0:
        assert 0 < (log_ratio > capacity).mean() < 1


def test_the_rate_bounds_what_the_codes_keep_of_the_examples():
    """KL >= I(x; z), as a mean over draws: their difference is KL(q(z) || p(z))."""
    params = parameters()
    head = BATCH["image"] @ params["encoder"]["kernel"] + params["encoder"]["bias"]
    q = DiagGaussian(*jnp.split(jnp.asarray(head), 2, axis=-1))
    keys = jax.random.split(KEY, 500)
    kept = jax.jit(jax.vmap(lambda k: losses.decompose_kl(q, q.sample(k))))(keys)
    _, aux = value(params)
    assert 0.1 < kept["mutual_info"].mean() < aux.metrics["kl"]


def test_what_is_known_of_the_label_is_at_most_its_entropy():
    label = np.array([0, 0, 0, 1, 1, 2], "int32")
    shares = np.array([3, 2, 1]) / 6
    entropy = scipy.stats.entropy(shares)
    for log_p, wanted in (
        (np.zeros(6), entropy),  # certain and right
        (np.log(shares)[label], 0.0),  # knows how often each comes
        (np.full(6, -math.log(4)), entropy - math.log(4)),  # knows less than that
    ):
        found = losses.label_information(log_p.astype("float32"), label, 4)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            OfPixels(num_classes=K),
            "needs a model whose target is 'label', that of OfPixels is 'im",
        ),
        (models.build("mlp"), "needs a model whose target is 'label', that of VAE"),
    ],
    ids=["toy", "vae"],
)
def test_a_model_that_does_not_score_labels_is_refused_when_built(model, message):
    with pytest.raises(ConfigError) as error:
        losses.build("bottleneck", model)
    assert message in str(error.value)


def test_missing_labels_and_other_likelihoods_are_refused_while_tracing():
    params = parameters()
    with pytest.raises(ConfigError, match="label is missing for loss 'bottleneck'"):
        images = {"image": BATCH["image"]}
        losses.build("bottleneck", TOY)(params, {}, KEY, images, {})
    with pytest.raises(ConfigError, match="is a Categorical over labels, got Bern"):
        losses.build("bottleneck", OfBits(num_classes=K))(params, {}, KEY, BATCH, {})
