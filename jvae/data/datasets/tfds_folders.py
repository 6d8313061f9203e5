"""Where prepared TensorFlow data sets are on disk, and in which format."""

from __future__ import annotations

import difflib
import json
import os
import re
from pathlib import Path
from typing import Any

from jvae.data.libraries import library
from jvae.errors import DataError

READABLE = ("array_record", "parquet")
"""File formats with random access; tfrecord has none."""
VERSION = re.compile(r"\d+\.\d+\.\d+")


def prepared_folder(dataset: str, data_dir: str | None) -> Path:
    """Returns the folder of a prepared data set.

    Args:
      dataset: a name, 'name:version', 'name/config', or the path of such a folder.
      data_dir: where data sets are; None: $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      DataError: there is none; the message has the nearest name, the configurations
        or versions that there are, or the command that prepares it.
    """
    folder = find_prepared(dataset, data_dir)
    if folder is None:
        raise missing(dataset, data_dir)
    return folder


def find_prepared(dataset: str, data_dir: str | None) -> Path | None:
    """Returns the folder of a prepared data set, None if it is not on disk.

    Args:
      dataset: see `prepared_folder`.
      data_dir: see `prepared_folder`.

    Raises:
      DataError: it is there in other versions, or in several configurations.
    """
    path = Path(dataset).expanduser()
    if dataset.startswith(("/", ".", "~")) or (path / "dataset_info.json").exists():
        return path
    root = data_folder(data_dir)
    name, _, version = dataset.partition(":")
    versions = _versions(root / name) or _only_config(root / name)
    if not versions:
        return None
    if version and version not in versions:
        raise DataError(
            f"{name} has no version {version}, there is {', '.join(versions)}",
            where=str(root),
        )
    newest = max(versions, key=lambda v: [int(number) for number in v.split(".")])
    return versions[version or newest]


def _only_config(folder: Path) -> dict[str, Path]:
    """Returns the versions of the one configuration in `folder`, {} without any."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    configs = {d.name: _versions(d) for d in inside if _versions(d)}
    if len(configs) > 1:
        raise DataError(
            f"{folder.name} has the configurations {', '.join(configs)}",
            where=str(folder),
            fix=f"Write '{folder.name}/{next(iter(configs))}'.",
        )
    return next(iter(configs.values()), {})


def data_folder(data_dir: str | None) -> Path:
    """Returns where prepared data sets are, as TensorFlow Datasets decides it.

    Args:
      data_dir: what the user said, None if nothing.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser()


def _versions(folder: Path) -> dict[str, Path]:
    """Returns the folders of versions in `folder` by version."""
    if not folder.is_dir():
        return {}
    entries = sorted(folder.iterdir())
    return {d.name: d for d in entries if VERSION.fullmatch(d.name) and d.is_dir()}


def missing(dataset: str, data_dir: str | None) -> DataError:
    """Returns the error for a data set that is not on disk.

    Args:
      dataset: see `prepared_folder`.
      data_dir: see `prepared_folder`.
    """
    root = data_folder(data_dir)
    datasets = library("tensorflow_datasets", "tensorflow-datasets")
    known = datasets.list_builders(with_community_datasets=False)
    name = re.split("[:/]", dataset)[0]
    if name in known:
        return DataError(
            f"TensorFlow data set {dataset!r} is not prepared",
            where=str(root),
            fix=f"Run: {prepare_command(dataset, data_dir)}",
        )
    local = [d.name for d in root.iterdir() if d.is_dir()] if root.is_dir() else []
    close = difflib.get_close_matches(name, [*local, *known], n=1, cutoff=0.5)
    return DataError(
        f"there is no TensorFlow data set {dataset!r}",
        where=str(root),
        fix=f"Did you mean {close[0]!r}?" if close else "",
    )


def prepare_command(dataset: str, data_dir: str | None) -> str:
    """Returns the command that prepares or converts a data set.

    Args:
      dataset: see `prepared_folder`.
      data_dir: see `prepared_folder`.
    """
    where = f" --data_dir {data_dir}" if data_dir else ""
    return f"jvae prepare {dataset}{where}"


def has_random_access(folder: Path) -> bool:
    """Returns whether a data set is stored in one of the `READABLE` formats.

    Args:
      folder: of a prepared data set.

    Raises:
      DataError: its metadata is missing or damaged.
    """
    read_json(folder / "features.json")
    info = read_json(folder / "dataset_info.json")
    formats = [info.get("fileFormat"), *info.get("alternativeFileFormats", [])]
    return any(name in READABLE for name in formats)


def read_json(file: Path) -> dict[str, Any]:
    """Returns the JSON object in `file`.

    Args:
      file: of metadata.

    Raises:
      DataError: it is missing, or holds something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"not a prepared TensorFlow data set: no {file.name}",
            where=str(file.parent),
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(f"damaged metadata: {error}", file) from error
    if not isinstance(content, dict):
        raise damaged("damaged metadata: no JSON object", file)
    return content


def damaged(what: str, where: str | Path) -> DataError:
    """Returns the error for a file or folder that is not as it was prepared."""
    return DataError(what, where=str(where), fix="Prepare the data set again.")
