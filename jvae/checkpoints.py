"""Checkpoints: what a run saves, and how it is found and read again.

WORKDIR/checkpoints/N holds three items: `model` (params, ema, state: all that sampling
needs), `training` (optimizer state and step) and `meta` (JSON: config, array shapes,
versions). WORKDIR/best/N holds `model` and `meta` of the best evaluation so far. No
pickle; nothing that is read runs code.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

import jvae
from jvae import mesh
from jvae.errors import WorkdirError

FORMAT = 1
"""Raised when an older release could not read what this one writes."""
CHECKPOINTS, BEST = "checkpoints", "best"

Shapes = dict[str, list]
"""{'model/params/...': [[sizes], dtype]}, what the JSON says about the arrays."""


def path_name(path: tuple) -> str:
    """Returns 'params/encoder/Dense_0/kernel' for a key path of a pytree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def shapes_of(items: Mapping[str, Any]) -> Shapes:
    """Returns the shape and dtype of every array of `items`, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(dict(items))
    return {path_name(path): [list(x.shape), str(x.dtype)] for path, x in leaves}


class Checkpoints:
    """The checkpoints of one folder.

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
        self.folder = epath.Path(folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            create=not read_only,
            read_only=read_only,
            enable_async_checkpointing=not read_only,
            cleanup_tmp_directories=not read_only,
            # A step without its commit file was never finished and is not listed.
            atomicity_options=ocp.options.AtomicityOptions(
                mode=ocp.options.AtomicityMode.COMMIT_FILE
            ),
        )
        with _without_warnings():  # two lines that say it is read only, as asked for
            self._manager = ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """Returns the finished steps, oldest first."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """Returns the newest finished step, None if there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def save(
        self, step: int, items: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> None:
        """Begins to write a step; arrays may change as soon as this returns.

        Args:
          step: its number.
          items: pytrees of arrays by name.
          meta: JSON, stored beside them with shapes, format and version.

        Raises:
          WorkdirError: Orbax would not write the step.
        """
        stored = {**meta, "step": step, "format": FORMAT, "shapes": shapes_of(items)}
        stored |= {"jvae": jvae.__version__, "jax": jax.__version__}
        arguments = {k: ocp.args.StandardSave(v) for k, v in items.items()}
        composite = ocp.args.Composite(meta=ocp.args.JsonSave(stored), **arguments)
        if not self._manager.save(step, args=composite, force=True):
            raise WorkdirError(
                f"checkpoint {step} was not written: it or a later one is there",
                where=str(self.folder),
                fix="Move that step away.",
            )

    def read_meta(self, step: int) -> dict[str, Any]:
        """Returns the JSON of a step.

        Raises:
          WorkdirError: it cannot be read, or a newer release wrote it.
        """
        arguments = ocp.args.Composite(meta=ocp.args.JsonRestore())
        try:
            meta = self._manager.restore(step, args=arguments)["meta"]
        except (ValueError, KeyError, OSError) as error:
            raise self._damaged(step, error) from error
        if not isinstance(meta, dict) or meta.get("format", FORMAT + 1) > FORMAT:
            version = meta.get("jvae", "?") if isinstance(meta, dict) else "?"
            raise WorkdirError(
                f"checkpoint {step} was written by jvae {version}, newer than "
                f"{jvae.__version__}",
                where=str(self.folder),
                fix="Upgrade jvae.",
            )
        return meta

    def restore(
        self, step: int, like: Mapping[str, Any], allow_dtypes: bool = False
    ) -> dict[str, Any]:
        """Returns the items of a step, shaped, typed and placed as `like`.

        Args:
          step: its number.
          like: pytrees of arrays, or of shapes with shardings, by item.
          allow_dtypes: whether arrays may be cast to the dtypes of `like`.

        Raises:
          WorkdirError: a path, shape or dtype differs, or a file is damaged.
        """
        meta = self.read_meta(step)
        self._check_shapes(step, meta["shapes"], shapes_of(like), allow_dtypes)
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, dict(like))
        arguments = {k: ocp.args.StandardRestore(v) for k, v in abstract.items()}
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except (ValueError, KeyError, OSError) as error:
            raise self._damaged(step, error) from error
        return {name: restored[name] for name in like}

    def restore_model(self, step: int, devices: Mesh) -> tuple[dict[str, Any], dict]:
        """Returns (the `model` item placed on a mesh, meta), without any template."""
        meta = self.read_meta(step)
        tree: dict[str, Any] = {"params": {}, "ema": None, "state": {}}
        for path, (shape, dtype) in meta["shapes"].items():
            item, *parents, leaf = path.split("/")
            if item != "model":
                continue
            node = tree
            for name in parents:
                node[name] = node.get(name) or {}
                node = node[name]
            node[leaf] = jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
        placed = jax.tree.map(
            lambda s, sharding: jax.ShapeDtypeStruct(
                s.shape, s.dtype, sharding=sharding
            ),
            tree,
            mesh.parameter_shardings(tree, devices),
        )
        arguments = ocp.args.Composite(model=ocp.args.StandardRestore(placed))
        try:
            return self._manager.restore(step, args=arguments)["model"], meta
        except (ValueError, KeyError, OSError) as error:
            raise self._damaged(step, error) from error

    def wait(self) -> None:
        """Returns when everything begun is on disk.

        Raises:
          WorkdirError: a save failed.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (ValueError, OSError) as error:
            raise WorkdirError(
                f"a checkpoint could not be written: {_first_line(error)}",
                where=str(self.folder),
                fix="Make room or choose another workdir; older checkpoints are whole.",
            ) from error

    def close(self) -> None:
        """Waits and lets go of the folder."""
        self.wait()
        self._manager.close()

    def _check_shapes(
        self, step: int, stored: Shapes, wanted: Shapes, allow_dtypes: bool
    ) -> None:
        items = {path.partition("/")[0] for path in wanted}
        stored = {k: v for k, v in stored.items() if k.partition("/")[0] in items}
        differences = []
        for path in sorted({*stored, *wanted}):
            a, b = stored.get(path), wanted.get(path)
            same = a == b or (allow_dtypes and a and b and a[0] == b[0])
            if not same:
                differences.append(f"{path}: {_text(a)} there, {_text(b)} here")
        if differences:
            raise WorkdirError(
                f"checkpoint {step} holds other arrays: {'; '.join(differences)}",
                where=str(self.folder),
                fix="Use the stored config, or another workdir.",
            )

    def _damaged(self, step: int, error: Exception) -> WorkdirError:
        return WorkdirError(
            f"checkpoint {step} cannot be read: {_first_line(error)}",
            where=str(self.folder),
            fix=f"Use another step; there are {self.steps()}.",
        )


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _text(entry: list | None) -> str:
    return "nothing" if entry is None else f"{entry[1]}{list(entry[0])}"


def choose(workdir: epath.PathLike, step: str | int) -> tuple[Checkpoints, int]:
    """Returns (the folder that holds a step, its number), opened for reading only.

    Args:
      workdir: a run's folder.
      step: 'best' (the last one where no evaluation has run yet), 'last', or a number.

    Raises:
      WorkdirError: no such workdir, checkpoint or step; says which steps there are.
    """
    root = epath.Path(workdir)
    found: dict[str, Checkpoints] = {
        name: Checkpoints(root / name, read_only=True)
        for name in (CHECKPOINTS, BEST)
        if (root / name).is_dir()
    }
    steps = {name: c.steps() for name, c in found.items()}
    if not any(steps.values()):
        raise WorkdirError(
            "there is no checkpoint", where=str(root), fix="Name the workdir of a run."
        )
    order = [CHECKPOINTS, BEST] if step != "best" else [BEST, CHECKPOINTS]
    for name in order:
        if step in ("best", "last") and steps.get(name):
            return found[name], steps[name][-1]
        if step in steps.get(name, []):
            return found[name], int(step)
    there = sorted({s for numbers in steps.values() for s in numbers})
    raise WorkdirError(
        f"there is no checkpoint {step!r}", where=str(root), fix=f"There are {there}."
    )
