"""Recovery of checkpoints that are incomplete or damaged.

Only the remains of an interrupted save are deleted. Anything that may be a checkpoint
is renamed, and files that are not jvae's are left alone.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable

from etils import epath

from jvae.errors import DamagedError
from jvae.runtime import distributed
from jvae.workdir import files
from jvae.workdir.stored_steps import StoredSteps

logger = logging.getLogger("jvae")

COMMIT_FILE = "commit_success.txt"
"""What Orbax writes into a step last."""
ITEMS = ("model", "training", "meta")
STEP = re.compile(r"[0-9]+(\.orbax-checkpoint-tmp.*)?")
"""The names of steps, finished or not."""
PART = re.compile(
    rf"({'|'.join(ITEMS)})(\.orbax-checkpoint-tmp.*)?|_CHECKPOINT_METADATA"
)
"""The names of what a save puts in a step, but for the commit file."""
MANIFEST = "manifest.ocdbt"
"""What an item of arrays has once they are written."""
INNER = re.compile(
    r"_sharding|_METADATA|array_metadatas|d|ocdbt\.process_[0-9]+|metadata|"
    rf"{MANIFEST}|{COMMIT_FILE}|.*\.__lock|.*\.orbax-checkpoint-tmp.*"
)
"""The names of what a save puts in an item."""
COMPLETE = "complete"


class RecoverableSteps(StoredSteps):
    """The steps of a folder opened for writing, which can be repaired.

    Args:
      folder: WORKDIR/checkpoints or WORKDIR/best.
      manager: Orbax's, of that folder.
    """

    def recover(self, read: Callable[[int], object]) -> None:
        """Verifies the steps without commit file, which `steps` does not list.

        Usually such a step is a save that was killed before its arrays were written; it
        is deleted. A step may also have lost only that file, for example in a copy: if
        its checksums are right, it is used. All others are renamed.

        Args:
          read: reads a step and raises DamagedError if it is not what was written.
        """
        for step, state in distributed.from_first(self._commit_unfinished):
            self._manager.reload()
            damage = None
            try:
                read(step)
            except DamagedError as error:
                damage = error
            is_whole = not distributed.anywhere(damage is not None)
            if not is_whole and state == COMPLETE:
                self.set_aside(step, damage)
            end = functools.partial(self._end_recovery, step, is_whole)
            distributed.on_process_zero(end)
            self._manager.reload()

    def _commit_unfinished(self) -> list[tuple[int, str]]:
        """Adds the commit files that steps lack, so that they can be read.

        A file N.unverified marks a step until it is verified, so that the next start
        verifies it if this one is killed first.

        Returns:
          (step, `COMPLETE` if all its items had theirs, else '').
        """
        steps = []
        for folder in self._unfinished():
            parts = {part.name: part for part in folder.iterdir() if part.is_dir()}
            items = [parts[name] for name in ITEMS if name in parts]
            if "model" not in parts or not (folder / "meta" / "metadata").exists():
                self._discard(folder)
                continue
            lacking = [item for item in items if not (item / COMMIT_FILE).exists()]
            note = self._note(folder.name)
            if not note.exists():
                note.write_text("" if lacking else COMPLETE)
            for place in (*lacking, folder):
                (place / COMMIT_FILE).write_text("")
            steps.append((int(folder.name), files.read_own(note)))
        return sorted(steps)

    def _unfinished(self) -> list[epath.Path]:
        """Returns the folders of steps without commit file, or still to be verified."""
        return [
            folder
            for folder in self.folder.iterdir()
            if STEP.fullmatch(folder.name) and files.is_own_folder(folder)
            if not (folder / COMMIT_FILE).exists() or self._note(folder.name).exists()
        ]

    def _note(self, name: str) -> epath.Path:
        return self.folder / f"{name}.unverified"

    def _end_recovery(self, step: int, is_whole: bool) -> None:
        """Logs that a step is whole, or removes or renames it; removes its mark."""
        folder = self.folder / str(step)
        if is_whole:
            logger.warning(
                "jvae: checkpoint %d lacked %s; by its checksums it is whole (%s)",
                *(step, COMMIT_FILE, self.folder),
            )
        elif folder.exists():
            self._discard(folder)
            if folder.exists():  # as somebody's file is among what is left of a save
                (folder / COMMIT_FILE).unlink(missing_ok=True)
        self._note(folder.name).unlink(missing_ok=True)

    def _discard(self, folder: epath.Path) -> None:
        """Deletes the remains of an interrupted save; renames a folder with arrays."""
        parts = [part for part in folder.iterdir() if part.name != COMMIT_FILE]
        inner = [p for part in parts if part.is_dir() for p in part.iterdir()]
        has_arrays = any(path.name == MANIFEST for path in inner)
        is_ours = all(PART.fullmatch(part.name) for part in parts)
        is_ours = is_ours and all(INNER.fullmatch(path.name) for path in inner)
        is_ours = is_ours or "." in folder.name  # which only Orbax calls so
        if is_ours and (files.is_bucket(folder) or not has_arrays):
            folder.rmtree()
        elif has_arrays:
            renamed = self._rename(folder.name, "unfinished")
            logger.warning(
                "jvae: %s has no commit file and is not whole; renamed to %s",
                *(folder, renamed),
            )

    def set_asides(self) -> list[str]:
        """Returns the names of the damaged steps that were set aside."""
        return sorted(p.name for p in self.folder.iterdir() if ".damaged" in p.name)

    def set_aside(self, step: int, damage: DamagedError | None) -> None:
        """Takes a damaged step out of the way, so that its number is free again.

        Its folder becomes N.damaged; in a bucket, which cannot rename, an object
        N.damaged marks it, and it is removed when N is saved again.

        Args:
          step: its number.
          damage: what this process found, for the warning; None if another did.
        """
        distributed.wait_for_all(f"set {step} aside")
        damaged = self._marker(step)
        if distributed.is_first():
            if files.is_bucket(self.folder):
                damaged.write_text("")
            else:
                damaged = self._rename(step, "damaged")
            what = f"checkpoint {step} is damaged: another process cannot read its part"
            what = what if damage is None else damage.what
            logger.warning("jvae: %s; set aside as %s", what, damaged)
        distributed.wait_for_all(f"{step} is set aside")
        self._manager.reload()

    def _rename(self, step: int | str, ending: str) -> epath.Path:
        """Renames the folder of a step to N.ending, and returns its new path."""
        path = self.folder / f"{step}.{ending}"
        while path.exists():
            path = path.parent / f"{path.name}.again"
        return (self.folder / str(step)).rename(path)

    def _make_room(self, step: int) -> None:
        """Makes the number of a step free, so that it can be saved.

        A step that is marked as damaged is removed; a folder of that name which is no
        checkpoint is somebody else's, and is renamed.
        """
        is_marked = self._is_marked(step)
        is_taken = (self.folder / str(step)).exists() and step not in self.steps()
        if not distributed.anywhere(is_marked or is_taken):
            return
        distributed.on_process_zero(lambda: self._make_room_alone(step, is_marked))
        self._manager.reload()

    def _make_room_alone(self, step: int, is_marked: bool) -> None:
        folder = self.folder / str(step)
        if is_marked:
            if folder.exists():
                folder.rmtree()
            self._marker(step).unlink()
        elif files.is_bucket(folder):
            logger.warning("jvae: %s is no checkpoint and in the way", folder)
        else:
            renamed = self._rename(step, "not_a_checkpoint")
            logger.warning("jvae: %s is no checkpoint; renamed to %s", folder, renamed)
