"""Runs of their own processes: long enough to be interrupted, compared with one."""

import pytest

from tests import runs


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """What one process of a session has compiled, the others need not."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.getbasetemp().parent / "compiled"
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    yield
    patch.undo()


@pytest.fixture
def long(tiny):
    """Steps that take seconds together, and checkpoints close to each other."""
    changes = {"num_steps": 4000, "eval_every_steps": 1000, "log_every_steps": 50}
    return tiny | changes | {"checkpoint_every_steps": 100}


@pytest.fixture
def config(long, tmp_path):
    """The config file of a long run."""
    return runs.write_config(tmp_path, long)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The workdir of a long run that nothing disturbed."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("whole")
    changes = {"num_steps": 4000, "eval_every_steps": 1000, "log_every_steps": 50}
    file = runs.write_config(folder, TINY | changes | {"checkpoint_every_steps": 100})
    assert runs.train(file, folder / "run").wait() == 0
    return folder / "run"
