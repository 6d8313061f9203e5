"""idx files as people have them, and as they should not be."""

import gzip
import struct

import numpy as np
import pytest

from jvae import data
from jvae.data import files
from jvae.errors import DataError

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "train": (RANDOM.integers(0, 256, (7, 4, 5), np.uint8), np.arange(7) % 3),
    "test": (RANDOM.integers(0, 256, (3, 4, 5), np.uint8), np.arange(3)),
}


def encode(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write(folder, train="train", test="t10k", dot="-", suffix="", labels=True):
    for split, stem in (("train", train), ("test", test)):
        image, label = ARRAYS[split]
        contents = {f"{stem}-images{dot}idx3-ubyte": image}
        if labels:
            contents[f"{stem}-labels{dot}idx1-ubyte"] = label
        for name, array in contents.items():
            content = encode(array)
            packed = gzip.compress(content) if suffix == ".gz" else content
            (folder / (name + suffix)).write_bytes(packed)
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    "names, fields",
    [
        ({}, {}),
        ({"dot": "."}, {}),
        (
            {"train": "emnist-letters-train", "test": "emnist-letters-test"},
            {"prefix": "emnist-letters-"},
        ),
    ],
)
def test_the_usual_names_are_found(tmp_path, suffix, names, fields):
    splits = data.build(
        "idx", path=str(write(tmp_path, suffix=suffix, **names)), **fields
    )
    for name, source in splits.present().items():
        examples = source.read(np.arange(len(source)))
        np.testing.assert_array_equal(examples["image"][..., 0], ARRAYS[name][0])
        np.testing.assert_array_equal(examples["label"], ARRAYS[name][1])
        assert examples["label"].dtype == np.int32
    assert splits.num_classes == 3


def test_images_can_be_transposed(tmp_path):
    splits = data.build("idx", path=str(write(tmp_path)), transpose=True)
    np.testing.assert_array_equal(
        splits.train.read(np.arange(7))["image"][..., 0],
        ARRAYS["train"][0].swapaxes(1, 2),
    )


def test_labels_may_be_missing_but_not_of_one_split(tmp_path):
    splits = data.build("idx", path=str(write(tmp_path, labels=False)))
    assert splits.num_classes is None and "label" not in splits.train.shapes
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="labels are there for one split only"):
        data.build("idx", path=str(tmp_path))


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my data").mkdir()
    write(tmp_path / "my data")
    assert len(data.build("idx", path="~/my data").train) == 7


@pytest.mark.parametrize("name", ["nothing here", "a file", "empty"])
def test_a_missing_folder_says_what_should_be_in_it(tmp_path, name):
    (tmp_path / "a file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="Expected train-images-idx3-ubyte") as caught:
        data.build("idx", path=str(tmp_path / name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


HUGE = bytes([0, 0, 8, 3]) + struct.pack(">3I", 10**5, 10**4, 10**4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda b: b"", "begins with nothing"),
        (lambda b: b[:9], "not an idx file"),
        (lambda b: b"\x89PNG" + b[4:], "begins with 89504e47 instead of 00000803"),
        (lambda b: encode(np.arange(7)), "00000801 instead of 00000803"),
        (lambda b: HUGE + b[16:], r"array \(100000, 10000, 10000\) of 10000000000000"),
        (lambda b: b + b"x", "promises 140 bytes of data and there are more"),
        (lambda b: encode(ARRAYS["test"][0]), "7 labels for 3 images"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, packed, damage, words):
    write(tmp_path, suffix=".gz" if packed else "")
    file = tmp_path / ("train-images-idx3-ubyte" + (".gz" if packed else ""))
    content = damage(encode(ARRAYS["train"][0]))
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=words) as caught:
        data.build("idx", path=str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("cut", [20, -1])
def test_a_file_cut_short_is_named(tmp_path, cut):
    write(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        data.build("idx", path=str(tmp_path))


@pytest.mark.parametrize("cut", [5, 40, -3])
def test_a_gzip_file_cut_short_is_named(tmp_path, cut):
    write(tmp_path, suffix=".gz")
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"cannot be read.*t10k-images-idx3-ubyte\.gz"):
        data.build("idx", path=str(tmp_path))


def test_what_does_not_fit_in_memory_is_refused_from_the_header(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(files, "memory_bytes", lambda: 100)
    with pytest.raises(DataError, match="does not fit in memory"):
        data.build("idx", path=str(tmp_path))


def test_memory_is_measured_in_bytes():
    assert 2**28 < files.memory_bytes() < 2**50
