"""What counts as another data set. Fast: small arrays and a dozen pictures."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jvae.data.datasets.images import images
from jvae.data.digest import NUM_SAMPLED, data_digest
from jvae.data.sources import ArraySource, Cached, Splits, Subset


def split(seed=0, n=200):
    rng = np.random.default_rng(seed)
    return ArraySource({"image": rng.integers(0, 256, (n, 2, 2, 1), np.uint8)})


def test_what_a_run_learns_from_counts_and_the_test_split_does_not():
    base = Splits(split(0), split(1), split(2))
    digest = data_digest(base)
    assert digest == data_digest(Splits(split(0), split(1), split(2)))
    assert len(digest) == 16 and int(digest, 16) >= 0
    assert digest == data_digest(dataclasses.replace(base, test=split(9)))
    for other in ("train", "validation"):
        assert digest != data_digest(dataclasses.replace(base, **{other: split(9)}))
    assert digest != data_digest(dataclasses.replace(base, validation=None))


@pytest.mark.parametrize("index", [0, 199])
def test_the_first_and_the_last_example_are_looked_at(index):
    changed = split().arrays["image"].copy()
    changed[index, 0, 0, 0] ^= 1
    other = Splits(ArraySource({"image": changed}), split())
    assert data_digest(Splits(split(), split())) != data_digest(other)


def test_an_order_that_shifts_is_seen():
    shifted = np.roll(split().arrays["image"], 1, axis=0)
    other = Splits(ArraySource({"image": shifted}), split())
    assert data_digest(Splits(split(), split())) != data_digest(other)


def test_what_holds_a_source_has_its_digest_and_a_subset_its_indices():
    plain = data_digest(Splits(split(), split()))
    assert data_digest(Splits(Cached(split()), split())) == plain
    a, b = (
        data_digest(Splits(Subset(split(), np.array(indices)), split()))
        for indices in ([3, 1, 2], [1, 2, 3])
    )
    assert len({a, b, plain}) == 3


def test_another_type_of_pixels_is_other_data():
    floats = ArraySource({"image": np.zeros((9, 2, 2, 1), np.float32)})
    bytes_ = ArraySource({"image": np.zeros((9, 2, 2, 1), np.uint8)})
    assert data_digest(Splits(floats, split())) != data_digest(Splits(bytes_, split()))


def test_a_source_that_is_never_the_same_has_its_size_alone():
    class Noise:
        shapes = {"image": (2, 2, 1)}

        def __init__(self, n):
            self.n, self.rng = n, np.random.default_rng()

        def __len__(self):
            return self.n

        def read(self, indices):
            return {"image": self.rng.random((len(indices), 2, 2, 1), np.float32)}

    digests = [data_digest(Splits(Noise(n), split())) for n in (9, 9, 10)]
    assert digests[0] == digests[1] != digests[2]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        picture = Image.fromarray(rng.integers(0, 255, (4, 4), np.uint8))
        picture.save(tmp_path / f"{i:02d}.png")
    return tmp_path


def of(folder):
    return data_digest(images(str(folder), channels=1))


@pytest.mark.parametrize("change", ["replaced", "renamed", "swapped"])
def test_pictures_count_as_files(folder, change):
    before = of(folder)
    assert of(folder) == before
    if change == "replaced":
        for file in folder.iterdir():
            Image.new("L", (4, 4), 7).save(file)
    elif change == "renamed":
        (folder / "03.png").rename(folder / "99.png")
    else:
        (folder / "03.png").rename(folder / "x")
        (folder / "04.png").rename(folder / "03.png")
        (folder / "x").rename(folder / "04.png")
    assert of(folder) != before


def test_pictures_that_are_turned_are_other_data(folder):
    plain = data_digest(images(str(folder), channels=1, rule=1))
    assert plain != of(folder)


def test_pictures_may_move_to_another_folder(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "pictures"
    before = of(folder)
    folder.rename(elsewhere)
    assert of(elsewhere) == before


def test_few_examples_are_read_of_a_large_split():
    class Counting(ArraySource):
        total = 0

        def read(self, indices):
            Counting.total += len(indices)
            return super().read(indices)

    source = Counting({"image": np.zeros((100_000, 1, 1, 1), np.uint8)})
    data_digest(Splits(source, split()))
    assert Counting.total <= 2 * NUM_SAMPLED


def test_the_order_of_a_subset_counts_between_the_examples_that_are_sampled():
    order = np.arange(200)
    swapped = order.copy()
    swapped[[1, 2]] = 2, 1
    sampled = np.linspace(0, 199, NUM_SAMPLED).astype(np.int64)
    assert not {1, 2} & set(sampled.tolist())
    a, b = (data_digest(Splits(Subset(split(), i), split())) for i in (order, swapped))
    assert a != b


def test_the_name_of_every_picture_counts(tmp_path):
    """Of 300 of one content, one that is not sampled gets another name."""
    Image.new("L", (4, 4), 7).save(tmp_path / "0000.png")
    content = (tmp_path / "0000.png").read_bytes()
    for i in range(1, 300):
        (tmp_path / f"{i:04d}.png").write_bytes(content)
    before = of(tmp_path)
    (tmp_path / "0002.png").rename(tmp_path / "0002b.png")
    assert of(tmp_path) != before
