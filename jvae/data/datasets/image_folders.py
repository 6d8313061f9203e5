"""Which pictures of a folder are data, of which split and of which class."""

from __future__ import annotations

import collections
import dataclasses
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from jvae.data.files import existing_folder, listed, warn_left_out
from jvae.data.pipeline import order
from jvae.errors import DataError

logger = logging.getLogger("jvae")

ENDINGS = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
RULE_1_ENDINGS = (".png", ".jpg", ".jpeg")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
"""{name of a folder in lower case: the split that it is}."""
SPLIT_STARTS = ("test", "val")
"""How folders of splits begin that have another name, as test1/, in lower case."""
FOREIGN = ("__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found")
"""Folders that archives, network disks and file systems leave, in lower case."""
EXPECTED = (
    "Expected PNG or JPEG files, or other pictures, in train/ and test/, or all in one "
    "folder; folders inside those are classes."
)
SPLIT_SEED = 2**33
"""Of the permutation that decides what is test data; not a seed that a run has."""


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


def find(root: Path, rule: int) -> dict[str, Files]:
    """Returns the pictures of each split that has a folder, in order of their names.

    Without a folder of test data 'test' is missing, and has yet to be taken of 'train'.

    Args:
      root: the data folder.
      rule: see `jvae.data.rules`.

    Raises:
      DataError: no pictures, or folders that cannot be splits.
    """
    if rule == 1:
        folders = _rule_1_split_folders(root)
    else:
        folders = _split_folders(root)
    if not folders:
        return {"train": _pictures_in(root, rule)}
    return {name: _pictures_in(folder, rule) for name, folder in folders.items()}


def _rule_1_split_folders(root: Path) -> dict[str, Path]:
    """Returns train/, test/ and perhaps validation/; {} without the first two."""
    if not (root / "train").is_dir() and not (root / "test").is_dir():
        return {}
    names = ["train", "test"]
    if (root / "validation").is_dir():
        names.append("validation")
    return {name: existing_folder(str(root / name), EXPECTED) for name in names}


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns the folders of the splits, {} if those in `root` are classes.

    A folder with the name of a split may be a class (a train among vehicles): train/ is
    a split beside another one, or beside no other folder with pictures.
    """
    entries = _entries(root)
    there = [entry for entry in entries if _is_own_folder(entry)]
    named = [folder for folder in there if folder.name.lower() in SPLIT_NAMES]
    splits = {SPLIT_NAMES[folder.name.lower()] for folder in named}
    others = [f for f in there if f not in named and _holds_pictures(f)]
    if not named or not ({"train"} < splits or not others):
        _look_around(root, there, named, others)
        return {}

    folders: dict[str, Path] = {}
    for folder in named:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in folders:
            both = f"{folders[split].name}/ and {folder.name}/"
            fix = "Join them, or move one elsewhere."
            raise DataError(f"{both} are both {split} data", where=str(root), fix=fix)
        folders[split] = existing_folder(str(folder), EXPECTED)
    if "train" not in folders:
        names = " and ".join(f"{folder.name}/" for folder in named)
        raise DataError(f"{names} and no train/", where=str(root), fix=EXPECTED)

    left_out = [e for e in entries if e not in named and _is_worth_naming(e)]
    warn_left_out(root, [f"{e.name}/" if e.is_dir() else e.name for e in left_out])
    if "test" not in folders:
        instead = "data.test_fraction of train/"
        if "validation" in folders:
            folders["test"] = folders.pop("validation")
            instead = f"{folders['test'].name}/"
        logger.warning("jvae: no test/ in %s: %s is the test split", root, instead)
    return folders


def _look_around(
    root: Path, there: Sequence[Path], named: Sequence[Path], others: Sequence[Path]
) -> None:
    """Says what may be wrong with a folder whose folders are classes.

    Raises:
      DataError: there is one, and it holds the splits; or one has the name of a split
        and holds classes, or stands beside one called like another split.
    """
    like_splits = [f for f in others if f.name.lower().startswith(SPLIT_STARTS)]
    for folder in named:
        beside = (like_splits or others)[0].name
        classes = [f for f in _entries(folder) if _is_own_folder(f)]
        if like_splits or any(map(_holds_pictures, classes)):
            raise DataError(
                f"{folder.name}/ beside {beside}/ may be a split or a class",
                where=str(root),
                fix="Rename the class, or call the splits train/ and test/.",
            )
        text = "jvae: %s/ in %s: taken for a class, as %s/ beside it"
        logger.warning(text, folder.name, root, beside)

    if len(there) != 1:
        return
    inside = [entry.name for entry in _entries(there[0]) if _is_own_folder(entry)]
    if {"train", "test"} <= {SPLIT_NAMES.get(name.lower()) for name in inside}:
        raise DataError(
            f"train/ and test/ are one folder further in, in {there[0].name}/",
            where=str(root),
            fix=f"Set data.path to {there[0]}.",
        )
    if len(inside) > 1:
        text = "jvae: %s is one class; set data.path to it if its folders are classes"
        logger.warning(text, there[0])


def _holds_pictures(folder: Path) -> bool:
    """Returns whether there is a picture, by its name, in a folder or below."""
    files = (name for _, _, names in os.walk(folder) for name in names)
    return any(name.lower().endswith(ENDINGS) for name in files)


def _entries(folder: Path) -> list[Path]:
    """Returns what is in a folder, by name."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        _refuse(error)


