"""What a process of a command does first, before heavy imports, and last."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from jvae.runtime import aborts, huge_pages, streams


def prepare_process(arguments: Sequence[str], computes_for_long: bool = True) -> None:
    """Prepares signals, streams, logs of C++ and memory.

    Args:
      arguments: of the command line.
      computes_for_long: whether it starts over with large pages of memory.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback out of the imports
    streams.open_closed()
    aborts.silence_stacks(arguments)
    if computes_for_long:
        huge_pages.use_large()


def end_process(status: int) -> NoReturn:
    """Ends the process with an exit status.

    Orbax leaves threads of a save that failed waiting for each other; Python would wait
    for them for minutes.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if any(type(t).__module__.startswith("orbax.") for t in threading.enumerate()):
        os._exit(status)
    sys.exit(status)
