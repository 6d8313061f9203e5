"""The folder of a run: locked, and labelled with its config or checked against it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from jvae.errors import WorkdirError
from jvae.runtime import distributed
from jvae.workdir import files, locks

CONFIG_FILE = "config.json"
Check = Callable[[Mapping[str, Any], Mapping[str, Any], epath.Path], None]


@contextlib.contextmanager
def opened(
    workdir: epath.PathLike, config: Mapping[str, Any], check: Check
) -> Iterator[epath.Path]:
    """A context with the run's folder: made and labelled, or checked, and locked.

    Process 0 holds the lock for all.

    Args:
      workdir: the folder; a bucket will do.
      config: of the run, as JSON has it.
      check: (config of a run that is there, `config`, folder) -> None; raises if these
        are two runs.

    Raises:
      WorkdirError: it cannot be a folder or be written, or another run is using it.
    """
    root = files.absolute(workdir)
    lock = distributed.on_process_zero(lambda: locked(root))
    try:
        distributed.on_process_zero(lambda: _labelled(root, config, check))
        yield root
    finally:
        if lock is not None:
            lock.release()


def locked(root: epath.Path) -> locks.FolderLock | locks.BucketLock:
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
    file = root / CONFIG_FILE
    if file.exists():
        check(read_config(root), config, root)
    try:
        files.write_whole(file, json.dumps(config, indent=2) + "\n")
    except OSError as error:
        raise _unusable(root, error) from error


def _unusable(root: epath.Path, error: OSError) -> WorkdirError:
    return WorkdirError(
        f"workdir cannot be made or written: {error.strerror or error}",
        where=str(root),
        fix="Name a folder that can be written.",
    )


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
        config = json.loads(file.read_text())
        for name in ("data", "model"):
            if not isinstance(config[name], dict):
                raise TypeError(f"{name} is no section")
        return config
    except (ValueError, KeyError, TypeError) as error:
        raise WorkdirError(
            f"{CONFIG_FILE} is damaged: {error}",
            where=str(workdir),
            fix="Remove that file; every checkpoint holds the config too.",
        ) from error
