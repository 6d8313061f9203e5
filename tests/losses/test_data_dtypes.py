"""Data that no likelihood is defined on are refused while tracing, by their dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import losses, models
from jvae.distributions import Bernoulli, Categorical, Gaussian, data_log_prob
from jvae.errors import DataError
from jvae.models import likelihoods
from tests.losses.test_everywhere import build, example, kind_of
from tests.models.test_likelihoods import ALL

B, SHAPE = 3, (2, 2, 1)


def shape_of_loss(likelihood, image):
    """Traces the ELBO of a VAE with this likelihood at images."""
    fields = {"image_shape": SHAPE, "latent_dim": 2, "hidden": (3,)}
    model, key = models.build("mlp", likelihood=likelihood, **fields), jax.random.key(0)
    batch = {"image": image}

    def value(key):
        made = {"image": image.astype("float32")}
        variables = model.init(key, made, key)
        return losses.build("elbo", model)(variables["params"], {}, key, batch, {})[0]

    return jax.eval_shape(value, key).shape


@pytest.mark.parametrize("dtype", ["float32", "bool", "uint8", "int32"])
@pytest.mark.parametrize("likelihood", ALL, ids=str)
def test_each_likelihood_takes_the_dtypes_of_its_support(likelihood, dtype):
    of_levels = likelihoods.build(likelihood) == likelihoods.categorical(3)
    takes = ("bool", "uint8", "int32") if of_levels else ("float32",)
    takes = ("float32", "bool") if likelihood == "bernoulli" else takes
    image = np.ones((B, *SHAPE), dtype)
    if dtype in takes:
        assert shape_of_loss(likelihood, image) == ()
        return
    fix = "integers 0, 1" if of_levels else "Scale pixels, such as by 1/255"
    text = rf"^(data|images) must be .*, got {dtype}\. .*{fix}"
    with pytest.raises(DataError, match=text):
        shape_of_loss(likelihood, image)


@pytest.mark.parametrize("name", [n for n in losses.LOSSES if n != "bottleneck"])
def test_every_objective_refuses_pixels_that_were_not_scaled(name):
    _, params, state, batch = example(kind_of(name))
    pixels = {**batch, "image": batch["image"].astype("uint8")}
    key = jax.random.key(0)
    with pytest.raises(DataError, match="got uint8. Scale pixels"):
        jax.eval_shape(build(name, kind_of(name)), params, state, key, pixels, {})


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mlp", {"hidden": (3,)}),
        ("mlp_classifier", {"hidden": (3,)}),
        ("fvae", {"levels": 1, "blocks": 1, "depth": 1, "flow_levels": 1}),
        ("infomax", {"channels": (3,)}),
        ("nvae", {"channels": 2, "groups": (1,), "latent_channels": 1}),
    ],
)
def test_every_encoder_refuses_pixels_that_were_not_scaled(name, sizes):
    fields = {"image_shape": (4, 4, 1), **sizes}
    if name != "nvae" and name != "fvae":
        fields["latent_dim"] = 2
    model, key = models.build(name, **fields), jax.random.key(0)
    batch = {"image": np.ones((B, 4, 4, 1), "uint8"), "label": np.zeros(B, int)}
    with pytest.raises(DataError, match="got uint8. Scale pixels"):
        jax.eval_shape(lambda key: model.init(key, batch, key), key)


def test_labels_that_are_no_integers_are_refused():
    _, params, state, batch = example("classifier")
    real = {**batch, "label": batch["label"].astype("float32")}
    key = jax.random.key(0)
    with pytest.raises(DataError, match="be integer or bool for Categorical, got floa"):
        jax.eval_shape(build("bottleneck", "classifier"), params, state, key, real, {})


def test_a_distribution_of_another_class_takes_what_it_takes():
    class Foreign:
        def log_prob(self, x):
            return x.sum(-1)

    np.testing.assert_array_equal(data_log_prob(Foreign(), np.ones((2, 3), int)), 3)


@pytest.mark.parametrize("p", [Bernoulli, Categorical])
def test_what_is_taken_is_scored_as_log_prob_does(p):
    logits = jnp.arange(4.0).reshape(2, 2)
    x = np.array([[True, False], [True, True]])
    x = x[:, 0] if p is Categorical else x
    np.testing.assert_array_equal(data_log_prob(p(logits), x), p(logits).log_prob(x))
    with pytest.raises(DataError):
        data_log_prob(Gaussian(logits, logits), np.ones((2, 2), bool))
