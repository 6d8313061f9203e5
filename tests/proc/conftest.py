"""Runs of their own processes: long enough to be interrupted, compared with one."""

import pytest

from tests import runs
from tests.conftest import TINY


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory):
    """What one process of a session has compiled, the others need not."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.getbasetemp().parent / "compiled"
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    yield
    patch.undo()


LONG = {
    "num_steps": 2000,
    "eval_every_steps": 500,
    "log_every_steps": 50,
    "checkpoint_every_steps": 100,
}
"""Steps that take seconds together, and checkpoints close to each other."""


@pytest.fixture
def long(tiny):
    """The config of a long run."""
    return tiny | LONG


@pytest.fixture
def config(long, tmp_path):
    """The config file of a long run."""
    return runs.write_config(tmp_path, long)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The workdir of a long run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    file = runs.write_config(folder, TINY | LONG)
    assert runs.train(file, folder / "run").wait() == 0
    return folder / "run"
