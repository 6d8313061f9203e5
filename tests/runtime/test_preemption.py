"""Signals that ask a run to stop."""

import os
import signal

import pytest

from jvae.errors import StoppedError
from jvae.runtime.preemption import StopSignal


@pytest.fixture(autouse=True)
def terminal():
    """Tests may run under `nohup` themselves."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_is_a_request_with_its_exit_code(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop.is_requested(lambda _: False)
        os.kill(os.getpid(), number)
        assert stop.is_requested(lambda _: False)
        with pytest.raises(StoppedError, match=f"stopped by {name}") as stopped:
            stop.check()
        assert stopped.value.exit_code == stop.exit_code == 128 + number
    assert signal.getsignal(number) == before


def test_a_closed_terminal_is_ignored_where_it_was_before():
    """As `nohup` asks for."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.is_requested(lambda _: False)
