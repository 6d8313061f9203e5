"""What a run keeps, where whole runs and damaged ones do not say it."""

import shutil

import jax.numpy as jnp
import pytest

from jvae.errors import WorkdirError
from jvae.training import config as configs
from jvae.training.run_checkpoints import RunCheckpoints
from jvae.training.train_step import Guard, TrainState
from tests.conftest import TINY


def state(value):
    params = {"w": jnp.full(3, value)}
    return TrainState(jnp.int32(1), params, (), {}, None, Guard.new())


CONFIG = configs.parse_experiment(TINY).to_dict()


@pytest.fixture
def checkpoints(tmp_path):
    kept = RunCheckpoints(tmp_path, CONFIG, num_examples=7, keep=2)
    yield kept
    kept.close()


def test_what_is_saved_says_which_run_it_is_of(checkpoints):
    checkpoints.save(1, state(0.5))
    checkpoints.save_if_best(1, state(0.5), -3.0)
    checkpoints.wait()
    for folder in (checkpoints.states, checkpoints.best):
        meta = folder.read_meta(1)
        assert (meta["config"], meta["num_examples"]) == (CONFIG, 7)
    assert checkpoints.best.read_meta(1)["score"] == -3.0
    (restored,) = checkpoints.restored(state(0.0)).params.values()
    assert restored.tolist() == [0.5] * 3


@pytest.mark.parametrize("folder", ["states", "best"])
def test_the_last_save_of_either_kind_that_fails_is_an_error(
    checkpoints, monkeypatch, folder
):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(getattr(checkpoints, folder)._manager, "save", full)
    checkpoints.save(1, state(0.5))
    checkpoints.save_if_best(1, state(0.5), -3.0)
    with pytest.raises(WorkdirError, match="no space left on device"):
        checkpoints.wait()


def test_the_best_model_of_another_run_is_refused_before_it_is_compared_with(
    checkpoints, tmp_path
):
    checkpoints.save(1, state(0.5))
    checkpoints.save_if_best(1, state(0.5), -3.0)
    checkpoints.wait()
    shutil.rmtree(tmp_path / "checkpoints")
    other = RunCheckpoints(tmp_path, CONFIG | {"seed": 99}, num_examples=7, keep=2)
    with pytest.raises(WorkdirError, match=r"other config: seed: .*best/1"):
        other.restored(state(0.0))
    other.close()
