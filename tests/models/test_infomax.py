"""Critics are what their formulas say; encoders that cannot be are refused."""

import jax
import numpy as np
import pytest

from jvae import models
from jvae.errors import ConfigError
from jvae.models.infomax import DotCritic, JointCritic

KEY = jax.random.key(0)
DRAWS = np.random.default_rng(0)
A = DRAWS.normal(size=(1, 4, 2, 2, 3)).astype("f4")
B = DRAWS.normal(size=(5, 4, 1, 1, 6)).astype("f4")


def dense(layer, x):
    return x @ layer["kernel"] + layer.get("bias", np.zeros(()))


def test_a_joint_critic_is_a_network_on_the_two_side_by_side():
    critic = JointCritic((7, 8))
    variables = jax.device_get(critic.init(KEY, A, B))
    p = variables["params"]
    shape = (5, 4, 2, 2)
    pairs = np.concatenate(
        [np.broadcast_to(A, (*shape, 3)), np.broadcast_to(B, (*shape, 6))], -1
    )
    kernel = np.concatenate([p["Dense_0"]["kernel"], p["Dense_1"]["kernel"]])
    h = np.maximum(pairs @ kernel + p["Dense_0"]["bias"], 0.0)
    h = np.maximum(dense(p["Dense_2"], h), 0.0)
    wanted = dense(p["Dense_3"], h)[..., 0]
    np.testing.assert_allclose(critic.apply(variables, A, B), wanted, rtol=1e-4)


def test_a_dot_critic_is_a_scaled_product_of_two_networks():
    critic = DotCritic((7, 8))
    variables = jax.device_get(critic.init(KEY, A, B))
    p = variables["params"]

    def network(x, first, second):
        return dense(p[second], np.maximum(dense(p[first], x), 0.0))

    of_a, of_b = network(A, "Dense_0", "Dense_1"), network(B, "Dense_2", "Dense_3")
    wanted = (of_a * of_b).sum(-1) / np.sqrt(8)
    found = critic.apply(variables, A, B)
    assert found.shape == (5, 4, 2, 2)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_shape": (4, 4, 1)}, "must be at least 8 high and wide for its levels"),
        ({"channels": ()}, "model.channels must be at least one width"),
        ({"critic_hidden": ()}, "model.critic_hidden must be at least one width"),
        ({"kernel_size": 0}, "model.kernel_size must be at least 1, got 0"),
        ({"critic": "bilinear"}, "model.critic must be"),
        ({"latent_dim": 0}, "model.latent_dim must be at least 1, got 0"),
    ],
)
def test_impossible_encoders_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        models.build("infomax", **fields)
