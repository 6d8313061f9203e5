"""One line and an exit status where JAX aborts a process.

When another process is lost, JAX's coordination service logs a stack trace and calls
abort() from a C++ thread, without running Python code. A handler of SIGABRT replaces
the trace by the message and exit status of a DeviceError.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Sequence

from jvae.errors import DeviceError

DISTRIBUTED = ("--distributed", "--coordinator", "--num_processes", "--process_id")
"""Flags of a run of several processes."""
LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
MESSAGE = (
    "jvae: error: JAX has ended this process; most often another one is gone, silent "
    "or never came. Run the same command again; it goes on from the last checkpoint. "
    "--debug shows what JAX says.\n"
)


def silence_stacks(arguments: Sequence[str]) -> None:
    """Keeps JAX's logs of C++ off the screen, where they end a run of many processes.

    Must come before JAX is imported. What a user has chosen stays; 1 is what JAX puts
    into the environment of whoever imports it.

    Args:
      arguments: of the command line.
    """
    is_distributed = any(a.partition("=")[0] in DISTRIBUTED for a in arguments)
    is_chosen = os.environ.get(LOG_LEVEL, "1") != "1"
    if is_distributed and not is_chosen and "--debug" not in arguments:
        os.environ[LOG_LEVEL] = "4"


_left_to_say = [MESSAGE.encode()]


def say_no_more() -> None:
    """From now on an abort says nothing, as the command has said its error."""
    _left_to_say.clear()


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _leave(_: int) -> None:
    os.write(2, b"".join(_left_to_say))
    os._exit(DeviceError.exit_code)


def become_device_errors() -> None:
    """From now on an abort of this process is one line and the status of DeviceError.

    A handler of Python's would come too late: it runs between two bytecodes of the main
    thread, and abort() does not wait for that.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, type(_leave)]
    libc.signal(signal.SIGABRT, _leave)
