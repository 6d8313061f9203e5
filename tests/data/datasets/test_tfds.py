"""TensorFlow data sets on disk, whole and damaged, without TensorFlow."""

import json
import shutil
import time

import numpy as np
import pytest

from jvae import data
from jvae.data.datasets.tfds import Layout, tfds
from jvae.data.sources import Cached
from jvae.errors import ConfigError, DataError

NUM = {"train": 30, "test": 8}


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy to damage: (data directory, folder of the data set)."""
    shutil.copytree(prepared, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / "squares" / "1.0.0"


def load(root, dataset="squares", **fields):
    return data.build("tfds", dataset=dataset, data_dir=str(root), **fields)


def example(split, i):
    """What the fixture wrote."""
    random = np.random.default_rng([i, split == "test"])
    return random.integers(0, 256, (6, 5), np.uint8), i % 4


def rows(examples):
    return sorted((*image.ravel(), label) for image, label in examples)


def test_every_example_comes_back(prepared):
    splits = load(prepared)
    assert splits.num_classes == 4
    for name, source in splits.present().items():
        assert len(source) == NUM[name]
        assert source.shapes == {"image": (6, 5, 1), "label": ()}
        found = source.read(np.arange(len(source)))
        assert found["image"].dtype == np.uint8 and found["label"].dtype == np.int32
        expected = rows(example(name, i) for i in range(NUM[name]))
        assert rows(zip(found["image"], found["label"], strict=True)) == expected
    assert isinstance(splits.train, Cached)


@pytest.mark.parametrize("dataset", ["squares", "squares:1.0.0", "folder", "~"])
def test_a_data_set_is_found_by_name_and_by_folder(prepared, dataset, monkeypatch):
    folder = prepared / "squares" / "1.0.0"
    monkeypatch.setenv("HOME", str(folder))
    name = {"folder": str(folder), "~": "~/."}.get(dataset, dataset)
    assert len(load(prepared, name).train) == 30


def test_the_usual_variable_says_where_data_sets_are(prepared, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    assert len(data.build("tfds", dataset="squares").train) == 30


def test_splits_may_be_parts_of_one(prepared):
    splits = load(prepared, train_split="train[:80%]", test_split="train[80%:]")
    train, test = (s.read(np.arange(len(s))) for s in (splits.train, splits.test))
    both = [*zip(train["image"], train["label"], strict=True)]
    both += zip(test["image"], test["label"], strict=True)
    assert len(test["label"]) == 6
    assert rows(both) == rows(example("train", i) for i in range(30))


def test_a_data_set_may_do_without_labels(copied):
    root, folder = copied
    features = json.loads((folder / "features.json").read_text())
    del features["featuresDict"]["features"]["label"]
    (folder / "features.json").write_text(json.dumps(features))
    splits = load(root)
    assert splits.train.shapes == {"image": (6, 5, 1)} and splits.num_classes is None


@pytest.mark.parametrize(
    "fields, shape",
    [({"height": 4}, (4, 4)), ({"height": 4, "width": 2, "crop": 8}, (4, 2))],
)
def test_images_of_all_sizes_become_one(prepared, fields, shape):
    train = load(prepared, "uneven", **fields).train
    found = train.read(np.arange(30))["image"]
    assert found.shape == (30, *shape, 3)
    assert sorted(found[:, 0, 0, 0]) == list(range(30))


def test_a_float_feature_is_an_image_too(prepared):
    depth = load(prepared, image="depth").test.read(np.arange(8))["image"]
    assert depth.shape == (8, 2, 2, 1) and depth.dtype == np.float32
    np.testing.assert_allclose(np.sort(depth[:, 1, 1, 0]), np.arange(8) / 30, rtol=1e-6)


def test_a_float_outside_by_rounding_is_clipped():
    layout = Layout("image", None, (1, 2, 1), None)
    assert layout.pixels(np.array([[1 + 1e-7, 0.5]]), "x").max() == 1.0
    assert layout.pixels(np.array([[1.5, 0.5]]), "x").max() == 1.5


def test_gray_images_can_be_resized(prepared):
    assert load(prepared, height=3, width=2).train.shapes["image"] == (3, 2, 1)


@pytest.mark.parametrize(
    "fields, error, words",
    [
        ({"dataset": "uneven"}, DataError, r"differ in size.*Give data\.height"),
        ({"train_split": "trian"}, DataError, r"split 'trian'.*'train', 'test'"),
        ({"test_split": "train[200:]"}, DataError, "split 'train"),
        (
            {"image": "picture"},
            DataError,
            "no feature 'picture', there is depth, image, label",
        ),
        (
            {"label": "class"},
            DataError,
            "no feature 'class', there is depth, image, label",
        ),
        ({"image": "label"}, DataError, "'label' is no image"),
        ({"label": "weight"}, DataError, "'weight' is no class"),
        ({"dataset": "squares:2.0.0"}, DataError, "no version 2.0.0, there is 1.0.0"),
        ({"image": "depth", "height": 3}, DataError, "only uint8 images .* float32"),
        ({"height": 0}, ConfigError, "at least 1"),
        ({"crop": 3}, ConfigError, r"data\.height must be given with"),
    ],
)
def test_what_a_data_set_does_not_have_is_named(prepared, fields, error, words):
    with pytest.raises(error, match=words) as caught:
        load(prepared, **fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "dataset, words",
    [
        ("mnsit", r"no TensorFlow data set 'mnsit' .*Did you mean 'mnist'\?"),
        ("sqares", "Did you mean 'squares'"),
        ("xyzzyplugh", r"no TensorFlow data set 'xyzzyplugh' \("),
        (
            "mnist",
            r"not prepared .*Run: jvae prepare mnist --data_dir ",
        ),
        ("mnist:3.0.1", r"jvae prepare mnist:3\.0\.1"),
        ("/nowhere/mnist", "no features.json"),
    ],
)
def test_what_is_not_on_disk_is_said_in_one_line_and_at_once(prepared, dataset, words):
    start = time.monotonic()
    with pytest.raises(DataError, match=words) as caught:
        load(prepared, dataset)
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert caught.value.exit_code == 3


def test_one_of_several_configurations_must_be_named(prepared, tmp_path):
    for config in ("large", "small"):
        shutil.copytree(prepared / "squares", tmp_path / "squares" / config)
    with pytest.raises(DataError, match=r"large, small .*Write 'squares/large'"):
        load(tmp_path)
    assert len(load(tmp_path, "squares/small:1.0.0").train) == 30
    shutil.rmtree(tmp_path / "squares" / "large")
    assert len(load(tmp_path).train) == 30


def test_the_newest_version_is_taken(prepared, tmp_path):
    for version in ("2.0.0", "10.0.0"):
        shutil.copytree(prepared / "squares" / "1.0.0", tmp_path / "squares" / version)
    (tmp_path / "squares" / "2.0.0" / "features.json").unlink()
    assert len(load(tmp_path).train) == 30


def test_tfrecord_needs_converting(copied):
    root, folder = copied
    info = json.loads((folder / "dataset_info.json").read_text())
    for change in ({"fileFormat": "tfrecord"}, {"fileFormat": None}):
        kept = {k: v for k, v in {**info, **change}.items() if v is not None}
        (folder / "dataset_info.json").write_text(json.dumps(kept))
        with pytest.raises(DataError, match=r"tfrecord.*Convert it: jvae prepare"):
            load(root)


def test_a_second_format_on_disk_is_used(copied):
    root, folder = copied
    info = json.loads((folder / "dataset_info.json").read_text())
    change = {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]}
    (folder / "dataset_info.json").write_text(json.dumps({**info, **change}))
    assert len(load(root).train) == 30


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize(
    "content", [None, "", "{x", "[]", "{}", '{"name": 3}', "[" * 9999, "\0\xff"]
)
def test_damaged_metadata_is_named(copied, name, content):
    root, folder = copied
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=str(folder)) as caught:
        load(root)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_metadata_that_names_a_function_runs_nothing(copied, monkeypatch):
    root, folder = copied
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("it ran"))
    text = (folder / "features.json").read_text()
    features = json.loads(text)
    features["pythonClassName"] = "os.system"
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(DataError, match="damaged metadata"):
        load(root)


@pytest.mark.parametrize("shard", [0, 1])
@pytest.mark.parametrize("cut", [None, 0, 1000, -100])
def test_a_missing_or_truncated_shard_is_named_at_the_start(copied, shard, cut):
    root, folder = copied
    file = folder / f"squares-train.array_record-0000{shard}-of-00002"
    content = file.read_bytes()
    file.unlink()
    if cut is not None:
        file.write_bytes(content[:cut])
    with pytest.raises(DataError, match=rf"record \d+ cannot be read: .*{file.name}"):
        tfds("squares", data_dir=str(root))


def test_a_flipped_byte_is_found_and_its_record_named(copied):
    root, folder = copied
    file = folder / "squares-train.array_record-00001-of-00002"
    whole = load(root).train.read(np.arange(30))["image"]
    content = bytearray(file.read_bytes())
    # Every record is a chunk of its own; PNG data of the third begins there.
    third = [i for i in range(len(content)) if content[i : i + 4] == b"\x89PNG"][2]
    content[third + 20] ^= 1
    file.write_bytes(content)
    # The function itself, since `build` looks at the first rows at once.
    train = tfds("squares", data_dir=str(root)).train
    first = len(whole) - 15
    with pytest.raises(DataError, match=rf"record 2 cannot be read: .*{file.name}"):
        train.read(np.arange(30))
    rest = np.setdiff1d(np.arange(30), [first + 2])
    np.testing.assert_array_equal(train.read(rest)["image"], whole[rest])
