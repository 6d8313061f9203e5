"""A tree of arrays and what is to be said of it, in one npz file that runs no code."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jvae.errors import WorkdirError
from jvae.workdir import files

ABOUT = "about"


def write_npz(path: epath.PathLike, tree: Any, about: Mapping[str, Any]) -> None:
    """Writes a file, whole or not at all; its folder is made if missing.

    Args:
      path: ends with '.npz'.
      tree: nested dicts, or a dataclass of these, of arrays.
      about: JSON.
    """
    entries: dict[str, Any] = {
        jax.tree_util.keystr(place, simple=True, separator="/"): np.asarray(value)
        for place, value in jax.tree_util.tree_leaves_with_path(tree)
    }
    entries[ABOUT] = np.array(json.dumps(dict(about)))
    buffer = io.BytesIO()
    np.savez(buffer, **entries)
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(target, buffer.getvalue())


def read_npz(path: epath.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns (nested dicts of arrays, what was said of them).

    Raises:
      WorkdirError: no such file, or one that is damaged.
    """
    try:
        blob = io.BytesIO(epath.Path(path).read_bytes())
        with np.load(blob, allow_pickle=False) as archive:
            about = json.loads(str(archive[ABOUT]))
            tree: dict[str, Any] = {}
            for name in archive.files:
                if name != ABOUT:
                    *parents, leaf = name.split("/")
                    place = tree
                    for parent in parents:
                        place = place.setdefault(parent, {})
                    place[leaf] = jnp.asarray(archive[name])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise WorkdirError(
            f"arrays cannot be read: {error}",
            where=str(path),
            fix="Delete the file; it is made again.",
        ) from error
    return tree, about
