"""How a run is asked to stop: SIGTERM, SIGHUP, Ctrl-C, or a notice to one process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jvae.errors import StoppedError


class StopSignal:
    """Turns signals into a request that the training loop reads between two steps.

    In a run of one process this is a Python handler. In one of several it is JAX's own
    preemption notice, by which all processes agree on the step to stop at; a Python
    handler of SIGTERM would switch that off, so there is none, and Ctrl-C and SIGHUP
    (of a terminal that was closed) are passed on as SIGTERM. A second Ctrl-C ends the
    process at once.

    Use as a context: handlers are those of before afterwards. Away from the main
    thread, where Python allows no handlers, nothing is listened to.
    """

    def __init__(self):
        self.signal: int | None = None
        self._num_asked = 0
        self._is_at_once = False
        self._is_distributed = jax.distributed.is_initialized()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        """Begins to listen."""
        if threading.current_thread() is threading.main_thread():
            mine = [signal.SIGINT]
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
                mine.append(signal.SIGHUP)
            if not self._is_distributed:
                mine.append(signal.SIGTERM)
            self._before = {s: signal.signal(s, self._on_signal) for s in mine}
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: object) -> None:
        if number == signal.SIGINT and self.signal is not None:
            os._exit(128 + number)
        self.signal = self.signal or number
        if self._is_distributed:
            os.kill(os.getpid(), signal.SIGTERM)
        if self._is_at_once:
            self.check()

    def check(self) -> None:
        """Raises StoppedError if a signal has come; for where all is saved."""
        if self.signal is not None:
            raise StoppedError(f"stopped by {self.name}", exit_code=self.exit_code)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context with nothing to save, which a signal ends by a StoppedError.

        In a run of several processes it does nothing, as they stop together: they ask
        `is_requested` between two batches.
        """
        if self._is_distributed:
            yield
            return
        self.check()
        self._is_at_once = True
        try:
            yield
        finally:
            self._is_at_once = False
        self.check()  # an exception out of a handler may be lost, in a callback of C

    def is_requested(self, reached: Callable[[int], bool]) -> bool:
        """Returns whether to stop now; all processes ask at the same places.

        Args:
          reached: `Checkpoints.reached_preemption`. Processes agree on the next number
            that none has asked for yet, so the numbers grow by one.
        """
        if not self._is_distributed:
            return self.signal is not None
        self._num_asked += 1
        return reached(self._num_asked)

    @property
    def name(self) -> str:
        """'SIGTERM', 'SIGHUP' or 'SIGINT', what this process was asked by."""
        return signal.Signals(self.signal or signal.SIGTERM).name

    @property
    def exit_code(self) -> int:
        """128 + the signal's number: 143, 129 or 130."""
        return 128 + (self.signal or signal.SIGTERM)
