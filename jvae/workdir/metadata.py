"""What a checkpoint says about itself: a JSON beside the arrays.

It is enough to restore them without the data set, the optimizer or the flags, and to
notice that one of them, or the JSON itself, is not what was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

import jvae
from jvae.workdir.checksums import by_path, checksums

FORMAT = 1
"""Raised when an older release could not read what this one writes."""

WIDE = ("float64", "int64", "uint64", "complex128")

Shapes = dict[str, list]
"""{'model/params/...': [[sizes], dtype]}, of every array."""


def shapes_of(items: Mapping[str, Any]) -> Shapes:
    """Returns the shape and dtype of every array of `items`, by path."""
    leaves = by_path(dict(items)).items()
    return {path: [list(x.shape), str(x.dtype)] for path, x in leaves}


def describe(
    step: int, items: Mapping[str, Any], labels: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the manifest of a step.

    Args:
      step: its number.
      items: pytrees of arrays by name.
      labels: what else it is to hold, such as the config.

    Returns:
      `labels` and 'step', 'format', 'shapes', 'checksums', 'jvae', 'jax', 'digest'.
    """
    description = {**labels, "step": step, "format": FORMAT, "shapes": shapes_of(items)}
    description |= {"checksums": checksums(dict(items))}
    description |= {"jvae": jvae.__version__, "jax": jax.__version__}
    return description | {"digest": digest(description)}


def digest(manifest: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a manifest without its entry 'digest'."""
    rest = {k: v for k, v in manifest.items() if k != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def is_changed(manifest: Mapping[str, Any]) -> bool:
    """Returns whether a manifest is not the one that was written.

    The first checkpoints of release 0.1.0 have neither digest nor checksums.
    """
    return manifest.get("digest", digest(manifest)) != digest(manifest)


def changed_arrays(manifest: Mapping[str, Any], items: Mapping[str, Any]) -> list[str]:
    """Returns the paths of the arrays of `items` that are not those written."""
    written = manifest.get("checksums", {})
    sums = checksums(dict(items))
    return [path for path, value in sums.items() if written.get(path, value) != value]


def is_complete(manifest: Mapping[str, Any]) -> bool:
    """Returns whether a manifest has the parts that restoring reads, each of its kind.

    Its digest says whether they are those that were written.
    """
    config, shapes = manifest["config"], manifest["shapes"]
    words = manifest.get("vocabulary") or []
    return (
        isinstance(config, dict)
        and isinstance(config.get("seed", 0), int)
        and isinstance(words, list)
        and all(isinstance(word, str) for word in words)
        and isinstance(shapes, dict)
        and all(isinstance(s, list) and _is_shape(*s) for s in shapes.values())
        and _are_leaves(shapes)
    )


def _are_leaves(paths: Iterable[str]) -> bool:
    """Returns whether no path is a folder of another."""
    parts = [path.split("/") for path in paths]
    folders = {"/".join(p[:i]) for p in parts for i in range(1, len(p))}
    return folders.isdisjoint(paths)


def _is_shape(sizes: Any = None, dtype: Any = None, *more: Any) -> bool:
    are_sizes = isinstance(sizes, list) and all(isinstance(n, int) for n in sizes)
    return are_sizes and isinstance(dtype, str) and not more


def shape_differences(manifest: Mapping[str, Any], expected: Shapes) -> list[str]:
    """Returns 'PATH: float32[3] there, nothing here' where items are not as wanted.

    Items of which nothing is wanted do not count.
    """
    items = {path.partition("/")[0] for path in expected}
    entries = manifest["shapes"].items()
    stored = {p: entry for p, entry in entries if p.partition("/")[0] in items}
    return [
        f"{path}: {_text(stored.get(path))} there, {_text(expected.get(path))} here"
        for path in sorted({*stored, *expected})
        if stored.get(path) != expected.get(path)
    ]


def wide_arrays(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Returns {path: dtype} of the arrays that JAX holds with JAX_ENABLE_X64 alone."""
    entries = sorted(manifest["shapes"].items())
    return {path: dtype for path, (_, dtype) in entries if dtype in WIDE}


def _text(entry: list | None) -> str:
    return "nothing" if entry is None else f"{entry[1]}{list(entry[0])}"


def model_template(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the item 'model' with shapes in place of arrays: params, ema, state."""
    leaves = {
        path.removeprefix("model/"): jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
        for path, (shape, dtype) in manifest["shapes"].items()
        if path.startswith("model/")
    }
    tree = traverse_util.unflatten_dict(leaves, sep="/")
    return {"params": {}, "ema": None, "state": {}, **tree}
