"""The checksum against an independent one, and against what it must notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from jvae.workdir.checksums import checksum, checksums

DTYPES = (
    "float32 bfloat16 float16 int8 uint8 int16 uint16 int32 uint32 bool float8_e5m2"
)


def written_in_numpy(array):
    """The same checksum from its definition: words of at most 32 bits, in order."""
    array = np.ascontiguousarray(array)
    raw = array.reshape(-1).view(np.uint8)
    words = raw.view(f"<u{min(array.dtype.itemsize, 4)}").astype(object)
    total = 0
    for i, word in enumerate(words):
        mixed = (int(word) + 0x9E3779B9) * ((i * 2654435761 + 1) | 1) % 2**32
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            mixed = (mixed ^ (mixed >> shift)) * factor % 2**32
        total += mixed ^ (mixed >> 16)
    return total % 2**32


def bits(size, dtype, seed=0):
    """An array of random bits, NaNs and infinities among them."""
    dtype = jnp.dtype(dtype)
    random = np.random.default_rng(seed)
    if dtype.kind == "b":
        return random.integers(0, 2, size).astype(bool)
    return np.frombuffer(random.bytes(size * dtype.itemsize), dtype)


def of(array):
    return checksums({"a": array})["a"]


@pytest.fixture(params=["host", "device"])
def place(request, monkeypatch):
    """Where sums are made: small arrays on the host, but for this fixture."""
    if request.param == "device":
        monkeypatch.setattr("jvae.workdir.checksums.ON_HOST", 0)


@pytest.mark.parametrize("size", [0, 1, 7, 64])
@pytest.mark.parametrize("dtype", DTYPES.split())
def test_it_is_the_one_of_its_definition(dtype, size):
    array = bits(size, dtype)
    assert of(array) == written_in_numpy(array)


@pytest.mark.parametrize("size", [1, 7])
def test_devices_make_the_same_sums(size, monkeypatch):
    monkeypatch.setattr("jvae.workdir.checksums.ON_HOST", 0)
    arrays = {dtype: bits(size, dtype) for dtype in DTYPES.split()}
    found = checksums(jax.device_put(arrays))
    assert found == {name: written_in_numpy(a) for name, a in arrays.items()}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64"])
def test_words_of_64_bits_count_whole(dtype):
    array = bits(9, dtype)
    with jax.enable_x64(True):
        assert of(array) == written_in_numpy(array)
        for bit in range(64):
            other = array.copy()
            other.view(np.uint64)[4] ^= np.uint64(1 << bit)
            assert of(other) != of(array)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (2, 3, 4)])
def test_any_flipped_bit_changes_it(shape, dtype):
    size = int(np.prod(shape))
    array = bits(size, dtype).reshape(shape)
    width = 8 * array.dtype.itemsize
    changed = np.repeat(array.reshape(1, size), size * width, axis=0)
    words = changed.view(f"u{array.dtype.itemsize}")
    for i in range(size * width):
        words[i, i // width] ^= words.dtype.type(1 << (i % width))
    sums = np.asarray(jax.jit(jax.vmap(checksum))(jnp.asarray(changed)))
    assert not (sums == of(array)).any()


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_rows_that_change_places_change_it(seed, rows, data):
    array = bits(40 * 3, "float32", seed).reshape(40, 3)
    i = data.draw(st.integers(0, rows - 1))
    j = data.draw(st.integers(0, rows - 1).filter(lambda j: j != i))
    other = array.copy()
    other[[i, j]] = other[[j, i]]
    assert of(other) != of(array)


@pytest.mark.parametrize("bit", [0, 15, 16, 30, 31])
def test_two_flips_of_one_kind_do_not_cancel(bit):
    """Signs above all: the highest bit is what sums modulo 2^32 see least of."""
    array = bits(64, "float32")
    i, j = np.triu_indices(64, 1)
    changed = np.repeat(array[None], len(i), axis=0)
    words, row = changed.view(np.uint32), np.arange(len(i))
    words[row, i] ^= np.uint32(1 << bit)
    words[row, j] ^= np.uint32(1 << bit)
    sums = np.asarray(jax.jit(jax.vmap(checksum))(jnp.asarray(changed)))
    assert not (sums == of(array)).any()


def test_zeros_of_another_number_or_sign_are_noticed():
    """Zeros are what a hole in a file reads as."""
    assert len({written_in_numpy(np.zeros(n, np.float32)) for n in range(200)}) == 200
    assert of(np.zeros(8, np.float32)) != of(-np.zeros(8, np.float32))


@pytest.mark.parametrize(
    "axes, spec",
    [
        ((8,), ("a",)),
        ((8,), (None, "a")),
        ((2, 4), ("a", "b")),
        ((4, 2), (None, ("b", "a"))),
        ((8,), ()),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool"])
@pytest.mark.usefixtures("place")
def test_it_does_not_depend_on_where_the_array_lies(axes, spec, dtype):
    array = bits(16 * 24, dtype).reshape(16, 24)
    kinds = (jax.sharding.AxisType.Auto,) * len(axes)
    devices = jax.make_mesh(axes, ("a", "b")[: len(axes)], axis_types=kinds)
    placed = jax.device_put(array, NamedSharding(devices, PartitionSpec(*spec)))
    assert len(placed.sharding.device_set) == 8
    assert of(placed) == written_in_numpy(array)


@pytest.mark.parametrize("name", ["threefry2x32", "rbg"])
def test_random_keys_have_one(name):
    keys = jax.random.split(jax.random.key(3, impl=name), 4)
    assert of(keys) == written_in_numpy(jax.random.key_data(keys))
    assert of(keys) != of(keys[::-1])


def test_every_array_of_a_tree_has_its_own():
    tree = {"b": [jnp.arange(3), jnp.arange(4)], "a": {"c": jnp.float32(2.5)}}
    found = checksums(tree)
    assert list(found) == ["a/c", "b/0", "b/1"]
    assert found["b/1"] == written_in_numpy(np.arange(4, dtype=np.int32))
    assert all(isinstance(value, int) for value in found.values())
