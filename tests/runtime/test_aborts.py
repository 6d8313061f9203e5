"""How a process ends that JAX aborts. The whole way is in proc/test_processes.py."""

import os
import subprocess
import sys

import pytest

from jvae.runtime import aborts


@pytest.mark.parametrize(
    ("arguments", "before", "after"),
    [
        (["--coordinator=h:1"], None, "4"),
        (["--config=x", "--distributed"], "1", "4"),
        (["--process_id", "0"], "0", "0"),  # which a user has chosen
        (["--process_id", "0", "--debug"], None, None),
        (["--config=x"], None, None),
        ([], "1", "1"),
    ],
)
def test_stacks_are_silenced_in_runs_of_several_processes_alone(
    monkeypatch, arguments, before, after
):
    monkeypatch.delenv(aborts.LOG_LEVEL, raising=False)
    if before is not None:
        monkeypatch.setenv(aborts.LOG_LEVEL, before)
    aborts.silence_stacks(arguments)
    assert os.environ.get(aborts.LOG_LEVEL) == after
    monkeypatch.setenv(aborts.LOG_LEVEL, "1")  # so that it is restored


ABORTING = """
import ctypes, threading, time
from jvae.runtime import aborts
aborts.become_device_errors()
abort = ctypes.CDLL(None).abort
{how}
time.sleep(30)
"""


@pytest.mark.parametrize(
    "how",
    [
        "ctypes.CDLL(None).abort()",
        "threading.Thread(target=ctypes.CDLL(None).abort).start()",
    ],
    ids=["main thread", "another thread"],
)
def test_an_abort_is_one_line_and_exit_6(how):
    """Fast: what is started imports no JAX."""
    ended = subprocess.run(
        [sys.executable, "-c", ABORTING.format(how=how)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 6
    assert ended.stderr == aborts.MESSAGE and ended.stderr.count("\n") == 1
