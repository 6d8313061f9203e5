"""Prepares a TensorFlow data set for jvae: jvae prepare NAME.

Downloads it where it is not on disk, converts it where it is stored as tfrecord. This
is the only part of jvae that needs TensorFlow, and the only one that downloads.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from jvae.data.datasets.tfds_folders import (
    damaged,
    data_folder,
    find_prepared,
    has_random_access,
    missing,
    read_json,
)
from jvae.data.libraries import library
from jvae.errors import ConfigError, DataError


def prepare_dataset(dataset: str, data_dir: str | None = None) -> Path:
    """Returns the folder of `dataset`, readable by jvae's 'tfds' from now on.

    Args:
      dataset: a name, or the path of a prepared data set to convert.
      data_dir: where data sets are; None: $TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      ConfigError: TensorFlow is not installed.
      DataError: there is no such data set, it is damaged, or cannot be downloaded.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ConfigError(
            "TensorFlow is not installed and preparing data needs it",
            fix="Run: pip install 'jvae[tf]'.",
        )
    folder = find_prepared(dataset, data_dir)
    if folder is None:
        return _download(dataset, data_dir)
    if not has_random_access(folder):
        _convert(folder)
    return folder


def _download(dataset: str, data_dir: str | None) -> Path:
    """Returns the folder of a data set made by TensorFlow Datasets."""
    datasets = library("tensorflow_datasets", "tensorflow-datasets")
    root = str(data_folder(data_dir))
    try:
        builder = datasets.builder(dataset, data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    except datasets.core.DatasetNotFoundError as error:
        raise missing(dataset, data_dir) from error
    except OSError as error:
        raise DataError(
            f"{dataset} cannot be prepared: {error}",
            where=root,
            fix="Check the network and the disk, then run this again.",
        ) from error
    return Path(builder.data_path)


def _convert(folder: Path) -> None:
    """Writes every tfrecord file of `folder` as array_record beside it.

    Both formats hold the same serialized examples.
    """
    tensorflow = library("tensorflow", "jvae[tf]")
    writers = library("array_record.python.array_record_module", "array_record")
    for file in sorted(folder.glob("*.tfrecord-*")):
        target = folder / file.name.replace(".tfrecord-", ".array_record-")
        unfinished = target.with_name(f"unfinished.{target.name}")
        writer = writers.ArrayRecordWriter(str(unfinished), "group_size:1")
        try:
            for record in tensorflow.data.TFRecordDataset(str(file)):
                writer.write(record.numpy())
        except tensorflow.errors.OpError as error:
            raise damaged(f"cannot be read: {error.message}", file) from error
        finally:
            writer.close()
        unfinished.replace(target)
    # Last, so that an interrupted conversion is not taken for a finished one.
    info_file = folder / "dataset_info.json"
    info = read_json(info_file)
    others = [*info.get("alternativeFileFormats", []), "array_record"]
    info_file.write_text(json.dumps({**info, "alternativeFileFormats": others}))
