"""Updates that are skipped: not finite, spikes, and too many of them."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jvae import data
from jvae.errors import ConfigError, DivergedError
from jvae.training import experiment, train_step
from jvae.training.config import Experiment
from jvae.training.train_step import Guard
from jvae.types import Aux
from tests.runs import arrays, metrics, steps

KEY = jax.random.key(0)


def setup(spike_factor=None, max_skips=20, ema_decay=0.9, optimizer=None):
    """A parameter whose gradient is the batch's 'image', and what trains it.

    Returns (state, step): the collection 'stats' counts the batches it has seen.
    """
    optimizer = optimizer or optax.adam(0.1)

    def loss(params, state, key, batch, coefficients):
        value = (params["w"] * batch["image"]).sum()
        seen = {"stats": {"count": state["stats"]["count"] + 1}}
        return value, Aux({"loss": value}, seen)

    params = {"w": jnp.ones(3)}
    state = train_step.TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state=optimizer.init(params),
        state={"stats": {"count": jnp.int32(0)}},
        ema=jax.tree.map(jnp.copy, params),
        guard=Guard.new(spike_factor),
    )
    step = train_step.make_train_step(
        loss,
        optimizer,
        prepare=lambda batch, key: batch,
        run_key=KEY,
        ema_decay=ema_decay,
        max_skips=max_skips,
        spike_factor=spike_factor,
    )
    return state, jax.jit(step)


def gradient(norm):
    """A batch whose gradient has this norm."""
    return {"image": jnp.full(3, norm / math.sqrt(3.0))}


def learned(state):
    """All that an update changes, without the counters."""
    return jax.tree.leaves((state.params, state.opt_state, state.state, state.ema))


def same(a, b):
    return all(bool((x == y).all()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_batch_that_is_not_finite_changes_nothing_and_is_counted(bad):
    state, step = setup()
    state, _ = step(state, gradient(1.0))
    after, shown = step(state, gradient(bad))
    assert same(learned(state), learned(after))
    assert int(after.step) == 2
    assert (int(shown["skipped_updates"]), int(shown["skipped_in_a_row"])) == (1, 1)
    good, shown = step(after, gradient(1.0))
    assert not same(learned(after), learned(good))
    assert (int(shown["skipped_updates"]), int(shown["skipped_in_a_row"])) == (1, 0)


def test_one_element_that_is_not_finite_is_enough():
    state, step = setup()
    after, _ = step(state, {"image": jnp.array([1.0, jnp.nan, 1.0])})
    assert same(learned(state), learned(after))


def test_a_loss_that_is_not_finite_is_enough():
    """inf - inf: the value is nan, though a gradient could be finite."""
    state, step = setup()
    state = state.replace(params={"w": jnp.array([jnp.inf, -jnp.inf, 1.0])})
    after, _ = step(state, gradient(1.0))
    assert same(learned(state)[1:], learned(after)[1:])


def test_after_too_many_in_a_row_even_good_batches_change_nothing():
    state, step = setup(max_skips=3)
    for i in range(3):
        state, shown = step(state, gradient(jnp.nan))
        assert int(shown["skipped_in_a_row"]) == i + 1
    frozen, shown = step(state, gradient(1.0))
    assert same(learned(state), learned(frozen))
    assert int(shown["skipped_in_a_row"]) == 4


def usual(state, step, norm=1.0, num=train_step.WINDOW):
    for _ in range(num):
        state, shown = step(state, gradient(norm))
    assert int(shown["skipped_updates"]) == 0
    return state


def test_a_spike_is_skipped_and_what_is_below_it_is_not():
    state, step = setup(spike_factor=3.0)
    state = usual(state, step)
    spike, shown = step(state, gradient(3.01))
    assert same(learned(state), learned(spike)) and int(shown["skipped_updates"]) == 1
    below, shown = step(state, gradient(2.99))
    assert not same(learned(state), learned(below))
    assert int(shown["skipped_updates"]) == 0


def test_there_are_no_spikes_before_enough_norms_are_known():
    state, step = setup(spike_factor=3.0)
    state = usual(state, step, num=int(train_step.QUANTILE * train_step.WINDOW))
    _, shown = step(state, gradient(1e6))
    assert int(shown["skipped_updates"]) == 0


def test_a_new_level_of_norms_is_soon_the_usual_one():
    """A hundred steps over the threshold must not freeze a run without a word."""
    state, step = setup(spike_factor=3.0)
    state = usual(state, step)
    skipped = []
    for _ in range(100):
        state, shown = step(state, gradient(3.3))
        skipped.append(int(shown["skipped_updates"]))
    limit = train_step.WINDOW - int(train_step.QUANTILE * train_step.WINDOW)
    assert skipped[limit - 1] == limit and skipped[-1] == limit


def test_what_is_not_finite_does_not_enter_the_usual_norms():
    state, step = setup(spike_factor=3.0, max_skips=10_000)
    state = usual(state, step)
    for _ in range(50):
        state, _ = step(state, gradient(jnp.inf))
    np.testing.assert_allclose(
        state.guard.norms, jnp.ones(train_step.WINDOW), rtol=1e-6
    )


def test_with_spikes_allowed_no_norms_are_kept():
    state, step = setup()
    assert state.guard.norms is None
    _, shown = step(state, gradient(1e15))
    assert int(shown["skipped_updates"]) == 0


def test_a_skipped_step_does_not_move_the_schedule():
    schedule = optax.piecewise_constant_schedule(1.0, {1: 0.0})
    state, step = setup(optimizer=optax.sgd(schedule))
    state, _ = step(state, gradient(jnp.nan))
    moved, _ = step(state, gradient(1.0))
    assert not same(jax.tree.leaves(state.params), jax.tree.leaves(moved.params))


def test_a_run_that_diverges_ends_with_what_it_tripped_over(tiny, tmp_path, capsys):
    """Infinite parameters after the first update: no later one is finite."""
    tiny |= {"max_skips": 3, "num_steps": 40, "log_every_steps": 4}
    tiny["optimizer"] = {"name": "sgd", "learning_rate": 1e38}
    with pytest.raises(DivergedError) as caught:
        experiment.run(tiny, tmp_path)
    text = str(caught.value)
    assert caught.value.exit_code == 5 and "\n" not in text
    first = min(r["step"] for r in metrics(tmp_path) if r["skipped_updates"])
    listed = json.loads((tmp_path / "diverged.json").read_text())
    assert len(listed) == 3 and f"after step {min(map(int, listed))} were" in text
    assert min(map(int, listed)) < first
    for step, examples in listed.items():
        expected = data.order(0, 1442 - 80, int(step) * 64, (int(step) + 1) * 64)
        assert examples == expected.tolist()


@pytest.mark.slow
def test_a_diverged_run_keeps_its_last_good_checkpoint(tiny, tmp_path, monkeypatch):
    """Batches are nan from step 6 on; step 4 was saved, and 8 would have been.

    No step between them is logged, so the save has to look for itself.
    """
    tiny["log_every_steps"] = 12
    experiment.run(tiny | {"num_steps": 4}, tmp_path / "good")
    make = train_step.make_train_step

    def poisoned(loss, *args, **options):
        def bad(params, state, key, batch, coefficients):
            step = coefficients.pop("step")
            value, aux = loss(params, state, key, batch, coefficients)
            return value * jnp.where(step >= 6, jnp.nan, 1.0), aux

        anneal = options.pop("coefficients")
        both = lambda step: anneal(step) | {"step": step}  # noqa: E731
        return make(bad, *args, coefficients=both, **options)

    monkeypatch.setattr(train_step, "make_train_step", poisoned)
    with pytest.raises(DivergedError, match="the 2 updates after step 6"):
        experiment.run(tiny | {"max_skips": 2}, tmp_path / "bad")
    assert steps(tmp_path / "bad") == [4]
    good, kept = arrays(tmp_path / "good", 4), arrays(tmp_path / "bad", 4)
    for path, value in good.items():
        np.testing.assert_array_equal(value, kept[path], err_msg=path)
    monkeypatch.undo()
    experiment.run(tiny | {"max_skips": 3}, tmp_path / "bad")
    assert steps(tmp_path / "bad")[-1] == 12


@pytest.mark.parametrize(
    "field, value",
    [("spike_factor", 0.5), ("spike_factor", math.inf), ("max_skips", 0)],
)
def test_limits_that_cannot_be_are_refused(tiny, field, value):
    with pytest.raises(ConfigError, match=f"{field} must be"):
        Experiment(**(tiny | {field: value}))
