"""Samplers on disk, beside the checkpoint that they belong to."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jvae import manifest, storage
from jvae.errors import ConfigError, WorkdirError
from jvae.samplers.flow import FlowSampler
from jvae.samplers.mixture import MixtureSampler
from jvae.samplers.neighbours import NeighbourSampler

FOLDER = "samplers"
ABOUT = "about"
KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (MixtureSampler, NeighbourSampler, FlowSampler)
}


def folder_of(workdir: epath.PathLike, step: int, params: str) -> epath.Path:
    """Returns where the samplers of a step lie, WORKDIR/samplers/STEP_ema.

    Args:
      workdir: of the run.
      step: of the checkpoint.
      params: 'ema' or 'raw'.
    """
    return storage.absolute(workdir) / FOLDER / f"{step:08d}_{params}"


def names(folder: epath.PathLike) -> list[str]:
    """Returns the names of the samplers that a folder has."""
    path = epath.Path(folder)
    return sorted(f.stem for f in path.glob("*.npz")) if path.is_dir() else []


def save(
    sampler: Any, name: str, folder: epath.PathLike, about: dict[str, Any]
) -> None:
    """Writes a sampler to FOLDER/NAME.npz, whole or not at all.

    Args:
      sampler: one of `KINDS`.
      name: that it is asked for by.
      folder: from `folder_of`; made if missing.
      about: JSON, how it was fitted.
    """
    leaves = jax.tree_util.tree_leaves_with_path(sampler)
    arrays = {manifest.path_name(path): np.asarray(a) for path, a in leaves}
    numbers = {
        n: getattr(sampler, n) for n in ("depth", "width") if hasattr(sampler, n)
    }
    text = json.dumps({"kind": type(sampler).__name__, "fields": numbers, **about})
    buffer = io.BytesIO()
    entries: dict[str, Any] = {**arrays, ABOUT: np.array(text)}
    np.savez(buffer, **entries)
    path = epath.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    unfinished = path / f"{name}.npz.unfinished"
    unfinished.write_bytes(buffer.getvalue())
    unfinished.rename(path / f"{name}.npz")


def load(name: str, folder: epath.PathLike) -> Any:
    """Returns a saved sampler.

    Nothing in the file runs code.

    Args:
      name: of the sampler.
      folder: from `folder_of`.

    Raises:
      ConfigError: there is none of that name; says which there are.
      WorkdirError: the file is damaged.
    """
    path = epath.Path(folder) / f"{name}.npz"
    if not path.exists():
        there = ", ".join(names(folder)) or "none"
        raise ConfigError(
            f"sampler {name!r} was not fitted for this checkpoint; there are: {there}",
            fix="python -m jvae.sample WORKDIR OUT --sampler=NAME fits one.",
        )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            about = json.loads(str(archive[ABOUT]))
            arrays = {n: jnp.asarray(archive[n]) for n in archive.files if n != ABOUT}
        return KINDS[about["kind"]](**_nested(arrays), **about["fields"])
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise WorkdirError(
            f"a sampler cannot be read: {error}",
            where=str(path),
            fix="Delete the file and fit it again.",
        ) from error


def _nested(arrays: dict[str, Any]) -> dict[str, Any]:
    """Returns {'params': {'a': {'b': x}}} for {'params/a/b': x}."""
    tree: dict[str, Any] = {}
    for name, value in arrays.items():
        *path, leaf = name.split("/")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value
    return tree
