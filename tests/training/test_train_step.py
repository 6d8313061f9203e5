import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jvae import layers, losses, models
from jvae.runtime import mesh
from jvae.training import assembly, batches, train_step
from jvae.training import config as configs
from jvae.types import Aux
from tests.tiers import others_slow

KEY = jax.random.key(0)
IMAGES = jax.random.bernoulli(jax.random.key(1), 0.4, (64, 8, 8, 1))
BATCH = {"image": IMAGES.astype(jnp.float32)}
ROW = {"image": BATCH["image"][:1]}


MODEL = models.build("mlp", image_shape=(8, 8, 1), hidden=(16,))
ADAM, STILL = optax.adam(1e-2), optax.sgd(0.0)


def prepare(batch, key):
    return batch


def setup(model=MODEL, optimizer=ADAM, devices=None, ema_decay=0.0, **options):
    devices = devices or mesh.build()
    example = jax.eval_shape(lambda: jax.tree.map(lambda a: a[:1], BATCH))
    create = train_step.initializer(model, optimizer, example, ema_decay)
    state = train_step.create_state(create, KEY, devices)
    step = train_step.make_train_step(
        losses.build("elbo", model),
        optimizer,
        prepare=prepare,
        run_key=jax.random.key(2),
        ema_decay=ema_decay,
        **options,
    )
    return state, step


shared = functools.cache(setup)
"""The same, made once for all tests that leave its state as it is."""


def one_device():
    return jax.make_mesh(
        (1, 1),
        mesh.AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * 2,
        devices=jax.devices()[:1],
    )


def leaves_equal(a, b):
    a, b = jax.device_get((a, b))
    same = jax.tree.map(lambda x, y: bool((x == y).all()), a, b)
    return all(jax.tree.leaves(same))


def test_one_step_changes_every_parameter():
    state, step = shared()
    new, _ = jax.jit(step)(state, BATCH)
    before, after = jax.device_get((state.params, new.params))
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    assert all(jax.tree.leaves(changed))
    assert int(new.step) == 1


@pytest.mark.slow
def test_eight_images_are_overfitted():
    eight = {"image": BATCH["image"][:8]}
    model = models.build("mlp", image_shape=(8, 8, 1), hidden=(64,))
    state, step = setup(model, optax.adam(3e-3))
    step = jax.jit(step)
    state, first = step(state, eight)
    for _ in range(200):
        state, metrics = step(state, eight)
    assert metrics["loss"] <= 0.5 * first["loss"]


def test_a_step_is_a_pure_function_of_state_and_batch():
    state, step = shared()
    a, b = jax.jit(step)(state, BATCH), jax.jit(step)(state, BATCH)
    assert leaves_equal(a, b)


def test_draws_differ_from_step_to_step():
    state, step = shared(optimizer=STILL)
    state, first = jax.jit(step)(state, BATCH)
    _, second = jax.jit(step)(state, BATCH)
    assert first["loss"] != second["loss"]


