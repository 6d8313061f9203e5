"""Systems under JAX's switches: trained, restored, evaluated, the same numbers.

In the slow tier, and of one system of each kind of data, latents and evaluation: all
are traced in both precisions by models/test_precision.py, and all objectives computed
under each switch by losses/test_switches.py.
"""

import copy

import chex
import jax
import numpy as np
import pytest

import jvae
from jvae.reports.run import evaluate_run
from jvae.training import experiment
from tests.conftest import TINY
from tests.systems.test_every_system import (
    GRAMMAR,
    OF_LEVELS,
    SENTENCES,
    SYSTEMS,
    WITHOUT_DATA,
)

SWITCHES = {
    "64 bits": {"jax_enable_x64": True},
    "checks": {
        "jax_debug_key_reuse": True,
        "jax_numpy_dtype_promotion": "strict",
        "jax_debug_nans": True,
    },
}
BEFORE = {
    "jax_enable_x64": False,
    "jax_debug_key_reuse": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_debug_nans": False,
}
CHOSEN = {
    "plain": ("64 bits", "checks"),
    "text": ("64 bits", "checks"),
    "nice": ("64 bits",),
    "infomax": ("64 bits",),
}
# Adam and cosine schedules of optax divide integers by floats.
OPTIMIZER = {"name": "rmsprop", "learning_rate": 1e-3, "warmup_steps": 1}
QUICK = {"num_samples": 3, "chunk_size": 2, "num_examples": 40, "num_images": 4}


def config_of(name):
    """Returns the config of a system, two steps long."""
    config = copy.deepcopy(TINY)
    config["model"], config["loss"] = copy.deepcopy(SYSTEMS[name])
    if name in WITHOUT_DATA:
        config["data"]["transform"] = "signed"
    if name in OF_LEVELS:
        config["data"] |= {"transform": "levels", "num_bits": 4}
    if name == "fvae":
        config["data"] |= {"transform": "dequantize", "padding": 2}
    if name in SENTENCES:
        config["data"] = copy.deepcopy(GRAMMAR)
    steps = {"num_steps": 2, "eval_every_steps": 1, "checkpoint_every_steps": 2}
    return config | steps | {"optimizer": OPTIMIZER}


@pytest.fixture
def turn():
    """Sets switches for all threads, as their environment variables do; then back."""

    def set_all(switches):
        for name, value in switches.items():
            jax.config.update(name, value)

    yield set_all
    set_all(BEFORE)


def numbers(workdir):
    """Returns the values of an evaluation by name."""
    results = evaluate_run(workdir, batch_size=32, **QUICK)
    return {name: row["value"] for name, row in results["metrics"].items()}


def weights(workdir):
    """Returns the parameters and collections of a run's last step, in numpy."""
    model = jvae.restore(workdir, step="last")
    return jax.device_get((model.params, model.state))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CHOSEN)
def test_a_system_is_the_same_under_the_switches(name, turn, tmp_path):
    config = config_of(name)
    experiment.run(config, tmp_path / "plain")
    wanted = numbers(tmp_path / "plain")

    for kind in CHOSEN[name]:
        turn(SWITCHES[kind])
        experiment.run(config, tmp_path / kind)
        found, after = numbers(tmp_path / "plain"), weights(tmp_path / kind)
        turn(BEFORE)

        assert {str(a.dtype) for a in jax.tree.leaves(after)} == {"float32"}
        assert found.keys() == wanted.keys()
        for metric, value in wanted.items():
            text = f"{metric}, {kind}"
            np.testing.assert_allclose(found[metric], value, rtol=1e-4, err_msg=text)
        chex.assert_trees_all_equal(weights(tmp_path / kind), after)
