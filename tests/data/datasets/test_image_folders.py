"""Which pictures of a folder are data, of which split and of which class."""

import collections
import logging
import os

import numpy as np
import PIL.Image
import pytest

from jvae import data
from jvae.data.datasets.image_folders import File, find, with_test
from jvae.errors import DataError


def fill(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        PIL.Image.new("RGB", (4, 4), (len(name), 0, 0)).save(folder / name, "PNG")


def numbered(folder, count, ending="png"):
    fill(folder, *(f"{i:03d}.{ending}" for i in range(count)))


def load(folder, **fields):
    return data.build("images", path=str(folder), **fields)


def sizes(splits):
    return {name: len(source) for name, source in splits.present().items()}


def test_split_folders_have_their_names_in_any_case(tmp_path):
    for number, names in enumerate(
        (
            ("train", "test", "val"),
            ("Train", "Test", "Valid"),
            ("TRAINING", "TESTING", "VALIDATION"),
        )
    ):
        for count, name in enumerate(names, 2):
            numbered(tmp_path / str(number) / name / "a", count)
        splits = load(tmp_path / str(number))
        assert sizes(splits) == {"train": 2, "test": 3, "validation": 4}
        assert splits.num_classes == 1


def test_without_test_pictures_those_of_validation_are_the_test(tmp_path, caplog):
    numbered(tmp_path / "train", 9)
    numbered(tmp_path / "Val", 2)
    with caplog.at_level(logging.WARNING):
        assert sizes(load(tmp_path)) == {"train": 9, "test": 2}
    assert "Val/ is the test split" in caplog.text
    split = sizes(load(tmp_path, num_validation=3))
    assert split == {"train": 6, "test": 2, "validation": 3}


def test_training_pictures_alone_are_split(tmp_path, caplog):
    numbered(tmp_path / "train" / "a", 10)
    numbered(tmp_path / "train" / "b", 10)
    with caplog.at_level(logging.WARNING):
        assert sizes(load(tmp_path)) == {"train": 18, "test": 2}
    assert "data.test_fraction of train/ is the test split" in caplog.text


def test_a_class_may_be_called_like_a_split(tmp_path, caplog):
    for name in ("train", "plane", "car"):
        numbered(tmp_path / name, 4)
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path)
    assert splits.num_classes == 3 and sum(sizes(splits).values()) == 12
    assert "train/ in" in caplog.text and "taken for a class, as car/" in caplog.text


def test_folders_without_pictures_beside_a_split_are_no_classes(tmp_path, caplog):
    numbered(tmp_path / "train" / "cat", 10)
    numbered(tmp_path / "train" / "dog", 10)
    fill(tmp_path / "annotations" / "more", "0.xml")
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path)
    assert splits.num_classes == 2 and sizes(splits) == {"train": 18, "test": 2}
    assert "left out" in caplog.text and "annotations" in caplog.text


def test_of_several_links_to_a_folder_the_first_name_is_kept(tmp_path, monkeypatch):
    """However the file system lists them."""
    numbered(tmp_path / "elsewhere", 10)
    for name in ("b", "a", "c"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(tmp_path / "elsewhere")
    walk = os.walk

    def backwards(*arguments, **options):
        for place, folders, names in walk(*arguments, **options):
            folders.sort(reverse=True)
            yield place, folders, names

    monkeypatch.setattr(os, "walk", backwards)
    found = find(tmp_path / "data", rule=2)
    assert {file.label for file in found["train"]} == {"a"}


def test_one_class_that_holds_folders_is_said(tmp_path, caplog):
    for name in ("cat", "dog"):
        numbered(tmp_path / "pictures" / name, 4)
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path).num_classes == 1
        assert "pictures is one class; set data.path to it" in caplog.text
        caplog.clear()
        assert load(tmp_path / "pictures").num_classes == 2
    assert not caplog.records


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["train", "Training", "test"], "Training/ and train/ are both train data"),
        (["train", "val", "validation"], "val/ and validation/ are both validation"),
        (["test", "val"], "test/ and val/ and no train/"),
        (
            ["set/train", "set/test", "__MACOSX"],
            "one folder further in.*path to .*/set",
        ),
        (["a", "b", "."], "1 in none, such as 0.png"),
        (["train/cat", "train/dog", "plane"], "train/ beside plane/ may be a split or"),
        (["train", "test1", "plane"], "train/ beside test1/ may be a split or a class"),
    ],
)
def test_folders_that_leave_a_doubt_are_refused(tmp_path, folders, words):
    for folder in folders:
        fill(tmp_path / folder, "0.png")
    with pytest.raises(DataError, match=words):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["__MACOSX", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN", ".git/objects"]
)
@pytest.mark.parametrize("place", ["", "b"])
def test_folders_of_other_programs_are_no_data_and_named(tmp_path, caplog, name, place):
    numbered(tmp_path / "a", 3)
    numbered(tmp_path / "b", 3)
    numbered(tmp_path / place / name, 5)
    with caplog.at_level(logging.WARNING):
        splits = load(tmp_path)
    assert splits.num_classes == 2 and sum(sizes(splits).values()) == 6
    left_out = os.path.join(place, name.split("/")[0])
    assert f"'{left_out}/' (1 in all)" in caplog.text


