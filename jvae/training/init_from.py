"""Parameters of another run, where they fit."""

from __future__ import annotations

import jax
from etils import epath
from jax.sharding import Mesh

from jvae.data.vocabulary import Vocabulary
from jvae.errors import WorkdirError
from jvae.pretrained.restore import params_of, vocabulary_of
from jvae.types import Params
from jvae.workdir import checkpoints, metadata


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
    if vocabulary_of(meta) != vocabulary:
        raise WorkdirError("has another vocabulary than this run", where=str(workdir))
    theirs = {
        metadata.path_name(path): value
        for path, value in jax.tree_util.tree_leaves_with_path(params_of(item, "ema"))
    }
    loaded: list[str] = []
    unmatched: list[str] = []

    def choose(path, mine):
        name = metadata.path_name(path)
        other = theirs.get(name)
        if other is None or other.shape != mine.shape:
            unmatched.append(name)
            return mine
        loaded.append(name)
        return other.astype(mine.dtype)

    merged = jax.tree_util.tree_map_with_path(choose, params)
    if not loaded:
        raise WorkdirError(
            "none of its parameters fits this model",
            where=str(workdir),
            fix="Set init_from to a run of a like model.",
        )
    new = ", ".join(unmatched) or "-"
    text = f"loaded from {workdir}: {', '.join(loaded)}; new: {new}"
    return merged, frozenset(loaded), text
