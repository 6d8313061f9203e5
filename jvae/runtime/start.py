"""What a process of a command does first, before anything heavy is imported."""

from __future__ import annotations

import signal
from collections.abc import Sequence

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
