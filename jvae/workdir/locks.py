"""One writer at a time: locks of a workdir, in a folder and in a bucket."""

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
from typing import Any

from etils import epath

from jvae.errors import WorkdirError
from jvae.workdir.files import is_bucket, read_text

HEARTBEAT_SECONDS, STALE_SECONDS = 20.0, 120.0
"""How often a run in a bucket says that it lives, and when it counts as dead."""
SETTLE_SECONDS = 2.0
"""How long a run that takes over a dead one's lock waits for others that do so too."""
LOCK_FILE = ".lock"

logger = logging.getLogger("jvae")


def _owner() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}


def owner_in(text: str | None) -> list[Any] | None:
    """Returns [pid, host] of the text of a lock, None if it has none."""
    try:
        owner = json.loads(text or "")
        return [owner["pid"], owner["host"]]
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def _in_use(root: epath.Path, text: str) -> WorkdirError:
    owner = owner_in(text)
    by = "pid {} on host {}".format(*owner) if owner else "another run"
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

        self._path = root / LOCK_FILE
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o666)
        except OSError as error:
            raise WorkdirError(
                f"cannot be locked: {error.strerror}",
                where=str(self._path),
                fix="Remove that file if it is a link, or use another workdir.",
            ) from error
        self._file = open(descriptor, "a+", encoding="utf-8", errors="replace")
        if os.fstat(descriptor).st_nlink > 1:
            self._file.close()
            raise WorkdirError(
                "cannot be locked: it is a file of another place too, a hard link",
                where=str(self._path),
                fix="Remove it.",
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

    def check(self) -> None:
        """Raises WorkdirError if the folder is no longer the one that was locked."""
        try:
            here = os.stat(self._path)
            is_same = os.path.samestat(here, os.fstat(self._file.fileno()))
        except OSError:
            is_same = False
        if not is_same:
            raise WorkdirError(
                "workdir was renamed, removed or taken over while this run wrote to it",
                where=str(self._path.parent),
                fix="Give it its name back and run the same command again; it goes on "
                "from the last checkpoint.",
            )

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
            text = read_text(self._object)
            if text is None:
                return False
            if not _is_stale(text):
                raise _in_use(self._root, text) from error
        # Of several that take a dead run's lock the last one has it.
        self._object.write_text(self._text())
        time.sleep(SETTLE_SECONDS)
        text = read_text(self._object)
        if text is not None and self._token not in text:
            raise _in_use(self._root, text)
        return text is not None

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # A beat that fails is made good by the next one.
            with contextlib.suppress(OSError):
                text = read_text(self._object)
                if text is not None and self._token not in text:
                    self._lose(text)
                    return
                self._object.write_text(self._text())

    def _lose(self, text: str) -> None:
        """Ends this run, which slept so long that another has taken its place."""
        logger.error("jvae: %s This run stops.", _in_use(self._root, text).args[0])
        os.kill(os.getpid(), signal.SIGTERM)

    def check(self) -> None:
        """Does nothing: who loses an object notices it at the next beat."""

    def release(self) -> None:
        """Removes the object, unless another run has taken it."""
        self._ended.set()
        self._thread.join()
        if self._token in (read_text(self._object) or ""):
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


Lock = FolderLock | BucketLock


def lock(root: epath.Path) -> Lock:
    """Returns the lock of a workdir, held.

    Raises:
      WorkdirError: another run holds it.
    """
    return BucketLock(root) if is_bucket(root) else FolderLock(root)
