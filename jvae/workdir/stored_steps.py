"""The steps that a folder of checkpoints holds, read and verified."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

import jvae
from jvae.errors import DamagedError, WorkdirError, first_line
from jvae.runtime import distributed, log_filters, mesh
from jvae.workdir import failures, files, metadata


class StoredSteps:
    """What a folder of checkpoints holds.

    Args:
      folder: WORKDIR/checkpoints or WORKDIR/best.
      manager: Orbax's, of that folder.
    """

    def __init__(self, folder: epath.Path, manager: ocp.CheckpointManager):
        self.folder, self._manager = folder, manager

    def steps(self) -> list[int]:
        """Returns the finished steps that are not known to be damaged, oldest first."""
        return sorted(s for s in self._manager.all_steps() if not self._is_marked(s))

    def latest(self) -> int | None:
        """Returns the newest finished step, None if there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def read_meta(self, step: int) -> dict[str, Any]:
        """Returns the JSON of a step.

        Raises:
          DamagedError: it cannot be read.
          WorkdirError: a newer release wrote it.
        """
        arguments = ocp.args.Composite(meta=ocp.args.JsonRestore())
        try:
            with log_filters.below(logging.ERROR):
                meta = self._manager.restore(step, args=arguments)["meta"]
            written, version = meta["format"], meta["jvae"]
            is_complete = metadata.is_complete(meta)
        except failures.UNREADABLE as error:
            raise self._unreadable(step, error) from error

        is_number = isinstance(written, int)
        if is_number and written > metadata.FORMAT and version != jvae.__version__:
            # Its digest may be another.
            newer = f"jvae {version}, newer than {jvae.__version__}"
            raise self._error(
                f"checkpoint {step} was written by {newer}", "Upgrade jvae."
            )

        if not is_complete:
            raise self._damaged(step, "its JSON is not that of a checkpoint")
        if metadata.is_changed(meta) or not is_number or written > metadata.FORMAT:
            raise self._damaged(step, "the digest of its JSON differs")
        if meta.get("step", step) != step:
            raise self._damaged(step, f"it is a copy of step {meta['step']}")
        return meta

    def restore(self, step: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the items of a step, placed as `like`.

        Args:
          step: its number.
          like: pytrees of arrays, or of shapes with shardings, by item.

        Raises:
          DamagedError: a file cannot be read, or an array is not what was written.
          WorkdirError: a path, shape or dtype differs, or is float64 and that is off.
        """
        meta = self._readable_meta(step)
        other = metadata.shape_differences(meta, metadata.shapes_of(like))
        if other and metadata.wide_arrays(meta):
            raise self._error(
                f"checkpoint {step} was trained in 64 bits, by release 0.2.0 or before",
                "It restores and evaluates; init_from takes its parameters to a new "
                "run in float32.",
            )
        if other:
            raise self._error(
                f"checkpoint {step} holds other arrays: {'; '.join(other)}",
                "Use the stored config, or another workdir.",
            )
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, dict(like))
        return self._read(step, abstract, meta)

    def restore_model(self, step: int, devices: Mesh) -> tuple[dict[str, Any], dict]:
        """Returns (the `model` item placed on a mesh, meta), without any template.

        Raises:
          DamagedError: a file cannot be read, or an array is not what was written.
          WorkdirError: a newer release wrote it, or its numbers are float64 and that is
            off.
        """
        meta = self._readable_meta(step)
        placed = mesh.placed_shapes(metadata.model_template(meta), devices)
        return self._read(step, {"model": placed}, meta)["model"], meta

    def _readable_meta(self, step: int) -> dict[str, Any]:
        """Returns the JSON of a step whose arrays JAX can hold as they are."""
        meta = self.read_meta(step)
        wide = metadata.wide_arrays(meta)
        if wide and jnp.result_type(float) != jnp.float64:
            path, dtype = next(iter(wide.items()))
            more = f" and {len(wide) - 1} more" if len(wide) > 1 else ""
            raise self._error(
                f"checkpoint {step} holds {dtype} numbers, in {path}{more}",
                "Set JAX_ENABLE_X64=1, as where it was written.",
            )
        return meta

    def _read(
        self, step: int, abstract: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns the items of a step, each array compared with its checksum."""
        arguments = {k: ocp.args.StandardRestore(v) for k, v in abstract.items()}
        composite = ocp.args.Composite(**arguments)
        log_filters.background_failures()
        try:
            with log_filters.below(logging.ERROR):
                restored = self._manager.restore(step, args=composite)
            items = {name: restored[name] for name in abstract}
        except Exception as error:  # Orbax raises this very class, among others
            if not failures.is_failed_read(error):
                raise
            raise self._unreadable(step, error) from error
        wrong = metadata.changed_arrays(meta, items)
        if wrong:
            more = f" and of {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise self._damaged(step, f"the checksum of {wrong[0]} differs{more}")
        return items

    def _marker(self, step: int) -> epath.Path:
        return self.folder / f"{step}.damaged"

    def _is_marked(self, step: int) -> bool:
        return files.is_bucket(self.folder) and self._marker(step).exists()

    def _unreadable(self, step: int, error: Exception) -> Exception:
        """Returns what to raise for a read that failed."""
        if any(word in str(error) for word in distributed.LOST_PROCESS):
            return error
        if not (self.folder / str(step)).exists():
            self._manager.reload()
            return self._error(
                f"checkpoint {step} was removed while it was read",
                f"Use another step; there are {self.steps()}.",
            )
        if not failures.is_out_of_reach(error):
            return self._damaged(step, failures.explained(error))
        return self._error(
            f"checkpoint {step} cannot be read: {first_line(error.__cause__ or error)}",
            "It may be whole; make it readable and run the same command again.",
        )

    def _error(self, what: str, fix: str) -> WorkdirError:
        return WorkdirError(what, where=str(self.folder), fix=fix)

    def _damaged(self, step: int, why: str) -> DamagedError:
        return DamagedError(
            f"checkpoint {step} is damaged: {why}",
            where=str(self.folder),
            fix=f"Use another step; there are {self.steps()}.",
        )
