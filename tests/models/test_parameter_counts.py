"""Parameters of the reference networks, counted without making them."""

import math

import jax
import jax.numpy as jnp
import pytest

from jvae import models

MLP = {"name": "mlp", "image_shape": (28, 28, 1), "latent_dim": 2, "hidden": (256,)}
CONV = {
    "name": "conv",
    "image_shape": (28, 28, 1),
    "latent_dim": 2,
    "channels": (32, 64),
    "hidden": (16,),
}
CELEBA = {
    "name": "conv",
    "image_shape": (64, 64, 3),
    "latent_dim": 512,
    "channels": (32, 64, 128, 256, 512),
    "decoder_channels": (256, 128, 64, 32),
    "kernel_size": 5,
    "pooling": "mean",
    "batch_norm": True,
    "activation": "leaky_relu",
    "decoder_activation": "relu",
    "start_activation": False,
    "likelihood": {"name": "gaussian", "mean": "tanh"},
}


def shapes(fields):
    """Returns the shapes of a model's variables and of one decoded picture."""
    model = models.build(**fields)
    batch = {
        "image": jnp.zeros((1, *fields["image_shape"])),
        "label": jnp.zeros((1,), int),
    }
    key = jax.random.key(0)
    variables = jax.eval_shape(model.init, key, batch, key)
    z = jnp.zeros((1, fields["latent_dim"]))
    return variables, jax.eval_shape(
        lambda v: model.apply(v, z, method="decode"), variables
    )


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        (MLP, 404_244),
        ({**MLP, "num_classes": 10}, 404_266),
        (CONV, 134_165),
        (CELEBA, 10_289_155),
    ],
    ids=["mlp", "conditional", "conv", "celeba"],
)
def test_the_reference_networks_have_their_parameter_counts(fields, count):
    variables, picture = shapes(fields)
    params = jax.tree.leaves(variables["params"])  # without BatchNorm's statistics
    assert sum(math.prod(a.shape) for a in params) == count
    assert picture.shape == (1, *fields["image_shape"])
