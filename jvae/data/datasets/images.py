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
from jvae.data import digest
from jvae.data.datasets import image_files
from jvae.data.files import existing_folder
from jvae.data.pipeline import order
from jvae.data.sources import Examples, Shapes, Source, Splits, cached_if_small
from jvae.errors import DataError, require
from jvae.ranges import Gt, Lt, NonNegativeInt, PositiveInt

logger = logging.getLogger(__name__)

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
NUM_NAMED = 5
"""Of other files that are left out, so many are named."""
EXPECTED = (
    "Expected PNG or JPEG files, or other pictures, in train/ and test/, or all in one "
    "folder; folders inside those are classes."
)
SPLIT_SEED = 2**33
"""Of the permutation that decides what is test data; not a seed that a run has."""


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
) -> Splits:
    """Returns the PNG, JPEG, WebP, BMP, GIF and TIFF files of a folder as a data set.

    With folders train/ and test/ (and validation/, if there is one) these are the
    splits; otherwise `test_fraction` of all files is test data, the same files each
    time. Folders inside a split are classes, numbered in the order of their names.
    `image_files.decode` says how pixel formats are converted.

    Args:
      path: The folder; ~ is the home directory.
      height: Of an image in pixels; without it all files must have one size.
      width: Of an image in pixels; without it as height.
      channels: 1 for gray (0.299 R + 0.587 G + 0.114 B), 3 for colour.
      crop: Side in pixels of the centred square that is cut out before resizing, such
        as 148 for CelebA; without it the largest area of the right proportions.
      test_fraction: Share of test data where there are no train/ and test/.
      on_bad_image: 'raise' stops at a damaged file when it is read; 'skip' decodes all
        files at the start and leaves the damaged ones out.
      max_bad_images: How many damaged files 'skip' leaves out before it gives up.

    Raises:
      ConfigError: a number out of range, width without height, no Pillow.
      DataError: no pictures, damaged pictures, sizes that differ.
    """
    is_alone = height is None and width is not None
    require(not is_alone, "data.height", "be given with data.width", height)
    image_files.refuse_bombs()
    root = existing_folder(path, EXPECTED)
    splits = find(root, test_fraction)
    if on_bad_image == "skip":
        splits = without_bad(splits, max_bad_images)
    if height is None:
        height, width = (crop, crop) if crop else common_size(splits)
    shape = (height, width or height, channels)
    classes = _classes(splits, root)
    sources: dict[str, Source] = {
        name: cached_if_small(PictureFiles(tuple(files), shape, crop, classes))
        for name, files in splits.items()
    }
    return Splits(**sources, num_classes=len(classes) or None)


@dataclasses.dataclass(frozen=True)
class File:
    """One picture.

    Attributes:
      path: of the file.
      label: the name of its class folder, '' if it is in none.
    """

    path: Path
    label: str


Files = list[File]


@dataclasses.dataclass(frozen=True)
class PictureFiles:
    """A split that decodes its files when they are read.

    Attributes:
      files: the pictures.
      shape: (height, width, channels) of every image.
      crop: see `image_files.fit`.
      classes: the names of the classes in order, () without labels.
    """

    files: tuple[File, ...]
    shape: tuple[int, int, int]
    crop: int | None
    classes: tuple[str, ...]

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
        picture = image_files.decode(path).convert("L" if channels == 1 else "RGB")
        return image_files.fit(picture, height, width, self.crop, str(path))


@digest.stored.register
def _(source: PictureFiles, indices: np.ndarray) -> Iterator[bytes]:
    """All names, and the files at `indices` as they are."""
    for file in source.files:
        yield os.fsencode(f"{file.label}/{file.path.name}\n")
    for index in indices:
        yield image_files.content(source.files[index].path)


def find(root: Path, test_fraction: float) -> dict[str, Files]:
    """Returns the pictures of each split, in the order of their names.

    Args:
      root: the data folder.
      test_fraction: share of test data if there is no train/ in it, in (0, 1).

    Raises:
      DataError: no pictures, or only one of train/ and test/.
    """
    if not (root / "train").is_dir() and not (root / "test").is_dir():
        files = _pictures_in(root)
        num_test = max(1, round(test_fraction * len(files)))
        shuffled = order(SPLIT_SEED, len(files), 0, len(files))
        train, test = np.split(shuffled, [len(files) - num_test])
        return {
            "train": [files[i] for i in np.sort(train)],
            "test": [files[i] for i in np.sort(test)],
        }
    names = ["train", "test"]
    if (root / "validation").is_dir():
        names.append("validation")
    folders = {name: existing_folder(str(root / name), EXPECTED) for name in names}
    return {name: _pictures_in(folder) for name, folder in folders.items()}


def _pictures_in(root: Path) -> Files:
    """Returns the pictures under `root` but for hidden ones; names other files."""
    pictures, others = [], []

    for place, folders, names in os.walk(root, onerror=_refuse, followlinks=True):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not _leads_back(Path(place, name), root)
        ]
        inside = Path(place).relative_to(root).parts
        label = inside[0] if inside else ""

        for name in names:
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                pictures.append(File(Path(place, name), label))
            elif not name.startswith("."):
                others.append(name)

    if not pictures:
        raise DataError("no pictures", where=str(root), fix=EXPECTED)

    if others:
        named = ", ".join(map(ascii, sorted(others)[:NUM_NAMED]))
        more = ", ..." if len(others) > NUM_NAMED else ""
        text = "jvae: %d files in %s are no pictures and left out: %s%s"
        logger.warning(text, len(others), root, named, more)

    return sorted(pictures, key=lambda file: file.path.as_posix())


def _refuse(error: OSError) -> None:
    raise DataError(
        f"a folder of pictures cannot be read: {error.strerror}",
        where=str(error.filename),
        fix="Make it readable.",
    )


def _leads_back(folder: Path, root: Path) -> bool:
    """Returns whether a folder under `root` is a link to one on the way to it."""
    above = (folder.parents[i] for i in range(len(folder.relative_to(root).parts)))
    return folder.is_symlink() and folder.resolve() in {p.resolve() for p in above}


def _classes(splits: dict[str, Files], root: Path) -> tuple[str, ...]:
    """Returns the names of the class folders, () if there are none."""
    names = {name: {file.label for file in files} for name, files in splits.items()}
    known = names["train"].union(*names.values())
    if known == {""}:
        return ()
    if "" in known:
        raise DataError(
            "some pictures are in class folders and some are not",
            where=str(root),
            fix="Move all into folders, one for each class, or none.",
        )
    strange = known - names["train"]
    if strange:
        raise DataError(
            f"classes without training pictures: {', '.join(sorted(strange))}",
            where=str(root),
        )
    return tuple(sorted(known))


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
            return str(damage)
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
            f"{bad[0]}"
        )
    if bad:
        logger.warning("left out %d damaged pictures: %s", len(bad), "; ".join(bad))
    if not all(good.values()):
        raise DataError(f"all pictures of a split are damaged; the first: {bad[0]}")
    return good


def common_size(splits: dict[str, Files]) -> tuple[int, int]:
    """Returns (height, width) of all pictures, read from their headers.

    Raises:
      DataError: two of them differ.
    """
    paths = [file.path for files in splits.values() for file in files]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(image_files.size, paths))
    for path, other in zip(paths, sizes, strict=True):
        if other != sizes[0]:
            first, second = ("{}x{}".format(*size) for size in (sizes[0], other))
            raise DataError(
                f"pictures differ in size, {first} and {second}",
                where=f"{paths[0].name}, {path}",
                fix="Give data.height and data.width.",
            )
    return sizes[0]
