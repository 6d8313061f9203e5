"""Parameters of the reference networks, counted without making them."""

import math

import jax
import jax.numpy as jnp
import pytest

from jvae import models
from tests.tiers import others_slow

MLP = {"name": "mlp", "image_shape": (28, 28, 1), "latent_dim": 2, "hidden": (256,)}
CONV = {
    "name": "conv",
    "image_shape": (28, 28, 1),
    "latent_dim": 2,
    "channels": (32, 64),
    "hidden": (16,),
}
CLUSTER = {
    "name": "conv",
    "image_shape": (28, 28, 1),
    "latent_dim": 20,
    "channels": (32, 64),
    "convs_per_level": 2,
    "activation": "leaky_relu",
    "start_activation": False,
    "likelihood": {"name": "gaussian", "mean": "sigmoid"},
    "clusters": {"num_clusters": 10},
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
        (CLUSTER, 366_331),
    ],
    ids=["mlp", "conditional", "conv", "celeba", "cluster"],
)
def test_the_reference_networks_have_their_parameter_counts(fields, count):
    variables, picture = shapes(fields)
    params = jax.tree.leaves(variables["params"])  # without BatchNorm's statistics
    assert sum(math.prod(a.shape) for a in params) == count
    assert picture.shape == (1, *fields["image_shape"])


@pytest.mark.parametrize(
    ("size", "channels", "count"),
    [(32, (64, 128, 256), 2_210_818), (64, (32, 64, 128, 256), 2_228_482)],
    ids=["cifar10", "tiny imagenet"],
)
def test_the_infomax_encoders_have_their_parameter_counts(size, channels, count):
    fields = {"channels": channels, "global_view": "code"}
    model = models.build("infomax", image_shape=(size, size, 3), **fields)
    batch, key = {"image": jnp.zeros((1, size, size, 3))}, jax.random.key(0)
    variables = jax.eval_shape(model.init, key, batch, key)
    params = jax.tree.leaves(variables["params"])
    assert sum(math.prod(a.shape) for a in params) == count
    views = jax.eval_shape(
        lambda v: model.apply(v, batch, key, method="views"), variables
    )
    assert views.map.shape == (1, 4, 4, 256) and views.vector.shape == (1, 256)


FLOWS = {
    # Counted from the code of the posts: 64x64 faces, and 128x128.
    "glow": (
        {"levels": 3, "depth": 10, "hidden": 512, "image_shape": (64, 64, 3)},
        {"flow": 11_771_232},
    ),
    "fvae": (
        {
            "levels": 3,
            "blocks": 12,
            "flow_levels": 4,
            "depth": 12,
            "hidden": 256,
            "image_shape": (128, 128, 3),
        },
        {"encoder": 4_729_536, "decoder": 4_729_536, "flow": 86_371_008},
    ),
    # The post's count is 19,158,352: its last layer has no shift of 784 numbers.
    "nice": ({"image_shape": (28, 28, 1)}, {"flow": 19_158_352 + 784}),
}


@pytest.mark.parametrize("name", others_slow(list(FLOWS), "nice"))
def test_the_flows_have_their_parameter_counts(name):
    fields, counts = FLOWS[name]
    if name == "glow":
        fields = {**fields, "coupling": "additive", "mixing": "permutation"}
    model = models.build(name, **fields)
    batch, key = {"image": jnp.zeros((1, *fields["image_shape"]))}, jax.random.key(0)
    params = jax.eval_shape(model.init, key, batch, key)["params"]
    found = {
        part: sum(math.prod(a.shape) for a in jax.tree.leaves(params[part]))
        for part in counts
    }
    assert found == counts


def test_the_clustering_network_has_the_counts_of_its_parts():
    params = shapes(CLUSTER)[0]["params"]

    def count(*names):
        leaves = jax.tree.leaves([params[name] for name in names])
        return sum(math.prod(a.shape) for a in leaves)

    assert count("encoder", "posterior_head") == 190_472
    assert count("decoder") == 167_713
    assert count("classifier_0", "classifier_1") == 7_946
    assert count("cluster_means") == 200


def test_a_network_with_three_convolutions_at_a_size_still_halves_it_once():
    fields = {**CONV, "convs_per_level": 3}
    variables, picture = shapes(fields)
    assert picture.shape == (1, 28, 28, 1)
    layers = [n for n in variables["params"]["encoder"] if n.startswith("Conv")]
    assert len(layers) == 6
    assert variables["params"]["encoder"]["Dense_0"]["kernel"].shape == (7 * 7 * 64, 16)
