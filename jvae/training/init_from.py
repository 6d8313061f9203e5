"""Parameters of another run, where they fit."""

from __future__ import annotations

import jax
from etils import epath
from jax.sharding import Mesh

from jvae.data.vocabulary import Vocabulary
from jvae.errors import WorkdirError
from jvae.pretrained.restore import params_of
from jvae.types import Params
from jvae.workdir import checkpoints
from jvae.workdir.checksums import by_path


def matching_params(
    params: Params,
    workdir: epath.PathLike,
    devices: Mesh,
    vocabulary: Vocabulary | None = None,
) -> tuple[Params, frozenset[str], str]:
    """Returns (`params` with those of another run where they fit, which, a report).

    A parameter is taken if path and shape agree. The report says in words which were
    and which were not.

    Args:
      params: of a new model, placed.
      workdir: the other run's; its best checkpoint is read.
      devices: the mesh.
      vocabulary: of the new model's sentences; None of others.

    Raises:
      WorkdirError: there is no checkpoint, nothing in it fits, or its sentences are
        encoded by another vocabulary.
    """
    folder, step = checkpoints.choose(workdir, "best")
    item, meta = folder.restore_model(step, devices)
    if Vocabulary.of_labels(meta) != vocabulary:
        raise WorkdirError("has another vocabulary than this run", where=str(workdir))

    theirs, mine = by_path(params_of(item, "ema")), by_path(params)
    loaded = {
        name: theirs[name].astype(value.dtype)
        for name, value in mine.items()
        if name in theirs and theirs[name].shape == value.shape
    }

    if not loaded:
        raise WorkdirError(
            "none of its parameters fits this model",
            where=str(workdir),
            fix="Set init_from to a run of a like model.",
        )

    leaves = {**mine, **loaded}.values()
    merged = jax.tree.unflatten(jax.tree.structure(params), leaves)
    new = ", ".join(name for name in mine if name not in loaded) or "-"
    text = f"loaded from {workdir}: {', '.join(loaded)}; new: {new}"
    return merged, frozenset(loaded), text
