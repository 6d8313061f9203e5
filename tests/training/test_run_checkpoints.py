"""What a run keeps, where whole runs and damaged ones do not say it."""

import shutil

import jax.numpy as jnp
import pytest

from jvae.errors import WorkdirError
from jvae.training import config as configs
from jvae.training.run_checkpoints import RunCheckpoints
from jvae.training.train_step import Guard, TrainState
from jvae.workdir.checkpoints import choose
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


def test_a_run_keeps_its_identity_and_another_one_of_its_config_has_its_own(tmp_path):
    identities = []
    for name, value in (("one", 0.0), ("one", 0.5), ("other", 0.0)):
        run = RunCheckpoints(tmp_path / name, CONFIG, num_examples=7, keep=2)
        run.restored(state(0.0))
        step = len(identities) + 1
        run.save(step, state(value))
        run.save_if_best(step, state(value), float(step))
        run.wait()
        run.close()
        identities += [f.read_meta(step)["run"] for f in (run.states, run.best)]
    one, other = identities[:4], identities[4:]
    assert len(set(one)) == len(set(other)) == 1 and one[0] != other[0]
    shutil.rmtree(tmp_path / "one" / "best")
    shutil.copytree(tmp_path / "other" / "best", tmp_path / "one" / "best")
    again = RunCheckpoints(tmp_path / "one", CONFIG, num_examples=7, keep=2)
    with pytest.raises(WorkdirError, match="best model there is of another run"):
        again.restored(state(0.0))
    again.close()
    for step in ("best", "last"):
        with pytest.raises(WorkdirError, match="best model there is of another run"):
            choose(tmp_path / "one", step)
    assert choose(tmp_path / "other", "best")[1] == 5
    assert choose(tmp_path / "one", 3)[1] == 3  # which is asked for by its number


def test_a_best_model_that_came_before_the_first_checkpoint_names_the_run(tmp_path):
    first = RunCheckpoints(tmp_path, CONFIG, num_examples=7, keep=2)
    first.restored(state(0.0))
    first.save_if_best(1, state(0.5), 1.0)
    first.close()
    again = RunCheckpoints(tmp_path, CONFIG, num_examples=7, keep=2)
    assert again.restored(state(0.0)) is None
    again.save(2, state(0.5))
    again.close()
    assert choose(tmp_path, "best")[1] == 1


def test_a_best_model_of_a_later_step_stays_after_a_fallback(checkpoints):
    """The steps up to it are done again, perhaps on other devices."""
    checkpoints.save_if_best(3, state(0.5), 1.0)
    for step in (2, 3):
        checkpoints.save_if_best(step, state(0.7), 1.5)
    checkpoints.wait()
    assert checkpoints.best.steps() == [3]
    checkpoints.save_if_best(4, state(0.7), 1.5)
    checkpoints.wait()
    assert checkpoints.best.steps() == [4]
