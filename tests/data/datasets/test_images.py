"""Folders of pictures as people have them."""

import logging
import os

import numpy as np
import PIL.Image
import pytest

from jvae import data
from jvae.data.digest import data_digest
from jvae.data.sources import Cached
from jvae.errors import ConfigError, DataError


def picture(value, size=(4, 4)):
    return PIL.Image.new("RGB", size[::-1], (value, value, value))


def fill(folder, count, start=0, size=(4, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        picture(i, size).save(folder / f"{i:03d}.png")


def load(folder, **fields):
    return data.build("images", path=str(folder), **fields)


def values(source):
    return source.read(np.arange(len(source)))["image"][:, 0, 0, 0].tolist()


def test_folders_for_the_splits_are_used(tmp_path):
    fill(tmp_path / "train", 5)
    fill(tmp_path / "test", 3, start=10)
    fill(tmp_path / "validation", 2, start=20)
    splits = load(tmp_path)
    assert values(splits.train) == [0, 1, 2, 3, 4]
    assert values(splits.test) == [10, 11, 12]
    assert values(splits.validation) == [20, 21]
    assert splits.train.shapes == {"image": (4, 4, 3)} and splits.num_classes is None
    assert isinstance(splits.train, Cached)


def test_a_flat_folder_is_split_the_same_way_each_time(tmp_path):
    fill(tmp_path, 40)
    first, second = (
        load(tmp_path, test_fraction=0.25),
        load(tmp_path, test_fraction=0.25),
    )
    train, test = values(first.train), values(first.test)
    assert len(test) == 10 and sorted(train + test) == list(range(40))
    assert (train, test) == (values(second.train), values(second.test))
    assert test != list(range(30, 40))


def test_folders_inside_a_split_are_classes(tmp_path):
    for split, start in (("train", 0), ("test", 100)):
        fill(tmp_path / split / "dog", 2, start)
        fill(tmp_path / split / "cat", 3, start + 10)
    splits = load(tmp_path)
    examples = splits.train.read(np.arange(5))
    assert splits.num_classes == 2
    np.testing.assert_array_equal(examples["label"], [0, 0, 0, 1, 1])
    assert examples["label"].dtype == np.int32
    assert examples["image"][:, 0, 0, 0].tolist() == [10, 11, 12, 0, 1]


def test_deeper_folders_belong_to_their_class(tmp_path):
    fill(tmp_path / "a" / "images", 4)
    fill(tmp_path / "b", 4, start=4)
    splits = load(tmp_path, test_fraction=0.5)
    for source in (splits.train, splits.test):
        examples = source.read(np.arange(4))
        np.testing.assert_array_equal(
            examples["label"], examples["image"][:, 0, 0, 0] >= 4
        )


def test_other_and_hidden_files_are_passed_over(tmp_path):
    fill(tmp_path, 4)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._000.png").write_bytes(b"no picture")
    splits = load(tmp_path)
    assert len(splits.train) + len(splits.test) == 4


def test_what_many_links_lead_to_is_read_once(tmp_path):
    """30 folders, each with two links to the next: there are 2^29 ways to the last."""
    folders = [tmp_path / "all" / f"{i:02d}" for i in range(30)]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder, following in zip(folders, folders[1:], strict=False):
        for name in "ab":
            (folder / name).symlink_to(following)
    for i in range(4):
        PIL.Image.new("L", (4, 4), i).save(folders[-1] / f"{i}.png")
    splits = data.build("images", path=str(folders[0]))
    assert len(splits.train) + len(splits.test) == 4


def test_folders_too_deep_are_one_line(tmp_path, monkeypatch):
    def deep(*_, **__):
        raise RecursionError

    monkeypatch.setattr(os, "walk", deep)
    with pytest.raises(DataError, match="folders too deep in folders"):
        data.build("images", path=str(tmp_path))


def test_links_that_lead_back_are_not_followed(tmp_path):
    """Two of them in one folder would be 2^40 places; others are followed."""
    fill(tmp_path / "data" / "a", 3)
    fill(tmp_path / "elsewhere", 2, start=10)
    for name, target in (
        ("one", tmp_path / "data"),
        ("two", "."),
        ("a/up", ".."),
        ("b", tmp_path / "elsewhere"),
    ):
        (tmp_path / "data" / name).symlink_to(target)
    (tmp_path / "elsewhere" / "round").symlink_to(tmp_path / "data" / "a")
    splits = load(tmp_path / "data", test_fraction=0.25)
    assert len(splits.train) + len(splits.test) == 3 + 2 + 3


def test_a_pipe_is_refused_by_name_and_not_waited_for(tmp_path):
    fill(tmp_path, 8)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"it is no file \(.*pipe\.png\)"):
        load(tmp_path)
    splits = load(tmp_path, on_bad_image="skip")
    assert len(splits.train) + len(splits.test) == 8


def test_a_small_file_of_too_many_pixels_is_refused_by_name(tmp_path):
    fill(tmp_path, 8)
    PIL.Image.new("1", (8000, 8000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match=r"8000x8000 pixels are more than 33,554,432"):
        load(tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_as_asked_for(tmp_path, channels):
    fill(tmp_path, 3)
    splits = load(tmp_path, channels=channels)
    assert splits.train.read(np.arange(2))["image"].shape == (2, 4, 4, channels)


@pytest.mark.parametrize(
    "fields, shape",
    [
        ({"height": 3}, (3, 3, 3)),
        ({"height": 3, "width": 5}, (3, 5, 3)),
        ({"crop": 2}, (2, 2, 3)),
        ({"crop": 4, "height": 2}, (2, 2, 3)),
    ],
)
def test_pictures_of_all_sizes_become_one(tmp_path, fields, shape):
    fill(tmp_path, 2)
    fill(tmp_path, 2, start=2, size=(6, 9))
    splits = load(tmp_path, **fields)
    assert splits.train.shapes["image"] == shape
    assert splits.train.read(np.arange(3))["image"].shape == (3, *shape)


def test_different_sizes_need_a_height(tmp_path):
    fill(tmp_path, 2)
    fill(tmp_path, 1, start=2, size=(6, 9))
    with pytest.raises(DataError, match=r"4x4 and 6x9.*Give data\.height"):
        load(tmp_path)


def damage(file):
    file.write_bytes(file.read_bytes()[:-30])


def test_a_damaged_picture_is_named_when_it_is_read(tmp_path):
    fill(tmp_path / "train", 100)
    fill(tmp_path / "test", 1)
    damage(tmp_path / "train" / "090.png")
    splits = load(tmp_path)
    splits.train.read(np.arange(90))
    with pytest.raises(DataError, match=r"090\.png"):
        splits.train.read(np.array([3, 90]))


def test_a_class_of_damaged_pictures_alone_is_said(tmp_path, caplog):
    for label in ("a", "b", "c"):
        fill(tmp_path / label, 3)
    for file in (tmp_path / "b").iterdir():
        damage(file)
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path, on_bad_image="skip").num_classes == 2
    assert "classes whose pictures are all damaged are none: 'b'" in caplog.text


def test_damaged_pictures_are_left_out_and_counted(tmp_path, caplog):
    fill(tmp_path / "train", 6)
    fill(tmp_path / "test", 3)
    damage(tmp_path / "train" / "002.png")
    (tmp_path / "test" / "000.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path, on_bad_image="skip", max_bad_images=2)
    assert values(splits.train) == [0, 1, 3, 4, 5] and values(splits.test) == [1, 2]
    assert "left out of damaged pictures (2)" in caplog.text
    assert "002.png" in caplog.text and "classes" not in caplog.text
    with pytest.raises(DataError, match="2 damaged pictures, max_bad_images is 1"):
        load(tmp_path, on_bad_image="skip", max_bad_images=1)


def test_a_split_of_damaged_pictures_only_is_refused(tmp_path):
    fill(tmp_path / "train", 2)
    fill(tmp_path / "test", 1)
    damage(tmp_path / "test" / "000.png")
    with pytest.raises(DataError, match=r"all pictures of a split.*000\.png"):
        load(tmp_path, on_bad_image="skip")


@pytest.mark.parametrize(
    "folders, words",
    [
        (["."], r"no pictures.*Expected PNG or JPEG files"),
        (["test/a"], "test/ and no train/.*Expected PNG or JPEG files"),
        (["train/a", "test/b"], "classes without training pictures: b"),
        (["train/a", "train", "test/a"], "some pictures are in class folders"),
    ],
)
def test_folders_that_make_no_sense_are_named(tmp_path, folders, words):
    for folder in folders:
        fill(tmp_path / folder, 0 if folder == "." else 2)
    with pytest.raises(DataError, match=words):
        load(tmp_path)


def test_a_missing_folder_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match="does not exist.*Expected PNG or JPEG files"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"height": 0}, r"data\.height must be None or at least 1"),
        ({"width": 3}, r"data\.height must be given with data\.width"),
        ({"crop": -1}, r"data\.crop must be None or at least 1"),
        ({"test_fraction": 1.0}, r"data\.test_fraction must be within \(0, 1\)"),
        ({"channels": 2}, r"data\.channels must be"),
        ({"on_bad_image": "ignore"}, r"data\.on_bad_image must be"),
    ],
)
def test_fields_out_of_range_are_refused(tmp_path, fields, words):
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, **fields)


