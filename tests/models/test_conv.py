"""The convolutional networks, written out with Flax's own layers."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jvae.models import ConvDecoder, ConvEncoder

KEY = jax.random.key(0)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def assert_equal_to(network, written_out, x):
    """Asserts network(x) = written_out(layer, x) with the parameters of the network.

    `layer(kind, name, x)` applies a Flax layer with the network's parameters `name`.
    """
    shapes = jax.eval_shape(network.init, KEY, x)["params"]
    params = jax.tree.map(lambda a: normal(1, *a.shape), shapes)

    @jax.jit
    def both(params, x):
        def layer(kind, name, x):
            return kind.apply({"params": params[name]}, x)

        return network.apply({"params": params}, x), written_out(layer, x)

    found, wanted = both(params, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", ["flatten", "mean"])
def test_the_encoder_halves_pools_and_ends_in_dense_layers(pooling):
    def written_out(layer, x):
        for i in range(2):
            conv = nn.Conv((2, 3)[i], (3, 3), strides=2)
            x = nn.elu(layer(conv, f"Conv_{i}", x))
        x = x.mean((1, 2)) if pooling == "mean" else x.reshape(len(x), -1)
        return nn.elu(layer(nn.Dense(4), "Dense_0", x))

    network = ConvEncoder((2, 3), hidden=(4,), pooling=pooling, activation="elu")
    assert_equal_to(network, written_out, normal(0, 2, 8, 4, 1))


@pytest.mark.parametrize("start_activation", [False, True])
@pytest.mark.parametrize("doubling_output", [False, True])
def test_the_decoder_doubles_up_to_a_linear_output(start_activation, doubling_output):
    output_shape = (8, 4, 3) if doubling_output else (4, 2, 3)

    def written_out(layer, z):
        h = nn.tanh(layer(nn.Dense(5), "Dense_0", z))
        h = layer(nn.Dense(4), "Dense_1", h).reshape(len(z), 2, 1, 2)
        if start_activation:
            h = nn.tanh(h)
        up = nn.ConvTranspose(3, (3, 3), strides=(2, 2))
        h = nn.tanh(layer(up, "ConvTranspose_0", h))
        last = up if doubling_output else nn.Conv(3, (3, 3))
        return layer(last, "output", h)

    network = ConvDecoder(
        channels=(3,),
        start_shape=(2, 1, 2),
        output_shape=output_shape,
        hidden=(5,),
        start_activation=start_activation,
        activation="tanh",
    )
    assert_equal_to(network, written_out, normal(0, 2, 3))


@pytest.mark.parametrize("pooling", ["flatten", "mean", "max"])
def test_an_encoder_pools_its_last_map_and_gives_the_one_after_its_levels(pooling):
    x = np.random.default_rng(0).normal(size=(2, 7, 7, 1)).astype("f4")
    encoder = ConvEncoder((3,), downsampling="max_pool", pooling=pooling)
    variables = encoder.init(KEY, x)
    found, features = encoder.apply(variables, x, method="map_and_features")
    layer = jax.device_get(variables["params"]["Conv_0"])
    full = jax.lax.conv_general_dilated(
        x, layer["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    full = np.maximum(np.asarray(full) + layer["bias"], 0.0)[:, :6, :6]
    wanted = full.reshape(2, 3, 2, 3, 2, 3).max((2, 4))  # a last row is left out
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    pooled = {"flatten": wanted.reshape(2, -1)}
    pooled |= {"mean": wanted.mean((1, 2)), "max": wanted.max((1, 2))}
    np.testing.assert_allclose(features, pooled[pooling], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(encoder.apply(variables, x), features)
