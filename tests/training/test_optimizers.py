import jax
import numpy as np
import optax
import pytest

from jvae import models
from jvae.errors import ConfigError
from jvae.training import optimizers

PARAMS = {"kernel": np.ones((3, 2), "f4"), "bias": np.ones((2,), "f4")}
GRADS = {"kernel": np.full((3, 2), 0.5, "f4"), "bias": np.full((2,), -2.0, "f4")}


def steps_of(optimizer, params=PARAMS, num=3):
    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(GRADS, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(num):
        params, state = step(params, state)
    return jax.device_get(params)


@pytest.mark.parametrize(
    "name, oracle",
    [
        ("adam", optax.adam(1e-2)),
        ("adamax", optax.adamax(1e-2)),
        ("sgd", optax.sgd(1e-2)),
        ("rmsprop", optax.rmsprop(1e-2, decay=0.999)),
        ("adamw", optax.adam(1e-2)),
    ],
)
def test_each_name_is_the_optax_optimizer(name, oracle):
    ours, _ = optimizers.build(name, num_steps=10, learning_rate=1e-2)
    for a, b in zip(
        jax.tree.leaves(steps_of(ours)), jax.tree.leaves(steps_of(oracle)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_adamw_decays_kernels_like_optax_and_leaves_biases_alone():
    ours, _ = optimizers.build(
        "adamw", num_steps=10, learning_rate=1e-2, weight_decay=0.1
    )
    oracle = optax.adamw(1e-2, weight_decay=0.1)
    plain = optax.adam(1e-2)
    np.testing.assert_allclose(
        steps_of(ours)["kernel"], steps_of(oracle)["kernel"], rtol=1e-6
    )
    np.testing.assert_allclose(
        steps_of(ours)["bias"], steps_of(plain)["bias"], rtol=1e-6
    )


def test_of_stacked_layers_kernels_alone_decay():
    """Their biases and scales have two axes, as kernels have elsewhere."""
    model = models.build("fvae", image_shape=(8, 8, 1), levels=1, flow_levels=2)
    key, batch = jax.random.key(0), {"image": np.zeros((1, 8, 8, 1), "f4")}
    params = jax.eval_shape(model.init, key, batch, key)["params"]
    flags = jax.tree_util.tree_leaves_with_path(optimizers.is_kernel(params))
    names = {flag: {path[-1].key for path, f in flags if f == flag} for flag in (0, 1)}
    assert names[True] == {"kernel"}
    assert names[False] >= {"bias", "scale", "shift", "log_scale", "log_var", "log_std"}


def test_weight_decay_of_sgd_is_part_of_the_gradient():
    ours, _ = optimizers.build("sgd", num_steps=1, learning_rate=0.1, weight_decay=0.5)
    new = steps_of(ours, num=1)
    np.testing.assert_allclose(new["kernel"], 1.0 - 0.1 * (0.5 + 0.5), rtol=1e-6)
    np.testing.assert_allclose(new["bias"], 1.0 + 0.1 * 2.0, rtol=1e-6)


def test_a_rule_around_one_that_clips_is_clipped_by_its_own_norm():
    """By the norm of what reaches it, which the step's is not."""
    state = {"w": np.full(4, 5.0, "f4")}
    inner, _ = optimizers.build("sgd", num_steps=1, learning_rate=1.0, clip_norm=1.0)
    outer = optax.chain(optax.scale(0.01), inner)
    assert isinstance(inner, optimizers.NormTaking)
    assert not isinstance(outer, optimizers.NormTaking)
    updates, _ = outer.update(state, outer.init(state))
    np.testing.assert_allclose(updates["w"], -0.05, rtol=1e-6)
    given, _ = inner.update(state, inner.init(state), norm=np.float32(10.0))
    itself, _ = inner.update(state, inner.init(state))
    np.testing.assert_allclose(given["w"], itself["w"], rtol=1e-6)
    np.testing.assert_allclose(itself["w"], -0.5, rtol=1e-6)


def test_the_clipped_gradient_has_at_most_the_norm_asked_for():
    ours, _ = optimizers.build("sgd", num_steps=1, learning_rate=1.0, clip_norm=0.25)
    change = jax.tree.map(lambda a, b: a - b, steps_of(ours, num=1), PARAMS)
    norm = np.sqrt(sum(np.square(a).sum() for a in jax.tree.leaves(change)))
    np.testing.assert_allclose(norm, 0.25, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
def test_half_the_warm_up_gives_half_the_rate_and_the_end_is_the_floor(schedule):
    _, rate = optimizers.build(
        num_steps=100,
        learning_rate=0.2,
        schedule=schedule,
        warmup_steps=10,
        final_fraction=0.25,
    )
    steps = np.array([0, 5, 10, 100, 1000])
    start, half, full, *rest = np.asarray(jax.jit(jax.vmap(rate))(steps))
    assert start == 0.0
    np.testing.assert_allclose(half, 0.1, rtol=1e-6)
    np.testing.assert_allclose(full, 0.2, rtol=1e-6)
    end = 0.2 if schedule == "constant" else 0.05
    np.testing.assert_allclose(rest, end, rtol=1e-5)


def test_decay_steps_frees_the_schedule_from_the_length_of_the_run():
    _, short = optimizers.build(num_steps=50, schedule="cosine", decay_steps=200)
    _, long = optimizers.build(num_steps=200, schedule="cosine")
    np.testing.assert_allclose(short(40), long(40))


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"name": "adm"}, "Did you mean 'adam'"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate"),
        ({"b2": 1.0}, "optimizer.b2"),
        ({"clip_norm": -1.0}, "optimizer.clip_norm"),
        ({"final_fraction": 2.0}, "optimizer.final_fraction"),
        ({"warmup_steps": -1}, "optimizer.warmup_steps"),
        ({"weight_decay": -1.0}, "optimizer.weight_decay"),
    ],
)
def test_what_cannot_be_right_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        optimizers.build(num_steps=10, **fields)


def walked(steps, params, **fields):
    """Returns the parameters after each step with gradients of 1."""
    optimizer, _ = optimizers.build(num_steps=10, learning_rate=0.1, **fields)
    grads = jax.tree.map(np.ones_like, params)
    state, found = optimizer.init(params), []

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
        found.append(jax.device_get(params))
    return found


ONES = np.ones((2, 2), "f4")
TWO = {"decoder": {"kernel": ONES}, "encoder": {"kernel": ONES}}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_decoder_that_lags_is_updated_as_if_the_steps_between_were_not(name):
    fields = {"name": name, "weight_decay": 0.1}
    plain = walked(9, TWO, **fields)
    lagging = walked(9, TWO, decoder_every=3, decoder_every_until=6, **fields)
    # updates of the decoder: at steps 2, 5, then 6, 7, 8
    seen = [0, 0, 1, 1, 1, 2, 3, 4, 5]
    for step, count in enumerate(seen):
        wanted = plain[count - 1]["decoder"]["kernel"] if count else 1.0
        found = lagging[step]
        np.testing.assert_allclose(found["decoder"]["kernel"], wanted, rtol=1e-5)
        same = found["encoder"]["kernel"], plain[step]["encoder"]["kernel"]
        np.testing.assert_allclose(*same, rtol=1e-5)


def test_only_a_model_with_a_decoder_can_have_one_that_lags():
    with pytest.raises(ConfigError, match="decoder_every must be 1 for a model"):
        walked(1, {"encoder": ONES}, decoder_every=2)
    with pytest.raises(ConfigError, match="decoder_every must be at least 1, got 0"):
        optimizers.build(num_steps=1, decoder_every=0)
    with pytest.raises(ConfigError, match="decoder_every_until must be None or at lea"):
        optimizers.build(num_steps=1, decoder_every_until=-1)
