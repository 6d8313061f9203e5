"""Keeps off the screen what libraries print about failures that are handled here."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def below(level: int) -> Iterator[None]:
    """A context in which Orbax, which logs through absl, says nothing below `level`."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@functools.cache
def abandoned_reads() -> None:
    """Silences the other reads of a checkpoint, once one of them has failed.

    Orbax reads all arrays at once and closes its event loop at the first failure. The
    others then have nowhere to report to, which Python prints for each of them, at any
    later time; hence for the rest of the process, and nothing but that.
    """
    hook = sys.unraisablehook

    def unless_abandoned(unraisable: Any) -> None:
        is_closed = str(unraisable.exc_value) == "Event loop is closed"
        if not is_closed and "coroutine object _read_array" not in repr(
            unraisable.object
        ):
            hook(unraisable)

    sys.unraisablehook = unless_abandoned
    logging.getLogger("asyncio").addFilter(_is_wanted)
    warnings.filterwarnings("ignore", "coroutine '_read_array", RuntimeWarning)


def _is_wanted(record: logging.LogRecord) -> bool:
    """Returns False for a failed read of TensorStore that nobody waited for."""
    if "exception was never retrieved" not in record.getMessage():
        return True
    error = record.exc_info[1] if record.exc_info else None
    return not any(word in str(error) for word in ("TensorStore", "OCDBT"))
