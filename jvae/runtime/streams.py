"""Standard streams whose write errors do not end a command.

A run continues when its terminal is closed, `| head` exits, or the disk that holds its
log is full. Only the output is lost.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from jvae.runtime.log_filters import redirect_to_devnull

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_closed() -> None:
    """Opens standard streams that the shell closed, for example with `2>&-`.

    Must run before any file is opened: the file would get the descriptor of the stream,
    and everything that is printed.
    """
    for number, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(null, True)  # as this process may start over
            setattr(sys, name, open(null, mode, closefd=False))


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """A context in which a write to stdout or stderr never fails."""
    with (
        contextlib.redirect_stdout(_Lasting(sys.stdout)),
        contextlib.redirect_stderr(_Lasting(sys.stderr)),
    ):
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()


class _Lasting(io.TextIOBase):
    """A stream that sends what it cannot write to nowhere."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return self._stream.encoding

    @property
    def buffer(self) -> Any:
        """The stream of bytes below."""
        return self._stream.buffer

    def fileno(self) -> int:
        """Returns the number of the stream."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Returns whether somebody looks on."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, text: str) -> int:
        """Writes text, if that is still possible."""
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Sends on what was written."""
        self._attempt(self._stream.flush)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, ValueError):  # ValueError of a stream that was closed
            redirect_to_devnull(self._stream)