@pytest.mark.parametrize("hidden", [".thumbs", ".ipynb_checkpoints"])
def test_hidden_folders_are_no_classes(tmp_path, hidden):
    fill(tmp_path / "a", 4)
    fill(tmp_path / "b", 4, start=10)
    fill(tmp_path / hidden, 4, start=20)
    splits = load(tmp_path)
    assert splits.num_classes == 2 and len(splits.train) + len(splits.test) == 8


def test_a_folder_that_cannot_be_read_is_named_and_not_left_out(tmp_path, monkeypatch):
    fill(tmp_path / "a", 4)
    fill(tmp_path / "b", 4, start=10)
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="Permission denied .*/b"):
        load(tmp_path)


@pytest.mark.parametrize("path", ["~nobody-of-that-name/x", "x" * 300])
def test_a_path_that_cannot_be_one_is_refused(path):
    with pytest.raises(DataError, match="the data folder cannot be read"):
        data.build("images", path=path)


def test_a_name_in_another_encoding_is_a_name(tmp_path):
    fill(tmp_path, 12)
    os.rename(tmp_path / "003.png", os.fsencode(tmp_path) + b"/\xff\xfe.png")
    splits = load(tmp_path)
    assert len(data_digest(splits)) == 16


def test_every_ending_is_read_and_other_files_are_counted_and_named(tmp_path, caplog):
    for i, ending in enumerate(("png", "JPG", "jpeg", "webp", "bmp", "gif", "tif")):
        picture(i * 20).save(tmp_path / f"{i}.{ending}")
    for name in ("notes.txt", "a.csv", ".hidden"):
        (tmp_path / name).write_text("x")
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path)
    assert len(splits.train) + len(splits.test) == 7
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("jvae: left out of ")
    assert line.endswith("'a.csv', 'notes.txt' (2 in all)")
