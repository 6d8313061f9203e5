"""Keeps off the screen what libraries print about failures that are handled here.

A failed read or write of a checkpoint is raised where it is waited for, and a run says
it in one line. Orbax and TensorBoard print it besides, as tracebacks of their threads.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import inspect
import logging
import os
import re
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

MISSING = ("Unable to find the step", "Metadata file does not exist")
"""What Orbax says where somebody has removed a folder."""


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
def background_failures() -> None:
    """Silences these tracebacks for the rest of the process, and nothing but them.

    Orbax reads and writes all arrays at once and closes its event loop at the first
    failure. The others then have nowhere to report to, which Python prints for each of
    them, whenever it happens.
    """
    sys.unraisablehook = _filtered(sys.unraisablehook, _is_abandoned)
    threading.excepthook = _filtered(threading.excepthook, _is_event_file)
    names = "|".join(sorted(map(re.escape, _coroutines_of("orbax"))))
    never_awaited = f"coroutine '({names})' was never awaited"
    warnings.filterwarnings("ignore", never_awaited, RuntimeWarning)
    logging.getLogger("asyncio").addFilter(lambda record: not _is_lost(record))
    logging.getLogger("absl").addFilter(lambda record: not _is_of_orbax(record))


def _filtered(hook: Any, is_known: Any) -> Any:
    return lambda arguments: None if is_known(arguments) else hook(arguments)


def _coroutines_of(package: str) -> set[str]:
    """Returns the names of all coroutine functions in a package's loaded modules."""
    names: set[str] = set()

    def members(owner: Any) -> list[Any]:
        return [*vars(owner).values()]

    def visit(code: types.CodeType) -> None:
        if code.co_flags & inspect.CO_COROUTINE:
            names.add(code.co_qualname)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                visit(constant)

    for name, module in [*sys.modules.items()]:
        if name.partition(".")[0] != package or module is None:
            continue
        for value in members(module):
            for member in (value, *(members(value) if inspect.isclass(value) else ())):
                if inspect.isfunction(member):
                    visit(member.__code__)
    return names


def _is_abandoned(unraisable: Any) -> bool:
    """Returns whether it is a coroutine of Orbax whose event loop is closed."""
    dropped = unraisable.object
    is_of_orbax = inspect.iscoroutine(dropped) and _is_in_orbax(dropped.cr_code)
    return is_of_orbax or str(unraisable.exc_value) == "Event loop is closed"


def _is_event_file(arguments: Any) -> bool:
    """Returns whether TensorBoard's thread could not write; its caller is told too."""
    module = type(arguments.thread).__module__
    return module.startswith("tensorboard.") and issubclass(arguments.exc_type, OSError)


def _is_lost(record: logging.LogRecord) -> bool:
    """Returns whether it is a failure of Orbax or TensorStore nobody waited for."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None or "exception was never retrieved" not in record.getMessage():
        return False
    frames = traceback.walk_tb(error.__traceback__)
    is_of_orbax = any(_is_in_orbax(frame.f_code) for frame, _ in frames)
    return is_of_orbax or any(word in str(error) for word in ("TensorStore", "OCDBT"))


def _is_in_orbax(code: types.CodeType) -> bool:
    """Returns whether code is of a file of Orbax."""
    return "orbax" in Path(code.co_filename).parts


_failed_saves: collections.deque[Exception] = collections.deque(maxlen=1)


def save_failure() -> Exception | None:
    """Returns the error that a thread of Orbax has last logged, once; None of none.

    Of several processes Orbax raises the error only after a barrier, at which the
    others do not arrive, as they wait for the part that was not written.
    """
    return _failed_saves.pop() if _failed_saves else None


def _is_of_orbax(record: logging.LogRecord) -> bool:
    """Returns whether it is of a thread that saves: a traceback, a folder it misses."""
    error = record.exc_info[1] if record.exc_info else None
    if record.threadName == "async_save" and isinstance(error, Exception):
        _failed_saves.append(error)
    misses = any(words in record.msg for words in MISSING) if record.args else False
    return "orbax" in record.pathname and (bool(record.exc_info) or misses)


def redirect_to_devnull(stream: TextIO) -> None:
    """Sends what is still written to a stream that nobody reads to nowhere.

    For `train.py | head`: the run goes on, and Python's own flush at exit succeeds.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
