import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae.errors import ConfigError
from jvae.training import schedules


def test_a_line_goes_from_start_to_end_and_stays():
    capacity = schedules.linear(end=100.0, steps=100)
    assert [float(capacity(s)) for s in (0, 10, 100, 101)] == [0.0, 10.0, 100.0, 100.0]
    warm_up = schedules.linear(end=1.0, steps=50)
    assert [float(warm_up(s)) for s in (25, 50, 500)] == [0.5, 1.0, 1.0]


def test_cycles_rise_stay_and_begin_again():
    beta = schedules.cyclic(end=2.0, steps=10, start=1.0, rising=0.5)
    values = [float(beta(s)) for s in range(20)]
    expected = [1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.0, 2.0, 2.0, 2.0] * 2
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_temperature_falls_exponentially_to_its_end():
    """tau_t = 0.01 + 0.99 * 0.999^t, also after 20,000 steps in float32."""
    tau = schedules.exponential(end=0.01, decay=0.999)
    steps = np.array([0, 1, 600, 3000, 20_000])
    wanted = 0.01 + 0.99 * 0.999 ** steps.astype(np.float64)
    found = [float(tau(jnp.int32(s))) for s in steps]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose([found[2], found[3]], [0.553, 0.059], atol=1e-3)
    assert float(schedules.exponential(end=2.0, decay=0.5, start=4.0)(1)) == 3.0


def test_the_end_is_the_value_in_the_loss():
    annealed = schedules.build({"beta": {"name": "linear", "steps": 4}}, {"beta": 3.0})
    np.testing.assert_allclose([annealed(s)["beta"] for s in (0, 2, 4)], [0, 1.5, 3])


@pytest.mark.parametrize(
    "section, words",
    [
        ({"bta": {"name": "linear", "steps": 4}}, "Did you mean 'beta'"),
        ({"beta": {"name": "liner", "steps": 4}}, "Did you mean 'linear'"),
        ({"beta": {"name": "linear", "step": 4}}, "Did you mean 'steps'"),
        ({"beta": {"name": "linear", "steps": 0}}, "at least 1"),
        ({"beta": {"name": "cyclic", "steps": 5, "rising": 0.0}}, "within"),
        ({"beta": {"steps": 4}}, "unknown"),
        ({"beta": {"name": "exponential", "decay": 1.0}}, "decay must be within"),
        ({"beta": {"name": "exponential"}}, "decay is missing"),
    ],
)
def test_what_cannot_be_right_is_refused(section, words):
    with pytest.raises(ConfigError, match=words):
        schedules.build(section, {"beta": 1.0})


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_a_schedule_promotes_no_dtypes_and_is_the_same_with_64_bits(name):
    fields = {"linear": {"steps": 3}, "cyclic": {"steps": 3}, "exponential": {}}[name]
    section = {"beta": {"name": name, **fields}}
    if name == "exponential":
        section["beta"]["decay"] = 0.9
    schedule, step = schedules.build(section, {"beta": 0.5}), jnp.int32(2)
    wanted = schedule(step)["beta"]
    for switch in (jax.enable_x64(True), jax.numpy_dtype_promotion("strict")):
        with switch:
            found = schedule(step)["beta"]
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