def _is_own_folder(entry: Path) -> bool:
    """Returns whether an entry is a folder of data, and not one of some program's."""
    return entry.is_dir() and not _is_foreign(entry.name)


def _is_foreign(name: str) -> bool:
    return name.startswith(".") or name.lower() in FOREIGN


def _is_worth_naming(entry: Path) -> bool:
    """Returns whether an entry that is left out is more than a hidden file."""
    name = entry.name.lower()
    return not name.startswith(".") or name.endswith(ENDINGS) or entry.is_dir()


def _pictures_in(root: Path, rule: int) -> Files:
    """Returns the pictures under `root`; says what else there is."""
    endings = RULE_1_ENDINGS if rule == 1 else ENDINGS
    pictures, others, classes = [], [], []
    linked: set[Path] = set()

    def is_skipped(folder: Path) -> bool:
        if _leads_back(folder, root):
            return True
        return rule > 1 and (_is_foreign(folder.name) or _is_again(folder, linked))

    for place, folders, names in _walked(root):
        inside = Path(place).relative_to(root)
        folders.sort()  # so that of several links to a folder the first name is kept
        skipped = [name for name in folders if is_skipped(Path(place, name))]
        folders[:] = [name for name in folders if name not in skipped]
        others += [f"{inside / name}/" for name in skipped]
        label = inside.parts[0] if inside.parts else ""
        classes += [] if label else folders

        for name in names:
            entry = Path(place, name)
            if name.lower().endswith(endings) and not name.startswith("."):
                pictures.append(File(entry, label))
            elif _is_worth_naming(entry):
                others.append(str(inside / name))

    if not pictures:
        among = f" among {listed(others)}" if others else ""
        raise DataError(f"no pictures{among}", where=str(root), fix=EXPECTED)

    empty = {*classes} - {file.label for file in pictures}
    warn_left_out(root, others + [f"{name}/" for name in empty])
    return sorted(pictures, key=lambda file: file.path.as_posix())


def _walked(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields (folder, folders in it, files in it) of all under `root`, links too."""
    try:
        yield from os.walk(root, onerror=_refuse, followlinks=True)
    except RecursionError as error:
        what = "folders too deep in folders"
        raise DataError(what, where=str(root), fix="Move the pictures up.") from error


def _is_again(folder: Path, linked: set[Path]) -> bool:
    """Returns whether a folder is a link to where one in `linked` led; adds it there.

    A folder with two links to a next one, which has two as well, and so on, would be
    walked by every way to the last.
    """
    if not folder.is_symlink():
        return False
    target = folder.resolve()
    is_again = target in linked
    linked.add(target)
    return is_again


def _refuse(error: OSError) -> NoReturn:
    raise DataError(
        f"a folder of pictures cannot be read: {error.strerror}",
        where=str(error.filename),
        fix="Make it readable.",
    )


def _leads_back(folder: Path, root: Path) -> bool:
    """Returns whether a folder under `root` is a link to one on the way to it."""
    above = (folder.parents[i] for i in range(len(folder.relative_to(root).parts)))
    return folder.is_symlink() and folder.resolve() in {p.resolve() for p in above}


def with_test(splits: dict[str, Files], fraction: float, rule: int) -> dict[str, Files]:
    """Returns splits whose 'test', if missing, is taken of 'train', always the same.

    By rule 1 classes do not matter. By rule 2 the share of test data is that of each
    class, to less than one picture, and each class has training data.

    Args:
      splits: pictures by split.
      fraction: share of test data, in (0, 1).
      rule: see `jvae.data.rules`.

    Raises:
      DataError: rule 2, and no class has two pictures.
    """
    if "test" in splits:
        return splits
    files = splits["train"]
    shuffled = order(SPLIT_SEED, len(files), 0, len(files))
    if rule == 1:
        num_test = max(1, round(fraction * len(files)))
        test = {*shuffled[len(files) - num_test :].tolist()}
    else:
        left, test = _test_counts(files, fraction), set()
        for i in shuffled[::-1].tolist():
            if left[files[i].label] > 0:
                left[files[i].label] -= 1
                test.add(i)
    return {
        **splits,
        "train": [file for i, file in enumerate(files) if i not in test],
        "test": [file for i, file in enumerate(files) if i in test],
    }


def _test_counts(files: Files, fraction: float) -> dict[str, int]:
    """Returns how many pictures of each class are test data, by largest remainder."""
    sizes = collections.Counter(file.label for file in files)
    if max(sizes.values()) < 2:
        each = "one picture in each class" if len(sizes) > 1 else "one picture in all"
        raise DataError(
            f"{each}, which cannot be training and test data",
            where=str(files[0].path.parent),
            fix="Add pictures.",
        )
    counts = {label: int(fraction * size) for label, size in sizes.items()}
    total = max(1, round(fraction * len(files)))
    # Classes that lack the largest part of a picture first, while one is left to train.
    open_ = [label for label in sorted(sizes) if counts[label] < sizes[label] - 1]
    open_.sort(key=lambda label: counts[label] - fraction * sizes[label])
    for label in open_[: total - sum(counts.values())]:
        counts[label] += 1
    return counts
