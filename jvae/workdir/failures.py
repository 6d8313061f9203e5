"""What a read or a save that failed says about the files, in a few words.

Orbax and TensorStore answer with dozens of lines; a run says one.
"""

from __future__ import annotations

import errno
import json
import os

from jvae.errors import first_line

UNREADABLE = (ValueError, KeyError, OSError, TypeError, AttributeError, RecursionError)
"""What Orbax raises on files that are cut short, missing or garbage."""
TENSORSTORE = {
    "NOT_FOUND": "a data file is missing",
    "OUT_OF_RANGE": "a data file is cut short",
    "DATA_LOSS": "a data file is cut short or changed",
}
"""Its statuses of damage, in words."""
OUT_OF_REACH = (
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    os.strerror(errno.EAGAIN),  # no more threads
    os.strerror(errno.ENOMEM),
    os.strerror(errno.EMFILE),
)
"""What says nothing about the files: its statuses, and the system's limits."""


def is_failed_read(error: Exception) -> bool:
    """Returns whether Orbax could not read its files, rather than that it has a bug.

    Where parts of an array are missing it raises the bare class Exception.
    """
    return type(error) is Exception or isinstance(error, UNREADABLE)


def is_out_of_reach(error: BaseException) -> bool:
    """Returns whether files could not be read, rather than that they are damaged.

    The cause of an error counts too: Orbax wraps every error of the read of an array,
    such as a lack of memory or threads, in an Exception that says only which array.
    """
    missing = FileNotFoundError | NotADirectoryError | IsADirectoryError
    is_limit = isinstance(error, MemoryError | RuntimeError)
    if is_limit and not isinstance(error, RecursionError):  # that is of deep JSON
        return True
    if isinstance(error, OSError) and not isinstance(error, missing):
        return True
    if any(status in str(error) for status in OUT_OF_REACH):
        return True
    return error.__cause__ is not None and is_out_of_reach(error.__cause__)


def explained(error: Exception) -> str:
    """Returns what a failed read says, in a few words."""
    text = str(error)
    if type(error) is Exception:
        return "a data file is missing or cut short"
    kind, _, rest = text.partition(":")
    if "OCDBT" in rest:
        return TENSORSTORE.get(kind, "a data file is garbage")
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | RecursionError):
        return "a JSON file is garbage"
    if isinstance(error, OSError):
        return "a file is missing"
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0]).partition(". ")[0]
    return first_line(text or error)


def failed_save(error: Exception) -> str:
    """Returns why a save failed, in a few words."""
    text = str(error)
    is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if is_full or "RESOURCE_EXHAUSTED" in text:
        return "no space left on device"
    return first_line(error)
