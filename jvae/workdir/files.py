"""Files of a workdir that must survive: whole writes, lines one by one.

A folder has append, rename and flock. A bucket (gs://, s3://) has none of them: an
object is written whole, and may be created only if it is not there yet. Whatever needs
one or the other is here and in `locks`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Iterable

from etils import epath

from jvae.errors import WorkdirError

logger = logging.getLogger("jvae")


def is_bucket(path: epath.PathLike) -> bool:
    """Returns whether a path is in an object store, as 'gs://name/run' is."""
    return "://" in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a path that is not relative and has no ~, as Orbax must have it.

    Raises:
      WorkdirError: its name is not text, as of another locale, or that of a file
        system that is not known.
    """
    if is_bucket(path):
        return _bucket(path)
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise WorkdirError(
            "the name of this folder is not UTF-8, or the locale is not",
            where=ascii(os.fspath(path)),
            fix="Set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or use another name.",
        ) from error
    return epath.Path(os.path.join(os.getcwd(), os.path.expanduser(path)))


def _bucket(path: epath.PathLike) -> epath.Path:
    """Returns the path of an object store."""
    try:
        return epath.Path(path)
    except KeyError as error:  # what etils raises at a name of its own
        raise WorkdirError(
            f"there is no file system {os.fspath(path).partition('://')[0]}://",
            where=os.fspath(path),
            fix="Name a folder, or a bucket such as gs://NAME/RUN.",
        ) from error


def write_whole(path: epath.Path, content: str | bytes) -> None:
    """Writes a file so that a reader, or a crash, sees the old or the new content.

    A link of that name is replaced by the file; what it led to stays as it is.

    Raises:
      OSError: it cannot be written; nothing half written is left.
    """
    blob = content.encode() if isinstance(content, str) else content
    if is_bucket(path):
        path.write_bytes(blob)  # an object appears when it is complete
        return
    new = path.parent / f"{path.name}.new"
    new.unlink(missing_ok=True)  # of a crash, or a link to somewhere else
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        with open(os.open(new, flags, 0o666), "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError as error:  # of a write alone Python names no file
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def is_own(path: epath.Path) -> bool:
    """Returns whether there is a file of that name: no link, folder or pipe."""
    if is_bucket(path):
        return path.exists()
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def is_own_folder(path: epath.Path) -> bool:
    """Returns whether there is a folder of that name: no link to one."""
    return path.is_dir() and (is_bucket(path) or not os.path.islink(path))


def check_within(folder: epath.Path, root: epath.Path) -> None:
    """Checks that no link leads from a run's folder to another place.

    Args:
      folder: below `root`; need not be there yet.
      root: the run's folder, which may be a link itself.

    Raises:
      WorkdirError: a folder on the way is a link.
    """
    place = root
    for part in folder.relative_to(root).parts:
        place = place / part
        if not is_bucket(place) and os.path.islink(place):
            raise WorkdirError(
                "this is a link, which may lead out of the run",
                where=str(place),
                fix="Remove it, or name another folder.",
            )


def check_files(folder: epath.Path) -> None:
    """Checks that there are files and folders alone in a folder, which may be missing.

    Raises:
      WorkdirError: a link, which may lead elsewhere, or a pipe or device, which may
        have no end.
    """
    places = [] if is_bucket(folder) else [("", [folder], []), *os.walk(folder)]
    for place, folders, names in places:
        for name in (*folders, *names):
            _require_own(os.path.join(place, name))


def _require_own(path: epath.PathLike) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise WorkdirError(
            "this is no file but a link, a pipe or a device",
            where=os.fspath(path),
            fix="Remove it, or put a file in its place.",
        )


def read_own(path: epath.Path) -> str:
    """Returns the text of a file of a run; garbage is no error.

    Raises:
      OSError: it is not there, or cannot be read.
      WorkdirError: it is a link, a pipe or a device.
    """
    if not is_bucket(path):
        _require_own(path)
    return path.read_bytes().decode(errors="replace")


def read_text(path: epath.Path) -> str | None:
    """Returns `read_own` of a file, None if it is not there."""
    try:
        return read_own(path)
    except FileNotFoundError:
        return None


class FolderLines:
    """A file of lines that grows by appending, each line readable at once.

    Args:
      file: such as WORKDIR/metrics.jsonl.
      lines: what it begins with, in place of what is there.
    """

    def __init__(self, file: epath.Path, lines: Iterable[str]):
        write_whole(file, "".join(line + "\n" for line in lines))
        self._handle = open(file, "a", encoding="utf-8")  # noqa: SIM115

    def append(self, line: str) -> None:
        """Adds a line."""
        self._handle.write(line + "\n")
        self._handle.flush()

    def flush(self) -> None:
        """Returns when all lines would survive a loss of power."""
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def close(self) -> None:
        """Ends the file."""
        self._handle.close()


class BucketLines:
    """Lines in objects of up to a thousand, the last one written anew as it grows.

    Args:
      file: WORKDIR/metrics.jsonl names the parts WORKDIR/metrics.jsonl.parts/N.
      lines: what it begins with, in place of what is there.
    """

    LINES, SECONDS = 1000, 10.0

    def __init__(self, file: epath.Path, lines: Iterable[str]):
        self._folder = _parts_of(file)
        old = _part_names(self._folder)
        # The new part is complete before the old ones go; lines in both are read once.
        self._number = 1 + max((int(name) for name in old), default=-1)
        self._lines, self._written = list(lines), time.monotonic()
        self.flush()
        for name in old:
            (self._folder / name).unlink()

    def append(self, line: str) -> None:
        """Adds a line; it is in the bucket within some seconds, or after `flush`."""
        if len(self._lines) >= self.LINES:
            self.flush()
            self._number, self._lines = self._number + 1, []
        self._lines.append(line)
        if time.monotonic() - self._written > self.SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the part that is growing."""
        text = "".join(line + "\n" for line in self._lines)
        (self._folder / f"{self._number:08d}").write_text(text)
        self._written = time.monotonic()

    def close(self) -> None:
        """Writes what is left."""
        self.flush()


def _parts_of(file: epath.Path) -> epath.Path:
    return file.parent / f"{file.name}.parts"


def _part_names(folder: epath.Path) -> list[str]:
    if not folder.is_dir():  # in a bucket there are no empty folders
        return []
    return sorted(p.name for p in folder.iterdir() if p.name.isdigit())


Lines = FolderLines | BucketLines


def lines_of(file: epath.Path, lines: Iterable[str]) -> Lines:
    """Returns a file that lines are added to, beginning with `lines`."""
    return BucketLines(file, lines) if is_bucket(file) else FolderLines(file, lines)


def read_lines(file: epath.Path) -> list[str]:
    """Returns the lines of a file that `lines_of` has made, [] if there is none."""
    if is_bucket(file):
        folder = _parts_of(file)
        texts = [read_text(folder / name) or "" for name in _part_names(folder)]
        return list(dict.fromkeys("".join(texts).splitlines()))
    return (read_text(file) or "").splitlines()
