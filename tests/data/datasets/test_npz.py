"""npz files as they should be, and as they should not be."""

import io
import zipfile

import numpy as np
import pytest

from jvae import data
from jvae.data import files
from jvae.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5), np.uint8)
GOOD = {
    "train_images": IMAGES,
    "train_labels": np.arange(6) % 4,
    "test_images": IMAGES[:2],
    "test_labels": np.array([1, 0]),
}


def save(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return str(path)


def load(path):
    return data.build("npz", path=str(path))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_arrays_come_back(tmp_path, compressed, channels):
    shape = IMAGES.shape if channels is None else (*IMAGES.shape, channels)
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    validation = {"validation_images": image[:3], "validation_labels": np.arange(3)}
    arrays = {**GOOD, "train_images": image, "test_images": image[:2], **validation}
    splits = load(save(tmp_path / "a.npz", compressed, **arrays))
    expected = image if channels else image[..., None]
    examples = splits.train.read(np.arange(6))
    np.testing.assert_array_equal(examples["image"], expected)
    np.testing.assert_array_equal(examples["label"], np.arange(6) % 4)
    assert examples["label"].dtype == np.int32 and examples["image"].dtype == np.uint8
    assert len(splits.validation) == 3 and splits.num_classes == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_become_float32(tmp_path, dtype):
    image = (IMAGES / 255).astype(dtype)
    path = save(tmp_path / "a.npz", train_images=image, test_images=image)
    found = load(path).train.read(np.arange(6))["image"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], image.astype(np.float32))


def test_fortran_order_is_understood(tmp_path):
    path = save(
        tmp_path / "a.npz", train_images=np.asfortranarray(IMAGES), test_images=IMAGES
    )
    np.testing.assert_array_equal(
        load(path).train.read(np.arange(6))["image"][..., 0], IMAGES
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"test_images": None}, "no array test_images, there is train_images.npy"),
        ({"train_images": IMAGES.reshape(6, 20)}, r"\[N, H, W\] or \[N, H, W, C\]"),
        ({"train_images": IMAGES * 0 + 255.0}, r"in \[0, 1\], got 255 to 255"),
        ({"train_images": IMAGES.astype(int)}, "got int64"),
        ({"train_labels": np.arange(5)}, r"integers \[6\], got int64 \(5,\)"),
        ({"train_labels": np.arange(6) / 2}, "integers"),
        ({"train_labels": np.arange(6) - 1}, "got -1 to 4"),
        ({"train_labels": np.array(5)}, r"integers \[6\]"),
        ({"train_images": IMAGES[:0], "train_labels": np.arange(0)}, "split is empty"),
        ({"train_images": np.zeros(6, "u1,u1")}, "must be an array of numbers"),
    ],
)
def test_arrays_of_the_wrong_kind_are_named(tmp_path, change, words):
    arrays = {k: v for k, v in {**GOOD, **change}.items() if v is not None}
    with pytest.raises(DataError, match=words) as caught:
        load(save(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(caught.value)


class Sentinel:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_objects_are_refused_and_nothing_runs(tmp_path):
    sentinel = tmp_path / "it ran"
    objects = np.array([Sentinel(sentinel)] * 6, dtype=object)
    path = save(tmp_path / "a.npz", train_images=objects, test_images=IMAGES)
    with pytest.raises(DataError, match=r"dtype object .*unpickled") as caught:
        load(path)
    assert not sentinel.exists()
    assert "allow_pickle" not in str(caught.value)


def npy_header(shape, descr="|u1"):
    stream = io.BytesIO()
    fields = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def write_members(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "content, words",
    [
        (npy_header((10**13,)) + b"few", r"array \(10000000000000,\)"),
        (npy_header((10, 10, 10)) + b"x" * 999, "promises 1000 bytes"),
        (npy_header((10, 10, 10)) + b"x" * 1001, "promises 1000 bytes"),
        (npy_header((10, 10, 10))[:30], "not a readable"),
        (b"", "not a readable"),
        (b"junk" * 100, "not a readable"),
        (b"\x93NUMPY\x03\x00" + npy_header((1,))[8:], "version"),
    ],
)
def test_headers_are_held_against_the_file_first(tmp_path, content, words, compression):
    path = tmp_path / "a.npz"
    write_members(path, compression, train_images=content)
    with pytest.raises(DataError, match=words) as caught:
        load(path)
    assert "allow_pickle" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_zip_bomb_is_refused_from_its_header(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    size = 50_000_000
    content = npy_header((size // 100, 10, 10)) + bytes(size)
    write_members(path, zipfile.ZIP_DEFLATED, train_images=content)
    assert path.stat().st_size < size / 500
    monkeypatch.setattr(files, "memory_bytes", lambda: size - 1)
    with pytest.raises(DataError, match="does not fit in memory"):
        load(path)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    good = npy_header((10, 10, 10)) + bytes(1000)
    write_members(path, zipfile.ZIP_DEFLATED, train_images=good)
    shape = (10, 10, 100000)
    claim = len(npy_header(shape)) + 10**7
    content = path.read_bytes().replace(
        len(good).to_bytes(4, "little"), claim.to_bytes(4, "little")
    )
    path.write_bytes(content)
    with pytest.raises(DataError):
        load(path)


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"the file is empty \(.*a\.npz\)"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("cut", [1, 10, -30])
def test_a_damaged_archive_is_named(tmp_path, cut):
    path = tmp_path / "a.npz"
    save(path, **GOOD)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"not a readable \.npz file.*a\.npz"):
        load(path)


def test_a_flipped_byte_is_found(tmp_path):
    path = tmp_path / "a.npz"
    save(path, **GOOD)
    content = bytearray(path.read_bytes())
    content[content.index(IMAGES.tobytes()) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        load(path)


def test_one_array_alone_is_no_data_set(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    with pytest.raises(DataError, match=r"Write it with numpy\.savez"):
        load(tmp_path / "a.npy")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match=r"no such file.*numpy\.savez"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize("label", [2**31, 2**32, -(2**31) - 1, 2**63])
def test_labels_that_int32_does_not_hold_are_refused(tmp_path, label):
    """A cast would make class 0 of 2^32."""
    kind = np.uint64 if label == 2**63 else np.int64
    arrays = {**GOOD, "train_labels": np.array([1, 0, label, 1, 0, 1], kind)}
    with pytest.raises(DataError, match=rf"got {label} at row 2 .*train_labels"):
        load(save(tmp_path / "a.npz", **arrays))
