"""Checkpoints: what a run saves, and how it is found and read again.

WORKDIR/checkpoints/N holds three items: `model` (params, ema, state: all that sampling
needs), `training` (optimizer state, step and guard) and `meta` (JSON: config, versions,
shape, dtype and checksum of every array). WORKDIR/best/N holds `model` and `meta` of
the best evaluation so far. No pickle; nothing that is read runs code.

What Orbax leaves open is mended here: flipped bits and other dtypes that it restores
silently, saves that it declines silently, failures that it mentions once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from jvae.errors import AloneError, DamagedError, WorkdirError
from jvae.runtime import distributed, log_filters
from jvae.workdir import failures, files, metadata
from jvae.workdir.recovery import STEP, RecoverableSteps

logger = logging.getLogger("jvae")

CHECKPOINTS, BEST = "checkpoints", "best"
SLICED_FROM = 2**23
"""Bytes of a replicated array from which every device writes a part of it."""
JOIN_SECONDS = 3.0
"""How long the other threads of a failed save, of which some may hang, may take."""
LOOKS, LOOK_SECONDS, MOST_SECONDS = 5, 0.1, 10.0
"""A failed save counts as removed when nothing of it has appeared at so many looks."""


class Checkpoints(RecoverableSteps):
    """The checkpoints of one folder, and what it takes to write more.

    Args:
      folder: WORKDIR/checkpoints or WORKDIR/best.
      keep: how many of the newest steps stay; None to keep all.
      read_only: never to create, delete or clean anything.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        *,
        keep: int | None = None,
        read_only: bool = False,
    ):
        self.folder = files.absolute(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise WorkdirError(
                "checkpoints cannot be written: this is a file",
                where=str(self.folder),
                fix="Remove it, or use another workdir.",
            )
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        for step in there:
            if STEP.fullmatch(step.name) and files.is_own_folder(step):
                files.check_files(step)
        super().__init__(self.folder, self._open(keep, read_only))
        self._begun: tuple[int, str] | None = None
        self._failure: str | None = None

    def _open(self, keep: int | None, read_only: bool) -> ocp.CheckpointManager:
        # Orbax says that it is read only, as it was asked to be.
        mode = ocp.options.AtomicityMode.COMMIT_FILE
        with log_filters.below(logging.CRITICAL):
            options = ocp.CheckpointManagerOptions(
                max_to_keep=None if read_only else keep,
                create=not read_only,
                read_only=read_only,
                enable_async_checkpointing=not read_only,
                # Orbax would remove every folder that is no step; see above.
                cleanup_tmp_directories=False,
                # A step without its commit file was never finished and is not listed.
                atomicity_options=ocp.options.AtomicityOptions(mode=mode),
            )
            try:
                return ocp.CheckpointManager(self.folder, options=options)
            except OSError as error:
                raise self._error(
                    f"checkpoints cannot be written: {error.strerror or error}",
                    "Make room, or name a folder that can be written.",
                ) from error

    def reached_preemption(self, count: int) -> bool:
        """Returns whether all processes are to stop here, as one of them was told.

        Args:
          count: how often each has asked, this time included.
        """
        return self._manager.reached_preemption(count)

    def save(
        self, step: int, items: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> None:
        """Begins to write a step; arrays may change as soon as this returns.

        A failure, of this save or of the one that was still being written, is a
        warning, and the next save tries again; `wait` raises if the last one failed.

        Raises:
          AloneError: a failure in a run of several processes, which others wait for.

        Args:
          step: its number.
          items: pytrees of arrays by name.
          meta: JSON, stored beside them with shapes, checksums, format and version.
        """
        log_filters.background_failures()
        self.settle()
        self._make_room(step)
        stored = metadata.describe(step, items, meta)
        copies = {name: jax.tree.map(_one_copy, item) for name, item in items.items()}
        arguments = {k: ocp.args.StandardSave(item) for k, item in copies.items()}
        composite = ocp.args.Composite(meta=ocp.args.JsonSave(stored), **arguments)
        size = sum(x.nbytes for x in jax.tree.leaves(dict(items)))
        begun = self._begun = step, f"checkpoint {step} ({size:,} bytes)"
        try:
            if not self._manager.save(step, args=composite, force=True):
                self._fail(begun, "it or a later one is there", remove=False)
        except (ValueError, OSError) as error:
            self._fail(begun, failures.failed_save(error))

    def wait(self) -> None:
        """Returns when everything begun is on disk.

        Raises:
          WorkdirError: the last save failed.
        """
        self.settle()
        if self._failure is not None:
            raise self._error(
                self._failure,
                "Make room or choose another workdir; older checkpoints are whole.",
            )

    def close(self) -> None:
        """Waits and lets go of the folder."""
        self.settle()
        with contextlib.suppress(ValueError, OSError):  # failures already told
            self._manager.close()

    def settle(self) -> None:
        """Waits for the save that was begun, whose failure is a warning."""
        if self._begun is None:
            return
        try:  # Orbax tells of a failure only once
            self._wait_for_manager()
            self._manager.check_for_errors()
        except (ValueError, OSError) as error:
            self._fail(self._begun, failures.failed_save(error))
        else:
            self._failure = self._begun = None

    def _wait_for_manager(self) -> None:
        """Waits for what Orbax has begun, or for the failure of this process's part."""
        if jax.process_count() == 1:
            self._manager.wait_until_finished()
            return
        finish = self._manager.wait_until_finished
        waiting = futures.ThreadPoolExecutor(1).submit(finish)
        while not waiting.done():
            futures.wait([waiting], timeout=LOOK_SECONDS)
            failure = log_filters.save_failure()
            if failure is not None:
                raise failure
        waiting.result()

    def _fail(self, begun: tuple[int, str], why: str, remove: bool = True) -> None:
        """Notes that a save failed, and removes what there is of it."""
        step, what = begun
        self._failure, self._begun = f"{what} was not written: {why}", None
        if jax.process_count() > 1:  # the others wait for this one's part
            raise AloneError(
                self._failure,
                where=str(self.folder),
                fix="Make room and run the same command again; it goes on from the "
                "last checkpoint.",
            )
        logger.warning("jvae: %s (%s)", self._failure, self.folder)
        # Its other threads have more to tell, which would pass for the next save's.
        for tell in (self._manager.wait_until_finished, self._manager.check_for_errors):
            with contextlib.suppress(ValueError, OSError):
                tell()
        if remove:
            _wait_for_writers()
            self._remove_failed(step)
        self._manager.reload()

    def _remove_failed(self, step: int) -> None:
        """Removes a step whose save failed, until no more of it appears.

        Orbax raises the first failure and closes its event loops. What they had handed
        to other threads is still done then, nobody waits for it, and it makes the
        folders that it writes to again.
        """
        if not distributed.is_first():
            return
        looks, end = 0, time.monotonic() + MOST_SECONDS
        while looks < LOOKS and time.monotonic() < end:
            looks += 1
            for folder in self._unfinished():
                if folder.name.partition(".")[0] == str(step):
                    looks = 0
                    with contextlib.suppress(OSError):  # a file was added meanwhile
                        folder.rmtree()
            time.sleep(LOOK_SECONDS)


def _one_copy(x: jax.Array) -> jax.Array:
    """Returns a small replicated array as one of its devices holds it.

    Orbax writes a slice from every device that has a copy, and JAX compiles a program
    for each size and place of a slice: of a small model on 8 devices most of the time
    of its first save.
    """
    if jax.process_count() > 1 or x.nbytes >= SLICED_FROM or not x.is_fully_replicated:
        return x
    return x.addressable_data(0)


def _wait_for_writers() -> None:
    """Waits for the other items of a save that failed; Orbax leaves them writing."""
    end = time.monotonic() + JOIN_SECONDS
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax."):
            # Theirs would raise the failure once more.
            threading.Thread.join(thread, timeout=max(end - time.monotonic(), 0))


def choose(workdir: epath.PathLike, step: str | int) -> tuple[Checkpoints, int]:
    """Returns (the folder that holds a step, its number), opened for reading only.

    Args:
      workdir: a run's folder.
      step: 'best' (the last one where no evaluation has run yet), 'last', or a number.

    Raises:
      WorkdirError: no such workdir, checkpoint or step, and which steps there are; or
        the best model is of another run than the checkpoints.
    """
    root = files.absolute(workdir)
    folders: dict[str, Checkpoints] = {
        name: Checkpoints(root / name, read_only=True)
        for name in (CHECKPOINTS, BEST)
        if (root / name).is_dir()
    }
    steps = {name: c.steps() for name, c in folders.items()}

    if not any(steps.values()):
        raise WorkdirError(
            "there is no checkpoint", where=str(root), fix="Name the workdir of a run."
        )

    order = [CHECKPOINTS, BEST] if step != "best" else [BEST, CHECKPOINTS]
    for name in order:
        if step in ("best", "last") and steps.get(name):
            _check_best(folders, steps)
            return folders[name], steps[name][-1]
        if step in steps.get(name, []):
            return folders[name], int(step)

    there = sorted({s for numbers in steps.values() for s in numbers})
    raise WorkdirError(
        f"there is no checkpoint {step!r}", where=str(root), fix=f"There are {there}."
    )


def _check_best(folders: Mapping[str, Checkpoints], steps: Mapping[str, list]) -> None:
    """Raises WorkdirError if the newest steps of both folders are of two runs."""
    if steps.get(CHECKPOINTS) and steps.get(BEST):
        with contextlib.suppress(DamagedError):  # whoever reads that one says so
            states, best = (
                folders[name].read_meta(steps[name][-1]).get("run")
                for name in (CHECKPOINTS, BEST)
            )
            check_one_run(states, best, folders[BEST].folder)


def check_one_run(states: str | None, best: str | None, where: epath.Path) -> None:
    """Raises WorkdirError if checkpoints are of two runs; None is of release 0.1.0.

    Args:
      states: the identity that the checkpoints have.
      best: that of the best model.
      where: its folder.
    """
    if states is not None and best is not None and states != best:
        raise WorkdirError(
            "the best model there is of another run than the checkpoints",
            where=str(where),
            fix="Remove it, or use another workdir.",
        )
