"""A classifier with noisy codes, and the same without noise."""

import jax
import numpy as np
import optax
import pytest
import scipy.special

from jvae import losses, models
from jvae.errors import ConfigError

KEY = jax.random.key(0)
FIELDS = {"image_shape": (2, 3, 1), "latent_dim": 4, "hidden": (5,), "num_classes": 3}
BATCH = {
    "image": np.random.default_rng(0).normal(size=(6, 2, 3, 1)).astype("f4"),
    "label": np.arange(6) % 3,
}


def built(**fields):
    model = models.build("mlp_classifier", **{**FIELDS, **fields})
    return model, jax.jit(model.init)(KEY, BATCH, KEY)["params"]


@pytest.mark.slow
def test_the_control_has_the_same_layers_but_for_the_log_variances():
    noisy, plain = built()[1], built(noise=False)[1]
    assert set(noisy) - set(plain) == {"log_var_head"} and set(plain) < set(noisy)
    shapes = jax.tree.map(np.shape, {name: noisy[name] for name in plain})
    assert shapes == jax.tree.map(np.shape, plain)
    assert noisy["mean_head"]["kernel"].shape == (5, 4)
    assert noisy["decoder_0"]["kernel"].shape == (4, 3)


def test_without_noise_the_bottleneck_is_the_cross_entropy_of_a_plain_network():
    model, params = built(noise=False, decoder_hidden=(7,))
    loss = jax.jit(losses.build("bottleneck", model, beta=0.3))
    value, aux = loss(params, {}, KEY, BATCH, {})
    h, params = BATCH["image"].reshape(6, -1), jax.device_get(params)
    layers = [params["encoder"]["Dense_0"], params["mean_head"]]
    layers += [params["decoder_0"], params["decoder_1"]]
    for i, layer in enumerate(layers):
        h = h @ layer["kernel"] + layer["bias"]
        if i in (0, 2):  # the code is linear, and so are the logits
            h = np.maximum(h, 0.0)
    log_probs = scipy.special.log_softmax(h, axis=-1)
    wanted = -log_probs[np.arange(6), BATCH["label"]].mean()
    np.testing.assert_allclose(value, wanted, rtol=1e-5)
    assert float(aux.metrics["kl"]) == 0.0


def test_where_the_noise_is_as_small_as_it_may_be_the_two_say_the_same():
    model, params = built()
    params["log_var_head"] = jax.tree.map(np.zeros_like, params["log_var_head"])
    params["log_var_head"]["bias"] = np.full(4, -100.0, "f4")

    @jax.jit
    def log_var():
        return model.apply({"params": params}, BATCH, method="posterior").log_var

    np.testing.assert_allclose(log_var(), -15.0)
    control, _ = built(noise=False)
    shared = {name: params[name] for name in params if name != "log_var_head"}
    noisy = jax.jit(model.apply)({"params": params}, BATCH, KEY)
    plain = jax.jit(control.apply)({"params": shared}, BATCH, KEY)
    np.testing.assert_allclose(noisy.logits, plain.logits, atol=5e-3)


@pytest.mark.slow
def test_a_huge_weight_of_the_rate_leaves_chance():
    """The optimum of cross-entropy + beta rate for large beta: q(z|x) = p(z)."""
    model, params = built()
    loss = losses.build("bottleneck", model, beta=100.0)
    batch = jax.tree.map(lambda a: np.concatenate([a] * 40), BATCH)  # many draws

    optimizer = optax.adam(0.02)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, key):
        grads, aux = jax.grad(loss, has_aux=True)(params, {}, key, batch, {})
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, aux.metrics

    for key in jax.random.split(KEY, 500):
        params, state, metrics = step(params, state, key)
    assert metrics["kl"] < 1e-3
    np.testing.assert_allclose(-metrics["log_likelihood"], np.log(3.0), atol=0.05)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        (
            {"decoder_hidden": (0,)},
            "decoder_hidden must hold numbers that are at least 1",
        ),
    ],
)
def test_impossible_sizes_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        models.build("mlp_classifier", **{**FIELDS, **fields})


def test_images_of_another_shape_are_refused():
    model, params = built()
    with pytest.raises(ConfigError, match=r"shape \[B, 2, 3, 1\], got \[6, 3, 2, 1\]"):
        batch = {**BATCH, "image": BATCH["image"].swapaxes(1, 2)}
        model.apply({"params": params}, batch, KEY)
