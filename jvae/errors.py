"""What can go wrong, each kind with the exit status of the command line.

Every message is one line: `<what> (<where>). <how to fix>`. Ranges read
`<what> must <rule>, got <value>.`
"""

from __future__ import annotations

import difflib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

LONGEST = 2_000
"""Characters of a message; of a longer one the middle is left out."""
UNREADABLE_NPZ = (
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise at damaged, encrypted or foreign .npy and .npz files."""


class JvaeError(Exception):
    """An error that is not a bug: the message says what to do about it.

    Args:
      what: what is wrong, without a full stop.
      where: the file, field or step that it is about.
      fix: what to do, a sentence.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = ""):
        self.what, self.where, self.fix = what, where, fix
        message = what.rstrip(".") + (f" ({where})" if where else "") + "."
        super().__init__(_one_line(message + (f" {fix}" if fix else "")))


def _one_line(message: str) -> str:
    """Returns a message as one line of any terminal, whatever values it quotes."""
    line = " ".join(message.split())
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class ConfigError(JvaeError, ValueError):
    """A field, flag or argument that cannot be right."""

    exit_code = 2


class DataError(JvaeError, ValueError):
    """A data set that is missing, damaged or not what it was said to be."""

    exit_code = 3


class WorkdirError(JvaeError):
    """A workdir or checkpoint that is missing, in use, damaged or of another run."""

    exit_code = 4


class DamagedError(WorkdirError):
    """A checkpoint whose files are not what was written."""


class AloneError(WorkdirError):
    """A failure that the other processes of a run do not know of, and will wait for."""


class DivergedError(JvaeError):
    """Training whose updates were all skipped for a while."""

    exit_code = 5


class DeviceError(JvaeError):
    """Devices, processes or memory that are not there."""

    exit_code = 6


class StoppedError(JvaeError):
    """A run that was asked to stop, and has saved.

    Args:
      what: by what, and at which step.
      exit_code: 128 + the number of the signal.
    """

    def __init__(self, what: str, *, exit_code: int):
        super().__init__(f"{what}; run the same command to go on")
        self.exit_code = exit_code


class IncompleteError(JvaeError):
    """A sweep some of whose runs have failed; the others are done.

    Args:
      what: how many, and the error of the first.
      exit_code: that of the first.
    """

    def __init__(self, what: str, *, exit_code: int):
        super().__init__(what, fix="The table has the others, and all errors.")
        self.exit_code = exit_code


def require(condition: bool, what: str, rule: str, value: Any) -> None:
    """Raises ConfigError "<what> must <rule>, got <value>." unless `condition`."""
    if not condition:
        raise ConfigError(f"{what} must {rule}, got {value!r}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns 'Did you mean X? Known: ...', the hint for a name nobody knows."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}Known: {', '.join(names) or 'none'}."


def require_data(holds: bool, what: str, rule: str, found: Any, **more: str) -> None:
    """Raises DataError "<what> must <rule>, got <found>." unless the rule `holds`.

    Args:
      holds: whether data is as it must be.
      what: the array or number that the rule is about.
      rule: 'be ...', what must hold.
      found: what was found.
      **more: `where` and `fix` of the error.
    """
    if not holds:
        raise DataError(f"{what} must {rule}, got {found}", **more)


def first_line(error: BaseException | str) -> str:
    """Returns the first line of a message, at most 200 characters of it."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
