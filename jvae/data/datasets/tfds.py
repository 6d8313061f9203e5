"""TensorFlow Datasets, read from disk without TensorFlow and without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jvae import registry
from jvae.data import digest
from jvae.data.checks import as_labels, clip_rounding
from jvae.data.datasets import image_files
from jvae.data.datasets.tfds_folders import (
    damaged,
    has_random_access,
    prepare_command,
    prepared_folder,
)
from jvae.data.libraries import library
from jvae.data.sources import Examples, Shapes, Source, Splits, cached_if_small
from jvae.errors import DataError, first_line, require
from jvae.ranges import PositiveInt

DAMAGED = (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError)
"""What tensorflow_datasets raises at metadata and records that are not as it wrote."""


@registry.checked("data")
def tfds(
    dataset: str,
    data_dir: str | None = None,
    train_split: str = "train",
    test_split: str = "test",
    image: str = "image",
    label: str = "label",
    height: PositiveInt | None = None,
    width: PositiveInt | None = None,
    crop: PositiveInt | None = None,
) -> Splits:
    """Returns a prepared TensorFlow data set. Nothing is ever downloaded.

    Args:
      dataset: A name ('mnist', 'mnist:3.0.1', 'name/config'), or the path of a folder
        with a dataset_info.json.
      data_dir: Where prepared data sets are; without it $TFDS_DATA_DIR, or
        ~/tensorflow_datasets.
      train_split: A split, or a part of one such as 'train[:90%]'.
      test_split: A split, or a part of one.
      image: The feature that holds the image.
      label: The feature that holds the class; a data set may do without.
      height: Of an image in pixels; without it as stored.
      width: Of an image in pixels; without it as height.
      crop: Side in pixels of the centred square that is cut out before resizing, such
        as 148 for CelebA; without it the largest area of the right proportions.

    Raises:
      ConfigError: a number out of range, or tensorflow-datasets is not installed.
      DataError: no such data set, not prepared, stored as tfrecord, or damaged; the
        message says which command helps.
    """
    alone = height is None and (width is not None or crop is not None)
    require(not alone, "data.height", "be given with data.width and data.crop", height)

    folder = prepared_folder(dataset, data_dir)
    if not has_random_access(folder):
        raise DataError(
            "stored as tfrecord, which has no random access",
            where=str(folder),
            fix=f"Convert it: {prepare_command(dataset, data_dir)}",
        )

    builder = _open(folder)
    layout = _layout(builder, image, label)
    if height is not None:
        dtype, channels = builder.info.features[image].np_dtype, layout.stored[2]
        if dtype != np.uint8 or channels not in (1, 3, 4):
            raise DataError(
                f"only uint8 images of 1, 3 or 4 channels can be resized, got {dtype} "
                f"of {channels}",
                where=str(folder),
            )
        layout = dataclasses.replace(layout, size=(height, width or height), crop=crop)

    return Splits(
        train=_split(builder, train_split, layout),
        test=_split(builder, test_split, layout),
        num_classes=layout.num_classes,
    )


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is read of an example.

    Attributes:
      image: the name of the image feature.
      label: the name of the label feature, None without labels.
      stored: (height, width, channels) on disk, None where it varies.
      num_classes: how many classes there are, None if that is not known.
      size: (height, width) to resize to, None to leave images as stored.
      crop: see `image_files.fit`.
    """

    image: str
    label: str | None
    stored: tuple[int | None, ...]
    num_classes: int | None
    size: tuple[int, int] | None = None
    crop: int | None = None

    def pixels(self, stored: np.ndarray, where: str) -> np.ndarray:
        """Returns the image [height, width, channels] as it was asked for."""
        if np.issubdtype(stored.dtype, np.floating):
            stored = clip_rounding(stored.astype(np.float32))
        if self.size is None:
            return stored.reshape(self.shape)
        image = library("PIL.Image", "pillow")
        gray = self.stored[-1] == 1
        picture = image.fromarray(stored.reshape(stored.shape[:2]) if gray else stored)
        return image_files.fit(picture, *self.size, self.crop, where)

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, channels) of what is returned."""
        full = (*(self.size or self.stored[:2]), self.stored[2])
        return tuple(int(n) for n in full if n is not None)


@dataclasses.dataclass(frozen=True)
class Records:
    """A split that reads and decodes its records when they are asked for.

    Attributes:
      reader: the random access reader of tensorflow_datasets.
      shards: (file, first record, number of records) in order.
      layout: what is read of an example.
    """

    reader: Any
    shards: tuple[tuple[str, int, int], ...]
    layout: Layout

    @property
    def shapes(self) -> Shapes:
        """The shape of one example by name."""
        image: Shapes = {"image": self.layout.shape}
        return {**image, "label": ()} if self.layout.label else image

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.reader)

    def read(self, indices: np.ndarray) -> Examples:
        """Returns the examples at `indices`, read and decoded now."""
        keys, records = self.records(indices)
        layout, pairs = self.layout, zip(keys, records, strict=True)
        images = [layout.pixels(r[layout.image], f"record {key}") for key, r in pairs]
        examples = {"image": np.stack(images)}
        if layout.label:
            labels = [record[layout.label] for record in records]
            examples["label"] = as_labels(np.array(labels), f"records {keys}")
        return examples

    def records(self, indices: np.ndarray) -> tuple[list[int], list[Any]]:
        """Returns (numbers, records as they are stored)."""
        keys = [int(index) for index in indices]
        try:
            return keys, self.reader.__getitems__(keys)
        except DAMAGED as error:
            raise self._damage(keys, error) from error

    def ends(self) -> np.ndarray:
        """Returns the index of the last record of every shard."""
        return np.cumsum([number for _, _, number in self.shards]) - 1

    def _damage(self, keys: list[int], error: Exception) -> DataError:
        """Returns the error that names the first record that cannot be read."""
        for key in keys:
            try:
                self.reader[key]
            except DAMAGED as one:
                shard = int(np.searchsorted(self.ends(), key))
                file, first, number = self.shards[shard]
                record = key - (int(self.ends()[shard]) - number + 1) + first
                return damaged(
                    f"record {record} cannot be read: {first_line(one)}", file
                )
        return DataError(f"records cannot be read: {first_line(error)}")


@digest.stored.register
def _(source: Records, indices: np.ndarray) -> Iterator[bytes]:
    for record in source.records(indices)[1]:
        yield np.asarray(record[source.layout.image]).tobytes()


def _open(folder: Path) -> Any:
    """Returns the builder of the data set in `folder`."""
    datasets = library("tensorflow_datasets", "tensorflow-datasets")
    parse_error = library("google.protobuf.json_format", "protobuf").ParseError
    try:
        return datasets.builder_from_directory(folder)
    except (*DAMAGED, parse_error) as error:
        raise damaged(f"damaged metadata: {first_line(error)}", folder) from error


def _layout(builder: Any, image: str, label: str) -> Layout:
    """Returns what to read; the features must be there and of the right kind."""
    features, where = builder.info.features, str(builder.data_path)
    for field, name in {"image": image, "label": label}.items():
        # The default 'label' is a feature that a data set need not have.
        is_optional = field == "label" and name == "label"
        if name not in features and not is_optional:
            raise DataError(
                f"no feature {name!r}, there is {', '.join(sorted(features))}",
                where=where,
                fix=f"Set data.{field}.",
            )

    shape = features[image].shape
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or shape[-1] is None:
        raise DataError(
            f"feature {image!r} is no image, its shape is {shape}", where=where
        )

    if label not in features:
        return Layout(image, None, shape, None)
    kind = features[label]
    if kind.shape != () or not np.issubdtype(kind.np_dtype, np.integer):
        raise DataError(f"feature {label!r} is no class but {kind}", where=where)
    class_label = library("tensorflow_datasets", "tensorflow-datasets").features
    is_class = isinstance(kind, class_label.ClassLabel)
    return Layout(image, label, shape, kind.num_classes if is_class else None)


def _split(builder: Any, name: str, layout: Layout) -> Source:
    """Returns one split, after a look into each of its files."""
    where = str(builder.data_path)
    if layout.size is None and None in layout.stored:
        raise DataError(
            "images differ in size", where=where, fix="Give data.height and data.width."
        )
    try:
        # First, since it chooses among the formats on disk and so decides the files.
        reader = builder.as_data_source(name)
        files = builder.info.splits[name].file_instructions
    except DAMAGED as error:
        raise DataError(f"split {name!r}: {first_line(error)}", where=where) from error
    shards = tuple((str(f.filename), int(f.skip), int(f.take)) for f in files)
    records = Records(reader, shards, layout)
    # Now, not hours later: a file may be missing or cut short.
    records.read(records.ends())
    return cached_if_small(records)
