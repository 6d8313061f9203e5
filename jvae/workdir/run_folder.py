"""The folder of a run: locked, and labelled with its config or checked against it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from jvae.errors import WorkdirError
from jvae.runtime import distributed
from jvae.workdir import files, locks

CONFIG_FILE = "config.json"
FOLDERS = ("checkpoints", "best", "pictures", "tensorboard")
"""Folders that training writes to."""
UNREADABLE_CHARACTERS = "[]*?\\"
"""Orbax reads a path with one of these as a glob pattern, and finds no checkpoint."""
SHARED_SECONDS, LOOK_SECONDS = 10.0, 0.2
"""How long a file of process 0 may take to be seen by others, and between two looks."""
Check = Callable[[Mapping[str, Any], Mapping[str, Any], epath.Path], None]


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of a run that is being written, locked.

    Attributes:
      root: its path.
      lock: held by process 0, None in the others.
    """

    root: epath.Path
    lock: locks.Lock | None

    def check(self) -> None:
        """Checks that it is still the folder that was opened; all processes ask.

        Raises:
          WorkdirError: it was renamed, removed or taken over by another run.
        """
        distributed.on_process_zero(lambda: self.lock is None or self.lock.check())


def check_name(workdir: epath.PathLike) -> None:
    """Checks that what is saved in a folder of that name can be read again.

    Raises:
      WorkdirError: Orbax takes the name for a pattern.
    """
    root = files.absolute(workdir)
    strange = sorted(set(os.fspath(root)) & set(UNREADABLE_CHARACTERS))
    if strange:
        raise WorkdirError(
            f"checkpoints in a folder with {' '.join(strange)} in its path could not "
            "be read again",
            where=str(root),
            fix="Use another workdir.",
        )


@contextlib.contextmanager
def opened(
    workdir: epath.PathLike, config: Mapping[str, Any], check: Check
) -> Iterator[RunFolder]:
    """A context with the run's folder: made and labelled, or checked, and locked.

    Process 0 holds the lock for all.

    Args:
      workdir: the folder; a bucket will do.
      config: of the run, as JSON has it.
      check: (config of a run that is there, `config`, folder) -> None; raises if these
        are two runs.

    Raises:
      WorkdirError: it cannot be a folder or be written, other processes see another
        folder, or another run is using it.
    """
    root = files.absolute(workdir)
    lock = distributed.on_process_zero(lambda: locked(root))
    try:
        distributed.on_process_zero(lambda: _check_within(root))
        distributed.on_process_zero(lambda: _labelled(root, config, check))
        _check_shared(root)
        yield RunFolder(root, lock)
    finally:
        if lock is not None:
            lock.release()


def _check_shared(root: epath.Path) -> None:
    """Raises WorkdirError unless all processes see what process 0 has written."""
    file = root / locks.LOCK_FILE
    owner = distributed.from_first(lambda: locks.owner_in(files.read_text(file)))

    def look() -> None:
        end = time.monotonic() + SHARED_SECONDS
        while locks.owner_in(files.read_text(file)) != owner:
            if time.monotonic() > end:
                raise WorkdirError(
                    "this process does not see the folder that process 0 writes to",
                    where=str(root),
                    fix="Name a folder that all processes share, or a bucket.",
                )
            time.sleep(LOOK_SECONDS)

    distributed.together(look)


def locked(root: epath.Path) -> locks.Lock:
    """Returns the lock of a folder, which is made if it is missing.

    Raises:
      WorkdirError: it cannot be a folder or be written, or another process holds it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        return locks.lock(root)
    except OSError as error:
        raise _unusable(root, error) from error
    except ImportError as error:  # gcsfs for gs://, s3fs for s3://
        raise WorkdirError(
            f"this bucket needs one more package: {error}",
            where=str(root),
            fix="Install it, or name a folder.",
        ) from error


def _labelled(root: epath.Path, config: Mapping[str, Any], check: Check) -> None:
    """Writes config.json; of a run that has saved something only if it is the same."""
    file, stored = root / CONFIG_FILE, read_saved_config(root)
    if stored is not None:
        check(stored, config, root)
    try:
        files.write_whole(file, json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise _unusable(root, error) from error


def _check_within(root: epath.Path) -> None:
    """Raises WorkdirError if a folder that a run writes to is a link to another."""
    for name in FOLDERS:
        files.check_within(root / name, root)


def _has_steps(root: epath.Path) -> bool:
    """Returns whether there may be a checkpoint, whole or not, of any state."""
    folders = (root / name for name in ("checkpoints", "best"))
    return any(p.name[:1].isdigit() for f in folders if f.is_dir() for p in f.iterdir())


def _unusable(root: epath.Path, error: OSError) -> WorkdirError:
    return WorkdirError(
        f"workdir cannot be made or written: {error.strerror or error}",
        where=str(root),
        fix="Name a folder that can be written.",
    )


def read_saved_config(workdir: epath.PathLike) -> dict[str, Any] | None:
    """Returns the config of a run that may have a checkpoint; None of any other.

    Raises:
      WorkdirError: there is such a run and its config.json is damaged.
    """
    root = files.absolute(workdir)
    is_saved = (root / CONFIG_FILE).exists() and _has_steps(root)
    return read_config(root) if is_saved else None


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
    """Returns WORKDIR/config.json.

    Raises:
      WorkdirError: there is none, or it is damaged.
    """
    file = files.absolute(workdir) / CONFIG_FILE
    if not file.exists():
        raise WorkdirError(
            f"there is no {CONFIG_FILE}",
            where=str(workdir),
            fix="Name the workdir of a run.",
        )

    try:
        config = json.loads(files.read_own(file))
        why = "it lacks the sections data and model"
    except (ValueError, RecursionError) as error:
        config, why = None, f"it is no JSON: {error}"

    sections = config if isinstance(config, dict) else {}
    if all(isinstance(sections.get(name), dict) for name in ("data", "model")):
        return sections
    raise WorkdirError(
        f"{CONFIG_FILE} is damaged: {why}",
        where=str(workdir),
        fix="Remove that file; every checkpoint holds the config too.",
    )
