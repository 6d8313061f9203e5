"""Models from the fields of a config, and the fields that are refused."""

import sys
import types

import jax
import numpy as np
import pytest
from flax import linen as nn

from jvae import models
from jvae.errors import ConfigError

KEY = jax.random.key(0)
MLP = {"name": "mlp", "image_shape": (4, 4, 1), "latent_dim": 3, "hidden": (5,)}
CONV = {"name": "conv", "image_shape": (4, 4, 1), "latent_dim": 3, "channels": (2, 3)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "mpl"}, "model.name 'mpl' is unknown. Did you mean 'mlp'?"),
        (
            {"name": "mlp", "latent_dims": 2},
            "model.latent_dims is unknown. Did you mean",
        ),
        ({**MLP, "latent_dim": 0}, "model.latent_dim must be at least 1, got 0."),
        ({**MLP, "latent_dim": 2.0}, "model.latent_dim must be int >= 1, got 2.0."),
        ({**MLP, "image_shape": (28, 28)}, "be height, width and channels"),
        ({**MLP, "image_shape": (28, 0, 1)}, "hold numbers that are at least 1"),
        (
            {**MLP, "hidden": (4, 0)},
            "model.hidden must hold numbers that are at least 1",
        ),
        ({**MLP, "num_classes": 0}, "model.num_classes must be None or at least 1"),
        ({**MLP, "activation": "sin"}, "model.activation must be '"),
        (
            {**MLP, "dtype": "float16"},
            "model.dtype must be 'float32' | 'bfloat16', got 'float16'",
        ),
        ({**CONV, "channels": ()}, "model.channels must be at least one width"),
        ({**CONV, "kernel_size": 0}, "model.kernel_size must be at least 1"),
        ({**CONV, "channels": (2, 2, 2)}, "(4, 4, 1) cannot be halved 3 times"),
        ({**CONV, "image_shape": (4, 6, 1)}, "(4, 6, 1) cannot be halved 2 times"),
        (
            {**CONV, "decoder_channels": (2, 2, 2)},
            "model.decoder_channels must have 1 or 2 entries, got 3.",
        ),
    ],
    ids=str,
)
def test_an_impossible_model_is_refused_when_it_is_built(fields, message):
    with pytest.raises(ConfigError) as error:
        models.build(**fields)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "extra",
    [
        {"decoder_channels": (3,)},
        {"pooling": "mean", "hidden": (5,), "decoder_hidden": (4, 5)},
        {"kernel_size": 4, "start_activation": False, "decoder_activation": "elu"},
        {"image_shape": (8, 4, 3), "likelihood": "discretized_logistic_mixture"},
    ],
    ids=str,
)
def test_every_form_of_the_convolutional_model_returns_to_the_image_shape(extra):
    fields = {**CONV, **extra}
    model, batch = (
        models.build(**fields),
        {"image": np.zeros((2, *fields["image_shape"]))},
    )
    variables = jax.eval_shape(model.init, KEY, batch, KEY)
    z = np.zeros((2, 3))
    picture = jax.eval_shape(lambda v: model.apply(v, z, method="decode"), variables)
    assert picture.shape == (2, *fields["image_shape"])


@pytest.mark.parametrize(
    ("fields", "encoder", "decoder"),
    [
        ({**MLP, "hidden": (5, 4)}, [(16, 5), (5, 4)], [(3, 4), (4, 5), (5, 16)]),
        (
            CONV,
            [(3, 3, 1, 2), (3, 3, 2, 3)],
            [(3, 3), (3, 3, 3, 3), (3, 3, 3, 2), (3, 3, 2, 1)],
        ),
    ],
    ids=["mlp", "conv"],
)
def test_the_decoder_has_the_widths_of_the_encoder_reversed(fields, encoder, decoder):
    model, batch = models.build(**fields), {"image": np.zeros((2, 4, 4, 1))}
    params = jax.eval_shape(model.init, KEY, batch, KEY)["params"]

    def kernels(part):
        leaves = jax.tree_util.tree_leaves_with_path(params[part])
        return [a.shape for path, a in leaves if "kernel" in str(path[-1])]

    assert sorted(kernels("encoder")) == sorted(encoder)
    assert sorted(kernels("decoder")) == sorted(decoder)


def test_the_decoder_may_have_an_activation_of_its_own():
    model = models.build(**CONV, activation="relu")
    assert (model.encoder.activation, model.decoder.activation) == ("relu", "relu")
    model = models.build(**CONV, activation="relu", decoder_activation="elu")
    assert (model.encoder.activation, model.decoder.activation) == ("relu", "elu")


class OwnModel(nn.Module):
    """A model of a user."""

    width: int = 3


def test_a_model_of_ones_own_is_built_from_its_import_path(monkeypatch):
    package = types.ModuleType("my_models")
    package.OwnModel = OwnModel
    monkeypatch.setitem(sys.modules, "my_models", package)
    assert models.build("my_models:OwnModel", width=4).width == 4
    with pytest.raises(ConfigError, match=r"model\.widht is unknown. Did you mean"):
        models.build("my_models:OwnModel", widht=4)


@pytest.mark.parametrize("latent", ["gumbel_softmax", "von_mises_fisher"])
def test_clusters_of_latents_that_are_not_gaussian_are_refused(latent):
    with pytest.raises(ConfigError, match="model.clusters must be None unless"):
        models.build("mlp", latent=latent, clusters={"num_clusters": 3})
