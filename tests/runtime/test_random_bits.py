"""Draws are those of jax.random, number for number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae.runtime import random_bits

KEYS = jax.random.split(jax.random.key(5), 3)
SHAPES = [(), (1,), (7,), (4, 5, 3), (2**16 + 1,)]
PAIRS = [
    (random_bits.bits, jax.random.bits),
    (random_bits.uniform, jax.random.uniform),
    (random_bits.normal, jax.random.normal),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["bits", "uniform", "normal"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_draws_are_those_of_jax(ours, theirs, shape):
    for key in KEYS:
        mine, wanted = jax.jit(ours, static_argnums=1)(key, shape), theirs(key, shape)
        assert mine.dtype == wanted.dtype and mine.shape == shape
        np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["bits", "uniform", "normal"])
def test_draws_of_many_keys_are_those_of_jax(ours, theirs):
    mine = jax.vmap(lambda key: ours(key, (9,)))(KEYS)
    wanted = jnp.stack([theirs(key, (9,)) for key in KEYS])
    np.testing.assert_array_equal(mine, wanted)


def test_another_generator_is_left_to_jax():
    key = jax.random.key(5, impl="rbg")
    np.testing.assert_array_equal(
        random_bits.bits(key, (9,)), jax.random.bits(key, (9,))
    )


@pytest.mark.parametrize(
    ("key", "counter", "cipher"),
    [
        # Known answers of the generator's authors, Random123's kat_vectors.
        ((0x0, 0x0), (0x0, 0x0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 2, (0x1CB996FC, 0xBB002BE7)),
        (
            (0x13198A2E, 0x03707344),
            (0x243F6A88, 0x85A308D3),
            (0xC4923A9C, 0x483DF7A0),
        ),
    ],
)
def test_the_cipher_has_the_answers_of_its_authors(key, counter, cipher):
    words = [jnp.array([word], jnp.uint32) for word in counter]
    found = random_bits.cipher(jnp.array(key, jnp.uint32), *words)
    assert [int(word[0]) for word in found] == list(cipher)


def test_sixteen_bits_are_added_to_a_level_exactly():
    noise = random_bits.uniform16(KEYS[0], (2**16,))
    assert noise.min() >= 0 and noise.max() < 1
    levels = jnp.arange(2**16) % 256
    x = (levels + noise) / 256.0
    np.testing.assert_array_equal(jnp.floor(x * 256.0), levels)
    np.testing.assert_array_equal(x * 256.0 - levels, noise)
    # 2^16 draws of 2^16 values: about 1 - 1/e of them are met.
    assert abs(len(np.unique(noise)) / 2**16 - (1 - np.exp(-1))) < 0.01
