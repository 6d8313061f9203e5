"""What marks an objective, and what reaches a model beside its state."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jvae import losses
from jvae.contract import TRAINING, Model, ModelDefaults, as_model
from jvae.distributions import DiagGaussian, Gaussian
from jvae.errors import ConfigError
from jvae.losses.objective import objective, with_check, with_coefficients
from jvae.ranges import PositiveInt
from jvae.types import Aux, Inference, batch_size

KEY = jax.random.key(0)
B = 4
BATCH = {"image": jnp.arange(B, dtype=jnp.float32).reshape(B, 1, 1, 1)}


class Told(Model):
    """Its KL is the coefficient 'heat', its mean the draws of the dropout keys."""

    target = "image"
    drops: bool = False

    @property
    def coefficients(self):
        return {"heat": 3.0}

    @property
    def has_dropout(self):
        return self.drops

    @nn.compact
    def infer(self, batch, key):
        steps = self.variable("batch_stats", "steps", jnp.zeros, (), jnp.float32)
        if self.is_mutable_collection("batch_stats"):
            steps.value += 1.0
        rows = batch_size(batch)
        kl = jnp.full((rows, 1), self.annealed().get("heat", -1.0))
        keys = self.dropout_keys()
        z = jnp.zeros(rows) if keys is None else jax.vmap(jax.random.normal)(keys)
        return Inference(z, kl, kl[:, 0])

    def likelihood(self, latents, batch):
        zeros = jnp.zeros((1, 1, 1, 1))
        return Gaussian(latents.reshape(-1, 1, 1, 1), zeros)


STATE = {"batch_stats": {"steps": jnp.zeros(())}}


def call(model, coefficients=None, **options):
    loss = jax.jit(losses.build("elbo", model, **options))
    return loss({}, STATE, KEY, BATCH, coefficients or {})


def test_coefficients_and_dropout_keys_of_a_model_leave_no_trace_in_its_state():
    for given, heat in ((None, 3.0), ({"heat": jnp.float32(7.0)}, 7.0)):
        _, aux = call(Told(), given)
        assert aux.metrics["kl"] == heat
        assert aux.state == {"batch_stats": {"steps": 1.0}}
    _, aux = call(Told(), train=False)
    assert aux.metrics["kl"] == 3.0
    assert aux.state == {"batch_stats": {"steps": 0.0}}
    assert set(Told().init(KEY, BATCH, KEY, method="infer")) == {"batch_stats"}


def test_dropout_acts_in_training_alone_with_a_key_for_each_example():
    still = call(Told())[1].metrics["log_likelihood"]
    drawn = call(Told(drops=True))[1].metrics["log_likelihood"]
    evaluated = call(Told(drops=True), train=False)[1].metrics["log_likelihood"]
    assert still == evaluated != drawn
    halves = [jax.tree.map(lambda a, h=h: a[h : h + 2], BATCH) for h in (0, 2)]
    each = jax.random.split(KEY, B)
    loss = jax.jit(losses.build("elbo", Told(drops=True)))
    parts = [
        loss({}, STATE, each[h : h + 2], half, {})[1].metrics["log_likelihood"]
        for h, half in zip((0, 2), halves, strict=True)
    ]
    np.testing.assert_allclose(np.mean(parts), drawn, rtol=1e-6)


def test_a_model_within_another_module_gets_them_too():
    class Outer(nn.Module):
        inner: nn.Module
        target = "image"
        coefficients = {"heat": 3.0}

        def infer(self, batch, key):
            return self.inner.infer(batch, key)

        def likelihood(self, latents, batch):
            return self.inner.likelihood(latents, batch)

    state = {"batch_stats": {"inner": STATE["batch_stats"]}}
    loss = losses.build("elbo", Outer(Told()))
    _, aux = jax.jit(loss)({}, state, KEY, BATCH, {"heat": jnp.float32(5.0)})
    assert aux.metrics["kl"] == 5.0 and set(aux.state) == {"batch_stats"}


def body(params, state, key, batch, coefficients, *, model, power: PositiveInt = 2):
    """Returns the coefficients' sum to a power, and whether the model is one of ours.

    Args:
      params: none.
      state: none.
      key: of nothing.
      batch: not read.
      coefficients: 'a'.
      model: anything.
      power: of the sum.
    """
    value = sum(coefficients.values()) ** power
    return value, Aux(
        {"loss": value, "is_model": isinstance(model, ModelDefaults)}, state
    )


def check(*, model, power):
    if power > 3:
        raise ConfigError(f"power {power} is too much for {type(model).__name__}")


class Plain(nn.Module):
    """Offers one method."""

    def infer(self, batch, key):
        z = DiagGaussian.standard(batch_size(batch), 1).sample(key)
        return Inference(z, z, z[:, 0])


MARKS = [
    objective(coefficients={"a": 2.0}, check=check),
    lambda f: with_check(check)(with_coefficients(a=2.0)(f)),  # as of 0.2.0
    lambda f: with_coefficients(a=2.0)(with_check(check)(f)),
]


@pytest.mark.parametrize("mark", MARKS, ids=["objective", "before", "turned round"])
def test_a_marked_function_has_defaults_and_checks_whoever_calls_it(mark, monkeypatch):
    marked = mark(body)
    monkeypatch.setitem(losses.LOSSES, "body", marked)
    direct = functools.partial(marked, {}, {}, KEY, {}, model=Plain())
    value, aux = direct({})
    assert (value, aux.metrics["is_model"]) == (4.0, True)
    assert direct({"a": 3.0}, power=1)[0] == 3.0
    assert losses.build("body", Plain(), a=5.0)({}, {}, KEY, BATCH, {})[0] == 25.0
    assert losses.coefficients_of(marked) == {"a": 2.0}
    assert [*losses.config_fields(marked)] == ["a", "power"]
    for wrong, words in (
        ({"power": 0}, "loss.power must be at least 1, got 0"),
        ({"power": 4}, "power 4 is too much for Plain"),
    ):
        with pytest.raises(ConfigError, match=words):
            direct({}, **wrong)
        with pytest.raises(ConfigError, match=words):
            losses.build("body", Plain(), **wrong)
    with pytest.raises(ConfigError, match="coefficient 'b' is unknown. Known: a"):
        direct({"b": 1.0})


def test_a_function_that_is_not_marked_is_an_objective_without_coefficients(
    monkeypatch,
):
    monkeypatch.setitem(losses.LOSSES, "body", body)
    loss = losses.build("body", Plain(), power=1)
    assert loss({}, {}, KEY, BATCH, {})[0] == 0.0
    with pytest.raises(ConfigError, match="loss.power must be at least 1"):
        losses.build("body", Plain(), power=0)


def test_methods_that_an_objective_needs_are_asked_for_by_either_way_in():
    needy = objective(needs=("infer", "likelihood"))(body)
    assert as_model(Plain()).offers("infer")
    with pytest.raises(ConfigError, match="'body' needs a model with likelihood"):
        needy({}, {}, KEY, {}, {}, model=Plain())


def test_a_collection_given_by_hand_is_there_at_the_next_step_too():
    state = {**STATE, TRAINING: {"heat": jnp.float32(5.0)}}
    for _ in range(2):
        arguments = ({}, state, KEY, BATCH, {})
        _, aux = losses.negative_elbo(*arguments, model=Told())
        assert aux.metrics["kl"] == 5.0
        state = aux.state
    assert state["batch_stats"]["steps"] == 2.0


class Deaf(Told):
    """Declares a coefficient and reads it where it was before."""

    def infer(self, batch, key):
        kl = batch.get("heat", jnp.zeros((batch_size(batch), 1)))
        return Inference(kl[:, 0], kl, kl[:, 0])


def test_a_model_that_reads_none_of_its_coefficients_is_warned_of(caplog):
    losses.build("elbo", Told())({}, STATE, KEY, BATCH, {})
    assert not caplog.records
    losses.build("elbo", Deaf())({}, STATE, KEY, BATCH, {})
    assert "Deaf does not read its heat" in caplog.text


def test_coefficients_of_a_model_are_told_too():
    assert losses.coefficients_of(Told()) == {"heat": 3.0}
    assert losses.coefficients_of(body) == {}


def test_a_default_out_of_range_is_refused_where_it_is_written():
    with pytest.raises(ConfigError, match="the coefficient a must be at least 0"):
        objective(coefficients={"a": -1.0})


def test_numpys_numbers_are_options_too():
    marked = objective()(body)
    assert marked({}, {}, KEY, {}, {}, model=Plain(), power=np.int64(2))[0] == 0.0


def test_the_collection_has_the_name_that_the_docs_give():
    assert TRAINING == "jvae_training"
