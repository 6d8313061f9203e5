"""One key per example, whatever the batch an example comes in."""

import jax
import numpy as np
import pytest

from jvae import keys

KEY = jax.random.key(3)


def data(key):
    return np.asarray(jax.random.key_data(key))


def test_one_key_becomes_the_keys_of_its_split():
    np.testing.assert_array_equal(
        data(keys.per_example(KEY, 5)), data(jax.random.split(KEY, 5))
    )


def test_keys_per_example_stay_as_they_are():
    each = jax.random.split(KEY, 5)
    assert keys.per_example(each, 5) is each


def test_another_number_of_keys_is_refused():
    with pytest.raises(ValueError, match=r"one key or 4 keys, got shape \(5,\)"):
        keys.per_example(jax.random.split(KEY, 5), 4)


def test_split_each_splits_every_examples_own_key():
    each = jax.random.split(KEY, 4)
    parts = keys.split_each(each, 3)
    assert parts.shape == (3, 4)
    for example, key in enumerate(each):
        expected = data(jax.random.split(key, 3))
        np.testing.assert_array_equal(data(parts[:, example]), expected)


def test_legacy_keys_are_the_typed_ones():
    """Two of them too: [2, 2] numbers, beside the [2] of a single one."""
    one, legacy = jax.random.key(3), jax.random.PRNGKey(3)
    assert keys.typed(one) is one and keys.typed(legacy) == one
    for size in (1, 2, 5):
        each, old = (jax.random.split(key, size) for key in (one, legacy))
        for key in (legacy, old, np.asarray(old)):
            np.testing.assert_array_equal(data(keys.per_example(key, size)), data(each))
        parts = data(keys.split_each(old, 3))
        np.testing.assert_array_equal(parts, data(keys.split_each(each, 3)))
    wanted = data(keys.at_indices(one, np.arange(4)))
    np.testing.assert_array_equal(data(keys.at_indices(legacy, np.arange(4))), wanted)
    with pytest.raises(ValueError, match=r"one key or 4 keys, got shape \(2,\)"):
        keys.per_example(jax.random.split(legacy, 2), 4)


@pytest.mark.parametrize("size", [1, 3])
def test_keys_made_of_keys_are_each_used_once(size):
    """A transpose of keys, in a program, would count as their use."""

    @jax.jit
    def draws(key):
        parts = keys.split_each(keys.per_example(key, size), 2)
        return [jax.vmap(jax.random.normal)(part) for part in parts]

    with jax.debug_key_reuse(True):
        first, second = draws(jax.random.clone(KEY))
    assert np.all(np.asarray(first) != np.asarray(second))


def test_keys_at_indices_depend_on_the_index_alone():
    whole = data(keys.at_indices(KEY, np.arange(10)))
    np.testing.assert_array_equal(data(keys.at_indices(KEY, [7, 2])), whole[[7, 2]])
    assert len({tuple(k) for k in whole}) == 10
