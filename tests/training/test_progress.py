"""A screen that is gone does not stop a run; the time of its steps."""

import sys

import jax.numpy as jnp

from jvae.training import progress as module
from jvae.training.progress import Progress, StepTimer


class Closed:
    """A terminal that is gone."""

    def isatty(self):
        return False

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")

    flush = write

    def fileno(self):
        raise ValueError


def test_a_screen_that_is_gone_does_not_stop_a_run(monkeypatch, capsys):
    progress = Progress(0, 10)
    progress.report(1, {"elbo": -1.0})
    assert "step 1/10  elbo -1.00" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", Closed())
    for step in (2, 3):
        progress.report(step, {"elbo": -1.0})
    progress.close()


def test_a_bar_whose_terminal_is_gone_ends(monkeypatch):
    class Terminal(Closed):
        def isatty(self):
            return True

        def write(self, text):
            if "said" in text:
                refused.append(text)
                raise OSError(5, "Input/output error")
            return len(text)

        def flush(self):
            pass

    refused = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    progress = Progress(0, 10)
    progress.report(1, {"elbo": -1.0})
    for _ in range(3):
        progress.say("said")
    progress.report(5, {"elbo": -1.0})
    progress.close()
    assert len(refused) == 1


def test_a_timer_counts_training_and_not_its_pauses(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    timer = StepTimer()
    now[0] += 4.0
    assert timer.lap(10) == {"seconds": 4.0}
    timer.stop(jnp.zeros(()))
    now[0] += 50.0
    timer.go()
    now[0] += 6.0
    assert timer.lap(40) == {"seconds": 10.0, "examples_per_second": 5.0}
    assert timer.lap(40) == {"seconds": 10.0}  # no time has passed
    now[0] += 2.0
    assert timer.lap(50) == {"seconds": 12.0, "examples_per_second": 5.0}
