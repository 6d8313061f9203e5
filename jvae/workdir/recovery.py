"""Steps that were never finished, lost a file, or are damaged: found and set aside.

Nothing that may be a checkpoint, and nothing that no save has written, is deleted.
"""

from __future__ import annotations

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


class RecoverableSteps(StoredSteps):
    """The steps of a folder that may be written, so that what is wrong can be mended.

    Args:
      folder: WORKDIR/checkpoints or WORKDIR/best.
      manager: Orbax's, of that folder.
    """

    def recover(self, read: Callable[[int], object]) -> None:
        """Looks at the steps that lack the commit file, which nobody else lists.

        Most are of a save that was killed, and are removed. One may have lost that file
        alone, in a copy say: if its checksums are right it is a checkpoint like others;
        if its items were complete and are no longer, it is set aside.

        Args:
          read: reads a step and raises DamagedError if it is not what was written.
        """
        for step, was_complete in distributed.from_first(self._commit_unfinished):
            self._manager.reload()
            damage = None
            try:
                read(step)
            except DamagedError as error:
                damage = error
            if not distributed.anywhere(damage is not None):
                logger.warning(
                    "jvae: checkpoint %d lacked %s; by its checksums it is whole (%s)",
                    *(step, COMMIT_FILE, self.folder),
                )
            elif was_complete:
                self.set_aside(step, damage)
            else:
                distributed.on_process_zero((self.folder / str(step)).rmtree)
                self._manager.reload()

    def _commit_unfinished(self) -> list[tuple[int, bool]]:
        """Adds the commit files that steps lack; removes those that lack more.

        Returns:
          (step, whether all its items had theirs) of each step that may be whole.
        """
        steps = []
        for folder in self._unfinished():
            items = {part.name: part for part in folder.iterdir() if part.is_dir()}
            if not (folder.name.isdigit() and items.keys() >= {"model", "meta"}):
                folder.rmtree()
                continue
            lacking = [p for p in items.values() if not (p / COMMIT_FILE).exists()]
            for place in (*lacking, folder):
                (place / COMMIT_FILE).write_text("")
            steps.append((int(folder.name), not lacking))
        return sorted(steps)

    def _unfinished(self) -> list[epath.Path]:
        """Returns the folders of steps that lack the commit file, and no others.

        A folder that has anything in it which no save writes is somebody else's.
        """
        return [
            folder
            for folder in self.folder.iterdir()
            if STEP.fullmatch(folder.name)
            and folder.is_dir()
            and not (folder / COMMIT_FILE).exists()
            and all(PART.fullmatch(part.name) for part in folder.iterdir())
        ]

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

    def _rename(self, step: int, ending: str) -> epath.Path:
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
