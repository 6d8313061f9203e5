"""Files of a workdir that must survive: whole writes, the lock, lines one by one.

A folder has append, rename and flock. A bucket (gs://, s3://) has none of them: an
object is written whole, and may be created only if it is not there yet. Whatever needs
one or the other is in this file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Any

from etils import epath

from jvae.errors import WorkdirError

HEARTBEAT_SECONDS, STALE_SECONDS = 20.0, 120.0
"""How often a run in a bucket says that it lives, and when it counts as dead."""
SETTLE_SECONDS = 2.0
"""How long a run that takes over a dead one's lock waits for others that do so too."""
LOCK_FILE = ".lock"

logger = logging.getLogger("jvae")


def is_bucket(path: epath.PathLike) -> bool:
    """Returns whether a path is in an object store, as 'gs://name/run' is."""
    return "://" in os.fspath(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Returns a path that is not relative and has no ~, as Orbax must have it."""
    if is_bucket(path):
        return epath.Path(path)
    return epath.Path(os.path.join(os.getcwd(), os.path.expanduser(path)))


def write_whole(path: epath.Path, text: str) -> None:
    """Writes a file so that a reader, or a crash, sees the old or the new text."""
    if is_bucket(path):
        path.write_text(text)  # an object appears when it is complete
        return
    new = path.parent / f"{path.name}.new"
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _read(path: epath.Path) -> str | None:
    """Returns the text of a file, None if it is not there; garbage is no error."""
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None


def _owner() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}


def _in_use(root: epath.Path, text: str) -> WorkdirError:
    try:
        owner = json.loads(text)
        by = f"pid {owner['pid']} on host {owner['host']}"
    except (json.JSONDecodeError, KeyError, TypeError):
        by = "another run"
    return WorkdirError(
        f"workdir in use by {by}",
        where=str(root),
        fix="Wait for it, stop it, or use another workdir.",
    )


class FolderLock:
    """A lock of the operating system; it ends with the process, however that ends.

    Args:
      root: the workdir.

    Raises:
      WorkdirError: another process holds it; says which.
    """

    def __init__(self, root: epath.Path):
        import fcntl

        self._file = open(  # noqa: SIM115
            root / LOCK_FILE, "a+", encoding="utf-8", errors="replace"
        )
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            text = self._file.read()
            self._file.close()
            raise _in_use(root, text) from error
        except OSError as error:
            logger.warning("jvae: %s cannot be locked: %s", root, error)
        self._file.truncate(0)
        self._file.write(json.dumps(_owner()))
        self._file.flush()

    def release(self) -> None:
        """Lets go of the folder."""
        self._file.close()


class BucketLock:
    """An object that only one process can create, and that its owner keeps fresh.

    Args:
      root: the workdir.

    Raises:
      WorkdirError: its owner has said within two minutes that it lives.
    """

    def __init__(self, root: epath.Path):
        self._root, self._object = root, root / LOCK_FILE
        self._token = uuid.uuid4().hex
        while not self._is_taken():
            pass  # its owner has removed it between two looks
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _text(self) -> str:
        return json.dumps({**_owner(), "token": self._token})

    def _is_taken(self) -> bool:
        """Takes the lock if it is free or its owner dead; False to try again."""
        try:
            create(self._object, self._text())
            return True
        except FileExistsError as error:
            text = _read(self._object)
            if text is None:
                return False
            if not _is_stale(text):
                raise _in_use(self._root, text) from error
        # Of several that take a dead run's lock the last one has it.
        self._object.write_text(self._text())
        time.sleep(SETTLE_SECONDS)
        text = _read(self._object)
        if text is not None and self._token not in text:
            raise _in_use(self._root, text)
        return text is not None

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # A beat that fails is made good by the next one.
            with contextlib.suppress(OSError):
                text = _read(self._object)
                if text is not None and self._token not in text:
                    self._lose(text)
                    return
                self._object.write_text(self._text())

    def _lose(self, text: str) -> None:
        """Ends this run, which slept so long that another has taken its place."""
        logger.error("jvae: %s This run stops.", _in_use(self._root, text).args[0])
        os.kill(os.getpid(), signal.SIGTERM)

    def release(self) -> None:
        """Removes the object, unless another run has taken it."""
        self._ended.set()
        self._thread.join()
        if self._token in (_read(self._object) or ""):
            self._object.unlink(missing_ok=True)


def create(path: epath.Path, text: str) -> None:
    """Writes an object that is not there yet, in one step.

    Raises:
      FileExistsError: it is there.
    """
    import fsspec  # epath's way to buckets, which has no exclusive creation

    filesystem, name = fsspec.core.url_to_fs(os.fspath(path))
    filesystem.pipe_file(name, text.encode(), mode="create")


def _is_stale(text: str) -> bool:
    try:
        return time.time() - json.loads(text)["time"] > STALE_SECONDS
    except (json.JSONDecodeError, KeyError, TypeError):
        return True


def lock(root: epath.Path) -> FolderLock | BucketLock:
    """Returns the lock of a workdir, held.

    Raises:
      WorkdirError: another run holds it.
    """
    return BucketLock(root) if is_bucket(root) else FolderLock(root)


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


def lines_of(file: epath.Path, lines: Iterable[str]) -> FolderLines | BucketLines:
    """Returns a file that lines are added to, beginning with `lines`."""
    return BucketLines(file, lines) if is_bucket(file) else FolderLines(file, lines)


def read_lines(file: epath.Path) -> list[str]:
    """Returns the lines of a file that `lines_of` has made, [] if there is none."""
    if is_bucket(file):
        folder = _parts_of(file)
        texts = [_read(folder / name) or "" for name in _part_names(folder)]
        return list(dict.fromkeys("".join(texts).splitlines()))
    return (_read(file) or "").splitlines()
