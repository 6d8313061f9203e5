"""A folder of pictures."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from jvae import registry
from jvae.data import digest, rules
from jvae.data.datasets import image_files, image_folders
from jvae.data.datasets.image_folders import EXPECTED, File, Files
from jvae.data.files import existing_folder
from jvae.data.sources import Examples, Shapes, Source, Splits, cached_if_small
from jvae.errors import DataError, require
from jvae.ranges import Gt, Lt, NonNegativeInt, PositiveInt

logger = logging.getLogger("jvae")


@registry.checked("data")
def images(
    path: str,
    height: PositiveInt | None = None,
    width: PositiveInt | None = None,
    channels: Literal[1, 3] = 3,
    crop: PositiveInt | None = None,
    test_fraction: Annotated[float, Gt(0), Lt(1)] = 0.1,
    on_bad_image: Literal["raise", "skip"] = "raise",
    max_bad_images: NonNegativeInt = 10,
    rule: Literal[1, 2] | None = None,
) -> Splits:
    """Returns the PNG, JPEG, WebP, BMP, GIF and TIFF files of a folder as a data set.

    With folders train/ and test/ (and val/, if there is one) these are the splits, in
    capitals too, and as Training/, Testing/, valid/ or validation/. Without test/ the
    test split is val/, and without both it is `test_fraction` of each class, the same
    files each time. Folders inside a split are classes, numbered in the order of their
    names. Hidden folders and those that archives and network disks leave are none. What
    is left out is counted and named in a warning.

    `image_files.decode` says how pixel formats are converted. By rule 1, that of runs
    of releases up to 0.2.0, only PNG and JPEG files are read, pictures are not turned
    as their EXIF says, the splits are train/, test/ and validation/ alone, test data is
    drawn without regard to classes, and every folder is a class.

    Args:
      path: The folder; ~ is the home directory.
      height: Of an image in pixels; without it all files must have one size.
      width: Of an image in pixels; without it as height.
      channels: 1 for gray (0.299 R + 0.587 G + 0.114 B), 3 for colour.
      crop: Side in pixels of the centred square that is cut out before resizing, such
        as 148 for CelebA; without it the largest area of the right proportions.
      test_fraction: Share of test data where there is no folder of it.
      on_bad_image: 'raise' stops at a damaged file when it is read; 'skip' decodes all
        files at the start and leaves the damaged ones out.
      max_bad_images: How many damaged files 'skip' leaves out before it gives up.
      rule: By which the folder is read; without it the newest, and that of the run that
        goes on.

    Raises:
      ConfigError: a number out of range, width without height, no Pillow.
      DataError: no pictures, damaged pictures, sizes that differ.
    """
    is_alone = height is None and width is not None
    require(not is_alone, "data.height", "be given with data.width", height)
    image_files.refuse_bombs()
    root = existing_folder(path, EXPECTED)
    number: int = rule or rules.NEWEST["images"]

    splits = image_folders.find(root, number)
    if number == 1:
        splits = image_folders.with_test(splits, test_fraction, number)
    if on_bad_image == "skip":
        splits = without_bad(splits, max_bad_images)
    classes = _classes(splits, root)
    # Since rule 2 last, as the test data might all be damaged.
    splits = image_folders.with_test(splits, test_fraction, number)

    turned = number > 1
    if height is None:
        height, width = (crop, crop) if crop else common_size(splits, turned)
    shape = (height, width or height, channels)
    sources: dict[str, Source] = {
        name: cached_if_small(PictureFiles(tuple(files), shape, crop, classes, turned))
        for name, files in splits.items()
    }
    return Splits(**sources, num_classes=len(classes) or None)


@dataclasses.dataclass(frozen=True)
class PictureFiles:
    """A split that decodes its files when they are read.

    Attributes:
      files: the pictures.
      shape: (height, width, channels) of every image.
      crop: see `image_files.fit`.
      classes: the names of the classes in order, () without labels.
      turned: whether pictures are turned as their EXIF says.
    """

    files: tuple[File, ...]
    shape: tuple[int, int, int]
    crop: int | None
    classes: tuple[str, ...]
    turned: bool

    @property
    def shapes(self) -> Shapes:
        """The shape of one example by name."""
        image: Shapes = {"image": self.shape}
        return {**image, "label": ()} if self.classes else image

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.files)

    def read(self, indices: np.ndarray) -> Examples:
        """Returns the examples at `indices`, decoded now."""
        files = [self.files[i] for i in indices]
        examples = {"image": np.stack([self._image(file.path) for file in files])}
        if self.classes:
            labels = [self.classes.index(file.label) for file in files]
            examples["label"] = np.array(labels, np.int32)
        return examples

    def _image(self, path: Path) -> np.ndarray:
        height, width, channels = self.shape
        picture = image_files.decode(path, self.turned)
        picture = picture.convert("L" if channels == 1 else "RGB")
        return image_files.fit(picture, height, width, self.crop, str(path))


@digest.stored.register
def _(source: PictureFiles, indices: np.ndarray) -> Iterator[bytes]:
    """All names, the files at `indices` as they are, and whether they are turned."""
    if source.turned:
        yield b"turned as EXIF says\n"
    for file in source.files:
        yield os.fsencode(f"{file.label}/{file.path.name}\n")
    for index in indices:
        yield image_files.content(source.files[index].path)


def _classes(splits: dict[str, Files], root: Path) -> tuple[str, ...]:
    """Returns the names of the class folders, () if there are none."""
    names = {name: {file.label for file in files} for name, files in splits.items()}
    known = names["train"].union(*names.values())
    if known == {""}:
        return ()

    if "" in known:
        loose = [f.path.name for files in splits.values() for f in files if not f.label]
        raise DataError(
            "some pictures are in class folders and some are not: "
            f"{len(loose)} in none, such as {loose[0]}",
            where=str(root),
            fix="Move all into folders, one for each class, or none.",
        )

    strange = known - names["train"]
    if strange:
        raise DataError(
            f"classes without training pictures: {', '.join(sorted(strange))}",
            where=str(root),
            fix="Move some of each into the training folder, or remove these classes.",
        )
    return tuple(sorted(known))


def _labels(splits: dict[str, Files]) -> set[str]:
    return {file.label for files in splits.values() for file in files}


def without_bad(splits: dict[str, Files], limit: int) -> dict[str, Files]:
    """Returns `splits` without the files that cannot be decoded; logs their number.

    Args:
      splits: pictures by split.
      limit: how many may be bad.

    Raises:
      DataError: more than `limit` are bad.
    """

    def error(file: File) -> str:
        try:
            image_files.decode(file.path)
        except DataError as damage:
            return f"{damage.what} ({damage.where})"
        return ""

    good, bad = {}, []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, files in splits.items():
            errors = list(pool.map(error, files))
            good[name] = [f for f, e in zip(files, errors, strict=True) if not e]
            bad += [e for e in errors if e]
    if len(bad) > limit:
        raise DataError(
            f"{len(bad)} damaged pictures, max_bad_images is {limit}; the first: "
            f"{bad[0]}",
            fix="Replace them, or raise data.max_bad_images.",
        )
    if bad:
        text = "jvae: left out of damaged pictures (%d): %s"
        logger.warning(text, len(bad), "; ".join(bad))
    lost = _labels(splits) - _labels(good)
    if lost:
        text = "jvae: classes whose pictures are all damaged are none: %s"
        logger.warning(text, ", ".join(map(ascii, sorted(lost))))
    if not all(good.values()):
        raise DataError(
            f"all pictures of a split are damaged; the first: {bad[0]}",
            fix="Each split needs one that can be read.",
        )
    return good


def common_size(splits: dict[str, Files], turned: bool) -> tuple[int, int]:
    """Returns (height, width) of all pictures, read from their headers.

    Args:
      splits: pictures by split.
      turned: whether they are turned as their EXIF says.

    Raises:
      DataError: two of them differ.
    """
    paths = [file.path for files in splits.values() for file in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(lambda path: image_files.size(path, turned), paths))
    for path, other in zip(paths, sizes, strict=True):
        if other != sizes[0]:
            first, second = ("{}x{}".format(*size) for size in (sizes[0], other))
            raise DataError(
                f"pictures differ in size, {first} and {second}",
                where=f"{paths[0].name}, {path}",
                fix="Give data.height and data.width.",
            )
    return sizes[0]