def test_what_is_beside_the_splits_or_empty_is_named(tmp_path, caplog):
    for folder in ("train/a", "train/b", "test/a", "unlabeled"):
        numbered(tmp_path / folder, 2)
    fill(tmp_path, "loose.png", ".hidden.png")
    (tmp_path / "test" / "b").mkdir()
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "train" / "Thumbs.db").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert sizes(load(tmp_path)) == {"train": 4, "test": 2}
    lines = [record.getMessage().split(": ", 2)[2] for record in caplog.records]
    assert sorted(lines) == [
        "'.hidden.png', 'loose.png', 'unlabeled/' (3 in all)",
        "'Thumbs.db' (1 in all)",
        "'b/' (1 in all)",
    ]


def test_a_folder_of_other_files_says_which(tmp_path):
    for i in range(9):
        (tmp_path / f"IMG_{i}.HEIC").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no pictures among 'IMG_0.HEIC'.*\(9 in all"):
        load(tmp_path)


def files_of(root, counts):
    return [
        File(root / label / f"{i:03d}.png", label)
        for label in sorted(counts)
        for i in range(counts[label])
    ]


def test_each_class_gives_its_share_and_keeps_a_picture_to_train(tmp_path):
    """Against the definition, over random classes and fractions."""
    generator = np.random.default_rng(0)
    for _ in range(100):
        drawn = generator.integers(1, generator.choice([3, 30]), 9).tolist()
        counts = dict(zip("abcdefghi", [2, *drawn[1:]], strict=True))
        fraction = float(generator.uniform(0.02, 0.98))
        files = files_of(tmp_path, counts)
        splits = with_test({"train": files}, fraction, rule=2)

        assert sorted(splits["train"] + splits["test"], key=files.index) == files
        for part in splits.values():
            assert part == sorted(part, key=files.index)
        test = collections.Counter(file.label for file in splits["test"])
        for label, count in counts.items():
            least = min(int(fraction * count), count - 1)
            assert least <= test[label] <= min(least + 1, count - 1)
        parts = {label: fraction * n % 1 for label, n in counts.items()}
        more = {
            label for label in counts if test[label] > int(fraction * counts[label])
        }
        less = {x for x in counts if x not in more and test[x] < counts[x] - 1}
        least_of_more = min((parts[x] for x in more), default=1.0)
        assert least_of_more >= max((parts[x] for x in less), default=0.0) - 1e-9
        wanted = max(1, round(fraction * len(files)))
        room = sum(min(int(fraction * n) + 1, n - 1) for n in counts.values())
        assert len(splits["test"]) == min(wanted, room)


def test_without_classes_both_rules_take_the_same(tmp_path):
    files = files_of(tmp_path, {"": 50})
    first, second = (with_test({"train": files}, 0.3, rule) for rule in (1, 2))
    assert first == second and len(first["test"]) == 15


@pytest.mark.parametrize(
    ("counts", "words"),
    [({"": 1}, "one picture in all"), ({"a": 1, "b": 1}, "one picture in each class")],
)
def test_pictures_that_cannot_be_split_are_refused(tmp_path, counts, words):
    with pytest.raises(DataError, match=f"{words}.*Add pictures"):
        with_test({"train": files_of(tmp_path, counts)}, 0.1, rule=2)


def test_one_bad_picture_of_few_ends_nothing(tmp_path):
    """Whichever it is, also the one that would be test data, or a class of its own."""
    for bad in range(5):
        root = tmp_path / str(bad)
        numbered(root, 5)
        (root / f"{bad:03d}.png").write_bytes(b"")
        splits = load(root, on_bad_image="skip")
        assert sizes(splits) == {"train": 3, "test": 1}
    numbered(tmp_path / "classes" / "a", 5)
    fill(tmp_path / "classes" / "b", "0.png")
    (tmp_path / "classes" / "b" / "0.png").write_bytes(b"")
    assert load(tmp_path / "classes", on_bad_image="skip").num_classes == 1


def test_rule_1_is_what_releases_to_0_2_0_read(tmp_path):
    """Against a walk that knows three endings, and classes whatever their name."""
    for folder in ("Train", "__MACOSX", ".thumbs", "Val"):
        numbered(tmp_path / folder, 3)
        fill(tmp_path / folder, "x.webp", "y.bmp")
    expected = [
        (place.name, name)
        for place in sorted(tmp_path.iterdir())
        for name in ("000.png", "001.png", "002.png")
    ]
    found = find(tmp_path, rule=1)["train"]
    assert [(file.label, file.path.name) for file in found] == expected
    splits = load(tmp_path, rule=1, test_fraction=0.25)
    assert splits.num_classes == 4 and sizes(splits) == {"train": 9, "test": 3}
    shuffled = data.order(2**33, 12, 0, 12)
    labels = np.repeat(np.arange(4), 3)
    for source, indices in ((splits.train, shuffled[:9]), (splits.test, shuffled[9:])):
        read = source.read(np.arange(len(source)))["label"]
        np.testing.assert_array_equal(read, labels[np.sort(indices)])
