"""A tree of arrays and what is to be said of it, in one npz file that runs no code."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import traverse_util

from jvae.errors import UNREADABLE_NPZ, WorkdirError
from jvae.workdir import files
from jvae.workdir.checksums import by_path

ABOUT = "about"


def write_npz(path: epath.PathLike, tree: Any, about: Mapping[str, Any]) -> None:
    """Writes a file, whole or not at all; its folder is made if missing.

    Args:
      path: ends with '.npz'.
      tree: nested dicts, or a dataclass of these, of arrays.
      about: JSON.
    """
    entries: dict[str, Any] = {
        path: np.asarray(value) for path, value in by_path(tree).items()
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
        if not epath.Path(path).is_file():  # of a pipe there would be no end
            raise FileNotFoundError("there is no such file")
        blob = io.BytesIO(epath.Path(path).read_bytes())
        with np.load(blob, allow_pickle=False) as archive:
            about = dict(json.loads(str(archive[ABOUT])))
            names = [name for name in archive.files if name != ABOUT]
            leaves = {name: jnp.asarray(archive[name]) for name in names}
            tree = traverse_util.unflatten_dict(leaves, sep="/")
    except UNREADABLE_NPZ as error:
        raise unreadable(path, error) from error
    return tree, about


def unreadable(path: epath.PathLike, error: Exception) -> WorkdirError:
    """Returns the error of a file that is not what `write_npz` has written."""
    return WorkdirError(
        f"arrays cannot be read: {error}",
        where=str(path),
        fix="Delete it; it is made again.",
    )