@pytest.mark.parametrize(
    "sizes", others_slow([{"data": 8}, {"data": 2, "params": 4}], {"data": 8})
)
def test_eight_devices_train_like_one(sizes):
    runs = {}
    for name, devices in (("one", one_device()), ("many", mesh.build(**sizes))):
        state, step = setup(devices=devices)
        compiled = train_step.compile_train_step(step, state, devices)
        for _ in range(3):
            state, metrics = compiled(state, mesh.put_batch(BATCH, devices))
        runs[name] = jax.device_get((state.params, metrics))
    np.testing.assert_allclose(
        runs["one"][1]["loss"], runs["many"][1]["loss"], rtol=1e-5
    )
    for a, b in zip(*(jax.tree.leaves(r[0]) for r in runs.values()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_moments_lie_where_their_parameters_do(monkeypatch):
    monkeypatch.setattr(mesh, "MIN_SHARDED_SIZE", 64)
    state, _ = setup(devices=mesh.build(params=8))
    adam = state.opt_state[0]
    for moment in (adam.mu, adam.nu):
        places = jax.tree.map(
            lambda p, m: p.sharding == m.sharding, state.params, moment
        )
        assert all(jax.tree.leaves(places))
    kernel = state.params["decoder"]["output"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // 8


def test_gradients_are_split_with_their_parameters(monkeypatch):
    """As for TPUs, here on CPUs: the same numbers, each part on the device it is of."""
    devices, tree = mesh.build(params=8), {"kernel": np.ones((256, 128), "float32")}

    def traced():
        function = jax.jit(lambda t: mesh.split(jax.tree.map(jnp.sin, t), devices))
        return function.trace(tree)

    assert "sharding_constraint" not in str(traced().jaxpr)
    monkeypatch.setattr(mesh, "platform", lambda devices: "tpu")
    assert "sharding_constraint" in str(traced().jaxpr)
    found = traced().lower().compile()(tree)["kernel"]
    assert found.addressable_shards[0].data.shape == (32, 128)
    np.testing.assert_allclose(found, np.sin(tree["kernel"]), rtol=1e-6)


def test_micro_batches_add_up_to_the_batch():
    state, whole = setup(optimizer=optax.sgd(1e-3))
    _, parts_ = setup(optimizer=optax.sgd(1e-3), accumulate_steps=4)
    a, metrics = jax.jit(whole)(state, BATCH)
    b, metrics_4 = jax.jit(parts_)(state, BATCH)
    np.testing.assert_allclose(metrics["loss"], metrics_4["loss"], rtol=1e-5)
    for x, y in zip(jax.tree.leaves(a.params), jax.tree.leaves(b.params), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_metrics_that_are_counts_are_averaged_over_micro_batches_with_a_mask():
    """Of the parts (rows 0, 2 and 1, 3) one has two examples, and the other one."""

    def loss(params, state, key, batch, coefficients):
        metrics = {"examples": batch["mask"].sum(), "any": batch["mask"].any()}
        return params * batch["x"].mean(), Aux(metrics, state)

    batch = {"x": np.ones(4, "float32"), "mask": np.array([True, True, True, False])}
    gradients = train_step.gradient_fn(loss, 2)
    arguments = np.float32(2.0), {}, jax.random.key(0), batch, {}
    (_, aux), _ = jax.jit(gradients)(*arguments)
    assert aux.metrics["examples"] == pytest.approx((2 * 2 + 1 * 1) / 3)
    assert aux.metrics["any"] == 1.0


@pytest.mark.slow
def test_micro_batches_hand_their_collections_on():
    """Two equal ones move running statistics twice: r2 - r1 = momentum (r1 - r0)."""
    options = {"channels": (4,), "batch_norm": True}
    model = models.build("conv", image_shape=(8, 8, 1), **options)
    start, once = setup(model, optax.sgd(0.0))
    _, twice = setup(model, optax.sgd(0.0), accumulate_steps=2)
    doubled = {"image": jnp.repeat(BATCH["image"], 2, axis=0)}
    after_one, _ = jax.jit(once)(start, BATCH)
    after_two, _ = jax.jit(twice)(start, doubled)
    r0, r1, r2 = (
        jax.tree.leaves(s.state["batch_stats"]["encoder"])
        for s in (start, after_one, after_two)
    )
    momentum = layers.BatchNorm.momentum
    for a, b, c in zip(r0, r1, r2, strict=True):
        assert (a != b).any()
        np.testing.assert_allclose(c - b, momentum * (b - a), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model", others_slow(["mlp", "conv"], "mlp"))
def test_many_steps_in_a_dispatch_are_the_same_steps(model):
    options = {"hidden": (16,)} if model == "mlp" else {"channels": (4, 8)}
    components = models.build(model, image_shape=(8, 8, 1), **options)
    devices = mesh.build()
    state, step = setup(components, devices=devices)
    again, _ = setup(components, devices=devices)
    single = train_step.compile_train_step(step, state, devices)
    triple = train_step.compile_train_step(step, again, devices, steps_per_dispatch=3)
    stacked = jax.tree.map(lambda a: np.stack([a] * 3), jax.device_get(BATCH))
    again, metrics = triple(again, mesh.put_batch(stacked, devices, leading=1))
    for i in range(3):
        state, each = single(state, mesh.put_batch(BATCH, devices))
        np.testing.assert_allclose(metrics["loss"][i], each["loss"], rtol=1e-5)
    for x, y in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(again.params), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=2e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decay", "steps", "value"),
    [(0.999, 1000, 0.632304575), (0.9999, 10000, 0.632138954)],
)
def test_an_old_average_follows_its_closed_form(decay, steps, value):
    """From 0 towards parameters that stay at 1: 1 - decay^steps."""
    state, step = shared(optimizer=STILL, ema_decay=decay)
    ones, zeros = (
        jax.tree.map(lambda p, v=v: np.full(p.shape, v, "float32"), state.params)
        for v in (1, 0)
    )
    state = state.replace(params=ones, ema=zeros, step=jnp.int32(1_000_000))
    go = jax.jit(lambda s: jax.lax.fori_loop(0, steps, lambda i, s: step(s, ROW)[0], s))
    for got in jax.tree.leaves(go(state).ema):
        np.testing.assert_allclose(got, value, rtol=2e-3)


def test_a_young_average_forgets_the_first_parameters():
    state, step = shared(optimizer=STILL, ema_decay=0.999)
    new = jax.tree.map(lambda p: np.ones(p.shape, "float32"), state.params)
    state = state.replace(params=new, ema=jax.tree.map(np.zeros_like, new))
    first, _ = jax.jit(step)(state, BATCH)
    hundredth, _ = jax.jit(step)(state.replace(step=jnp.int32(80)), BATCH)
    np.testing.assert_allclose(jax.tree.leaves(first.ema)[0], 0.9, rtol=1e-6)
    np.testing.assert_allclose(jax.tree.leaves(hundredth.ema)[0], 0.1, rtol=1e-6)


def test_a_compiled_step_consumes_its_state():
    """No second copy of parameters and moments in the device's memory."""
    state, step = setup(devices=mesh.build())
    compiled = train_step.compile_train_step(step, state, mesh.build())
    compiled(state, mesh.put_batch(BATCH, mesh.build()))
    assert all(x.is_deleted() for x in jax.tree.leaves((state.params, state.opt_state)))


def test_the_step_compiles_once_for_a_hundred_steps():
    state, step = setup()
    traces = []

    def counted(state, batch):
        traces.append(1)
        return step(state, batch)

    devices = mesh.build()
    compiled = train_step.compile_train_step(counted, state, devices)
    for _ in range(100):
        state, _ = compiled(state, mesh.put_batch(BATCH, devices))
    assert len(traces) == 1


def test_the_norm_is_that_of_the_gradient():
    state, step = setup(optimizer=optax.sgd(1.0))
    after, metrics = jax.jit(step)(state, BATCH)
    ends = jax.device_get((after.params, state.params))
    moved = jax.tree.map(lambda a, b: a - b, *ends)
    norm = np.sqrt(sum(np.sum(np.square(m)) for m in jax.tree.leaves(moved)))
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-4)


def test_annealed_coefficients_reach_the_loss():
    state, _ = shared(optimizer=STILL)
    step = train_step.make_train_step(
        losses.build("elbo", MODEL),
        STILL,
        prepare=prepare,
        run_key=KEY,
        coefficients=lambda step: {"beta": 2.0 * step},
    )
    step = jax.jit(step)
    for beta in (0.0, 2.0, 4.0):
        state, m = step(state, BATCH)
        expected = beta * m["kl"] - m["log_likelihood"]
        np.testing.assert_allclose(m["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("placement", ["host", "device"])
@pytest.mark.parametrize("steps_per_dispatch", [1, 3])
def test_batches_are_the_same_wherever_the_data_lives(
    tiny, placement, steps_per_dispatch
):
    tiny["data"]["placement"] = placement
    tiny |= {"steps_per_dispatch": steps_per_dispatch, "log_every_steps": 3}
    tiny |= {"checkpoint_every_steps": 3}
    feed = batches.training_batches(
        assembly.assemble(configs.parse_experiment(tiny)), start_step=2
    )
    got = np.concatenate(
        [np.asarray(next(feed)["image"]).reshape(-1, 64) for _ in range(2)]
    )
    plain = assembly.assemble(
        configs.parse_experiment(tiny | {"steps_per_dispatch": 1})
    )
    expected = batches.training_batches(plain, start_step=2)
    wanted = [
        np.asarray(next(expected)["image"]).reshape(-1, 64)
        for _ in range(2 * steps_per_dispatch)
    ]
    np.testing.assert_array_equal(got, np.concatenate(wanted))
