"""Objectives under JAX's switches: inputs decide, and no check has a false alarm.

The switches are JAX_ENABLE_X64, JAX_DEBUG_NANS, JAX_DEBUG_KEY_REUSE and
JAX_NUMPY_DTYPE_PROMOTION; beside them legacy keys.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import losses
from tests.losses.test_everywhere import (
    EACH,
    OTHER_LATENTS,
    B,
    assert_trees_close,
    build,
    example,
    kind_of,
    norm_kind_of,
    reference,
    value_and_grad,
)
from tests.tiers import others_slow

KINDS = [
    (name, kind(name)) for name in losses.LOSSES for kind in (kind_of, norm_kind_of)
]
PAIRS = [*dict.fromkeys(KINDS), *OTHER_LATENTS]
WITHOUT_NORM = [(name, kind_of(name)) for name in losses.LOSSES] + OTHER_LATENTS
FAST = ("decomposed_elbo", "plain")
every_pair = pytest.mark.parametrize(("name", "kind"), others_slow(PAIRS, FAST))
REUSE, STRICT = jax.debug_key_reuse, jax.numpy_dtype_promotion


def floats(tree):
    """Returns the dtypes of the numbers of a tree that are no integers."""
    leaves = map(jnp.asarray, jax.tree.leaves(tree))
    return {str(a.dtype) for a in leaves if jnp.issubdtype(a.dtype, jnp.inexact)}


def in_double(tree):
    """Returns the tree with its floats in float64."""
    return jax.tree.map(
        lambda a: a.astype("float64") if a.dtype == "float32" else a, tree
    )


def padded(kind):
    """Returns (keys, batch) with two rows of nan that do not count."""
    _, _, _, batch = example(kind)
    rows = np.r_[np.arange(B), 0, 1]
    batch = {name: value[rows] for name, value in batch.items()}
    batch["image"][B:] = np.nan
    return EACH[rows], {**batch, "mask": np.arange(B + 2) < B}


@every_pair
def test_with_64_bits_float32_stays_float32_with_the_same_numbers(name, kind):
    _, params, state, batch = example(kind)
    with jax.enable_x64(True):
        found = value_and_grad(name, kind)(params, state, EACH, batch, {})
        assert floats(found) == {"float32"}
        each, more = padded(kind)
        with_mask = value_and_grad(name, kind)(params, state, each, more, {})
        assert floats(with_mask) == {"float32"}
        found, with_mask = jax.device_get((found, with_mask))
    for part, masked, wanted in zip(
        found, with_mask, reference(name, kind), strict=True
    ):
        assert_trees_close(part, wanted)
        assert_trees_close(masked, wanted)


@pytest.mark.parametrize(
    "kind", others_slow([*dict.fromkeys(kind for _, kind in PAIRS)], "batch_norm")
)
def test_with_64_bits_parameters_are_those_without(kind):
    model, _, _, batch = example(kind)
    create = jax.jit(model.init)
    wanted = jax.device_get(create(jax.random.key(4), batch, EACH))
    with jax.enable_x64(True):
        found = jax.device_get(create(jax.random.key(4), batch, EACH))
    chex.assert_trees_all_equal_shapes_and_dtypes(found, wanted)
    assert_trees_close(found, wanted, rtol=1e-6)


@every_pair
def test_float64_in_is_float64_out_and_in_between(name, kind):
    """A step of 1e-6 is as straight as a line: rounded to float32 it would be noise."""
    _, params, state, batch = example(kind)
    draws = np.random.default_rng(1)
    way = jax.tree.map(lambda a: draws.standard_normal(a.shape), params)

    def along(t):
        moved = jax.tree.map(lambda a, b: a + t * b, in_double(params), way)
        value = jax.value_and_grad(build(name, kind), has_aux=True)
        return value(moved, in_double(state), EACH, in_double(batch), {})

    with jax.enable_x64(True):
        found = jax.jit(along)(0.0)
        assert floats(found) == {"float64"}
        zero, one, two = (float(jax.jit(along)(t)[0][0]) for t in (0.0, 1e-6, 2e-6))
    assert zero == pytest.approx(reference(name, kind)[0][0], rel=1e-4)
    assert abs(one - zero) > 1e-12
    assert two - zero == pytest.approx(2.0 * (one - zero), rel=1e-3)


@every_pair
def test_keys_are_used_once_and_dtypes_meet_their_own(name, kind):
    _, params, state, _ = example(kind)
    each, batch = padded(kind)
    with REUSE(True), STRICT("strict"):
        found = value_and_grad(name, kind)(params, state, each, batch, {})
    for part, wanted in zip(found, reference(name, kind), strict=True):
        assert_trees_close(part, wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), WITHOUT_NORM)
def test_no_operation_makes_nan_on_the_way(name, kind):
    """One by one, as within a program only its results would be looked at."""
    _, params, state, _ = example(kind)
    each, batch = padded(kind)
    function = jax.value_and_grad(build(name, kind), has_aux=True)
    with jax.debug_nans(True):
        found = function(params, state, each, batch, {})
    for part, wanted in zip(found, reference(name, kind), strict=True):
        assert_trees_close(part, wanted)


@pytest.mark.parametrize(("name", "kind"), others_slow(WITHOUT_NORM, FAST))
def test_legacy_keys_are_keys(name, kind):
    """Of two examples, as their keys are [2, 2] numbers and the one key is [2]."""
    size = 2
    model, params, state, batch = example(kind)
    batch = {key: value[:size] for key, value in batch.items()}
    loss = jax.jit(build(name, kind))
    one, legacy = jax.random.key(7), jax.random.PRNGKey(7)
    wanted = loss(params, state, one, batch, {})
    for key in (legacy, jax.random.split(legacy, size)):
        chex.assert_trees_all_equal(loss(params, state, key, batch, {}), wanted)
    created = jax.jit(model.init)(one, batch, one)
    again = jax.jit(model.init)(legacy, batch, legacy)
    chex.assert_trees_all_equal(created, again)
