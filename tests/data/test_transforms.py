"""Pixels become what a likelihood is defined on, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae.data import transforms
from jvae.errors import ConfigError

ALL = np.arange(256, dtype=np.uint8)
BITS = range(1, 9)
RANDOM = ["binarize", "dequantize"]


def apply(name, image, num_bits=8, seed=0):
    transform = transforms.build(name, num_bits)

    def prepare(image):
        key = jax.random.key(seed)
        return transforms.prepare({"image": image}, key, transform)["image"]

    if name in RANDOM:  # the others are few operations, the same at all bits
        prepare = jax.jit(prepare)
    return np.asarray(prepare(jnp.asarray(image)))


def all_levels():
    return ALL.reshape(1, 16, 16, 1)


@pytest.mark.parametrize("num_bits", BITS)
@pytest.mark.parametrize("name, low, high", [("unit", 0, 1), ("signed", -1, 1)])
def test_levels_are_evenly_spaced_between_the_ends(name, low, high, num_bits):
    values = np.unique(apply(name, all_levels(), num_bits))
    expected = np.linspace(low, high, 2**num_bits, dtype=np.float32)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert values.dtype == np.float32
    assert values[0] == low and values[-1] == high


@pytest.mark.parametrize("num_bits", BITS)
def test_levels_are_the_high_bits(num_bits):
    values = apply("levels", all_levels(), num_bits).ravel()
    np.testing.assert_array_equal(values, ALL // 2 ** (8 - num_bits))
    assert values.dtype == np.int32


def test_five_bits_have_32_values():
    values = np.unique(apply("unit", all_levels(), 5))
    assert len(values) == 32 and values.min() == 0 and values.max() == 1


@pytest.mark.parametrize("num_bits", BITS)
def test_threshold_is_the_highest_bit(num_bits):
    values = apply("threshold", all_levels(), num_bits).ravel()
    np.testing.assert_array_equal(values, ALL >= 128)


@pytest.mark.parametrize("num_bits", BITS)
def test_noise_fills_the_bin_and_never_leaves_it(num_bits):
    image = np.broadcast_to(all_levels(), (300, 16, 16, 1))
    values = apply("dequantize", image, num_bits).astype(np.float64)
    assert values.min() >= 0 and values.max() < 1
    level = image // 2 ** (8 - num_bits)
    noise = values * 2**num_bits - level
    assert noise.min() >= 0 and noise.max() < 1
    n = noise.size
    assert abs(noise.mean() - 0.5) < 5 * np.sqrt(1 / 12 / n)
    assert abs((noise**2).mean() - 1 / 3) < 5 * np.sqrt(4 / 45 / n)


def test_draws_have_the_intensity_as_their_probability():
    draws = 2000
    values = apply("binarize", np.broadcast_to(all_levels(), (draws, 16, 16, 1)))
    assert set(np.unique(values)) == {0.0, 1.0} and values.dtype == np.float32
    p = ALL / 255
    mean = values.mean(axis=0).ravel()
    assert mean[0] == 0 and mean[255] == 1
    z = (mean - p)[1:-1] / np.sqrt(p * (1 - p) / draws)[1:-1]
    assert np.abs(z).max() < 5
    assert abs(np.mean(z**2) - 1) < 0.5


def test_the_last_bits_of_a_probability_count():
    image = np.full((1, 2**13), 2.0**-18, np.float32)
    binarize = transforms.build("binarize").apply
    keys = jax.random.split(jax.random.key(0), (2**12, 1))
    ones = np.asarray(jax.lax.map(lambda k: binarize(image, k).sum(), keys))
    expected = 2.0**25 * 2.0**-18
    assert abs(float(ones.sum()) - expected) < 6 * np.sqrt(expected)


def test_pixels_of_an_image_are_drawn_independently():
    gray = np.full((4000, 2, 3, 1), 128, np.uint8)
    values = apply("binarize", gray).reshape(4000, 6)
    correlation = np.corrcoef(values.T) - np.eye(6)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


@pytest.mark.parametrize("name", RANDOM)
def test_draws_of_an_example_depend_on_its_key_alone(name):
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 5, 3), np.uint8)
    keys = jax.random.split(jax.random.key(1), 6)
    transform = transforms.build(name)
    prepare = jax.jit(lambda i, k: transforms.prepare({"image": i}, k, transform))
    whole = np.asarray(prepare(image, keys)["image"])
    parts = [prepare(image[i : i + 3], keys[i : i + 3])["image"] for i in (0, 3)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert np.any(whole != prepare(image, keys[::-1])["image"])


@pytest.mark.parametrize("name", RANDOM)
def test_one_key_is_split_for_the_examples(name):
    batch = {"image": np.full((3, 2, 2, 1), 99, np.uint8)}
    transform, key = transforms.build(name), jax.random.key(1)
    prepare = jax.jit(lambda batch, key: transforms.prepare(batch, key, transform))
    one, many = prepare(batch, key), prepare(batch, jax.random.split(key, 3))
    np.testing.assert_array_equal(one["image"], many["image"])


@pytest.mark.parametrize("name", ["unit", "signed", "levels", "dequantize"])
def test_padding_is_black_pixels_on_every_side(name):
    image = all_levels()[:, :4, :6]
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2), (0, 0)))
    keys = jax.random.split(jax.random.key(0), 1)
    transform = transforms.build(name, padding=2)
    prepare = jax.jit(transforms.prepare, static_argnums=2)
    found = prepare({"image": image}, keys, transform)["image"]
    wanted = prepare({"image": padded}, keys, transforms.build(name))
    assert found.shape == (1, 8, 10, 1)
    np.testing.assert_array_equal(found, wanted["image"])


def test_padding_is_not_negative():
    with pytest.raises(ConfigError, match="padding must be at least 0, got -1"):
        transforms.build("unit", padding=-1)


def test_the_rest_of_a_batch_stays_as_it_is():
    batch = {"image": np.zeros((2, 1, 1, 1), np.uint8), "label": np.array([3, 4])}
    prepared = transforms.prepare(batch, jax.random.key(0), transforms.build("unit"))
    assert prepared["label"] is batch["label"] and prepared.keys() == batch.keys()


@pytest.mark.parametrize("name", ["unit", "signed", "binarize", "threshold"])
def test_floats_stand_for_intensities(name):
    as_bytes = apply(name, all_levels())
    as_floats = apply(name, all_levels().astype(np.float32) / 255)
    np.testing.assert_allclose(as_bytes, as_floats, atol=1e-6)


def test_a_half_is_white():
    assert apply("threshold", np.full((1, 1, 1, 1), 0.5, np.float32)) == 1


@pytest.mark.parametrize(
    "name, num_bits", [("dequantize", 8), ("levels", 8), ("unit", 5), ("signed", 5)]
)
def test_floats_have_no_levels(name, num_bits):
    with pytest.raises(ConfigError, match="must be uint8"):
        apply(name, np.zeros((1, 2, 2, 1), np.float32), num_bits)


@pytest.mark.parametrize("name", sorted({*transforms.TRANSFORMS} - {"tokens"}))
@pytest.mark.parametrize("num_bits", [3, 8])
def test_pictures_are_the_intensities_again(name, num_bits):
    transform = transforms.build(name, num_bits)
    shown = np.asarray(
        transform.to_unit(jnp.asarray(apply(name, all_levels(), num_bits)))
    )
    assert shown.min() >= 0 and shown.max() <= 1
    if transform.support != "binary":
        intensity = (ALL >> (8 - num_bits)).reshape(1, 16, 16, 1) / (2**num_bits - 1)
        np.testing.assert_allclose(shown, intensity, atol=2.0**-num_bits + 1e-6)


SUPPORTS = {
    "binarize": "binary",
    "dequantize": "real",
    "levels": "levels",
    "signed": "signed",
    "tokens": "tokens",
    "threshold": "binary",
    "unit": "unit",
}


def test_every_transform_says_its_support():
    found = {name: transforms.build(name).support for name in transforms.TRANSFORMS}
    assert found == SUPPORTS


@pytest.mark.parametrize("num_bits", [0, 9, 2.5])
def test_bits_out_of_range_are_refused(num_bits):
    with pytest.raises(ConfigError, match=r"num_bits must be"):
        transforms.build("unit", num_bits)


def test_an_unknown_transform_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="Did you mean 'binarize'"):
        transforms.build("binarise")


def test_a_transform_is_one_object_so_that_its_programs_are_shared():
    for name in transforms.TRANSFORMS:
        assert transforms.build(name, 4, 1) == transforms.build(name, 4, 1)
        assert transforms.build(name, 4) != transforms.build(name, 4, 1)
