"""NVAE: counts, identities of a hierarchy, what may be recomputed."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae import losses, models
from jvae.errors import ConfigError
from jvae.models.nvae.cells import Style
from jvae.models.nvae.groups import (
    GroupSizes,
    Noise,
    SamplingContext,
    stacked_bottom_up,
)
from tests.perturbed import perturbed

KEY = jax.random.key(0)
COLOUR = {
    "likelihood": {"name": "discretized_logistic_mixture", "num_components": 10},
    "blocks": 1,
    "block_cells": 2,
    "flow_pairs": 1,
}
MNIST = {"image_shape": (28, 28, 1), "padding": 2}
CIFAR = {"image_shape": (32, 32, 3), "channels": 128, "groups": (30,), **COLOUR}
CELEBA = {"image_shape": (64, 64, 3), "channels": 64, "groups": (5, 10, 20), **COLOUR}
IMAGENET = {"image_shape": (32, 32, 3), "channels": 192, "groups": (28,), **COLOUR}
HQ = {
    "image_shape": (256, 256, 3),
    "channels": 30,
    "groups": (4, 4, 4, 8, 16),
    **COLOUR,
    "flow_pairs": 2,
}
SMALL = {
    "image_shape": (6, 8, 1),
    "padding": 0,
    "channels": 4,
    "groups": (2, 2),
    "latent_channels": 3,
    "group_cells": 1,
    "blocks": 0,
    "block_cells": 1,
    "remat": "none",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "parameters", "latents"),
    [
        (MNIST, 33_363_134, 14_400),
        ({**MNIST, "channels": 16, "groups": (2, 4)}, 3_629_214, None),
        (CIFAR, 130_852_480, 153_600),
        (CELEBA, 153_281_364, 467_200),
        (IMAGENET, 268_509_444, 143_360),
        (HQ, 330_798_664, 6_005_760),
    ],
)
def test_as_many_parameters_and_latents_as_published(fields, parameters, latents):
    model = models.build("nvae", **fields)
    batch = {"image": jnp.zeros((1, *fields["image_shape"]))}
    shapes = jax.eval_shape(model.init, KEY, batch, KEY)["params"]
    if parameters is not None:
        assert sum(a.size for a in jax.tree.leaves(shapes)) == parameters
    if latents is not None:
        assert sum(math.prod(shape) for shape in model.latent_shapes) == latents


def images(n, shape=(6, 8, 1)):
    x = jax.random.uniform(jax.random.key(1), (n, *shape)) > 0.6
    return {"image": x.astype(jnp.float32)}


@functools.cache
def made(**fields):
    """(model, variables that are not those of the start)."""
    model = models.build("nvae", **{**SMALL, **fields})
    variables = jax.jit(model.init)(KEY, images(2), KEY)
    return model, {**variables, "params": perturbed(variables["params"], 0.1)}


@functools.partial(jax.jit, static_argnums=0, static_argnames="method")
def call(model, variables, *args, method):
    return model.apply(variables, *args, method=method)


@functools.partial(jax.jit, static_argnums=(0, 3), static_argnames="method")
def draw(model, variables, key, n, temperature=1.0, *, method):
    return model.apply(variables, key, n, temperature, method=method)


def without_heads(params):
    """Parameters whose posteriors change nothing."""

    def zero(path, a):
        names = [key.key for key in path]
        return jnp.zeros_like(a) if "posterior_head" in names else a

    params = jax.tree_util.tree_map_with_path(zero, params)

    def silent(path, a):  # exp(log_gain) is never 0
        names = [key.key for key in path]
        is_gain = "posterior_head" in names and names[-1] == "log_gain"
        return jnp.full_like(a, -jnp.inf) if is_gain else a

    return jax.tree_util.tree_map_with_path(silent, params)


@pytest.mark.slow
def test_a_posterior_that_says_nothing_costs_nothing():
    model, variables = made()
    variables = {**variables, "params": without_heads(variables["params"])}
    inference = call(model, variables, images(3), KEY, method="infer")
    np.testing.assert_allclose(inference.kl, np.zeros((3, 4)), atol=1e-12)
    np.testing.assert_allclose(inference.log_ratio, np.zeros(3), atol=1e-4)


@pytest.mark.slow
def test_its_draws_are_then_those_of_the_prior():
    model, variables = made()
    variables = {**variables, "params": without_heads(variables["params"])}
    drawn = call(model, variables, images(3), KEY, method="infer").latents
    keys = jax.random.split(KEY, 3)
    sample = draw(model, variables, keys, 3, 1.0, method="sample_prior")
    for a, b in zip(drawn.z, sample.z, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_groups_add_up_and_estimates_agree_in_the_mean():
    """The closed forms of all groups are the mean of log q - log p."""
    model, variables = made()
    batch = images(1)
    batch = {"image": jnp.tile(batch["image"], (4000, 1, 1, 1))}
    inference = call(model, variables, batch, jax.random.key(5), method="infer")
    assert inference.kl.shape == (4000, 4) and (inference.kl >= 0).all()
    difference = inference.log_ratio - inference.kl.sum(-1)
    error = difference.std() / np.sqrt(4000)
    assert abs(difference.mean()) < 4 * error
    assert inference.kl.sum(-1).mean() > 10 * error


@pytest.mark.slow
def test_with_flows_the_cost_of_a_group_is_the_ratio_at_the_draw():
    model, variables = made(flow_pairs=1)
    inference = call(model, variables, images(3), KEY, method="infer")
    np.testing.assert_allclose(inference.kl.sum(-1), inference.log_ratio, rtol=1e-5)


@pytest.mark.slow
def test_a_draw_belongs_to_its_example():
    model, variables = made()
    batch = images(4)
    keys = jax.random.split(KEY, 4)
    whole = call(model, variables, batch, keys, method="infer")
    part = call(
        model, variables, {"image": batch["image"][2:]}, keys[2:], method="infer"
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        np.testing.assert_allclose(a[2:], b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_latents_alone_decode_to_what_the_way_down_had():
    model, variables = made()
    latents = call(model, variables, images(3), KEY, method="infer").latents
    assert [z.shape for z in latents.z] == [(3, *s) for s in model.latent_shapes]
    with_features = call(model, variables, latents, method="decode")
    alone = call(model, variables, latents.z, method="decode")
    np.testing.assert_allclose(with_features, alone, rtol=1e-5, atol=1e-6)
    assert with_features.shape == (3, 6, 8, 1)


@pytest.mark.slow
def test_without_temperature_every_sample_is_the_same():
    model, variables = made()
    cold = draw(model, variables, KEY, 3, 0.0, method="generate")
    np.testing.assert_allclose(cold, jnp.tile(cold[:1], (3, 1, 1, 1)), rtol=1e-5)
    warm = draw(model, variables, KEY, 3, 1.0, method="generate")
    assert float(jnp.abs(warm[0] - warm[1]).max()) > 1e-3


@pytest.mark.slow
def test_the_temperature_is_that_of_every_group():
    """The first group's prior is N(0, 1.01^2), so its draws scale with it."""
    model, variables = made()
    one = draw(model, variables, KEY, 2000, 1.0, method="sample_prior").z[0][:, 0]
    half = draw(model, variables, KEY, 2000, 0.5, method="sample_prior").z[0][:, 0]
    np.testing.assert_allclose(half, 0.5 * one, rtol=1e-5)
    assert abs(float(one.std()) - 1.01) < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_coarse_scales_stay_and_fine_ones_are_drawn(kept):
    model, variables = made()
    first = draw(model, variables, KEY, 3, method="sample_prior")
    again = call(model, variables, first, jax.random.key(7), kept, method="resample")
    for i, (a, b) in enumerate(zip(first.z, again.z, strict=True)):
        assert bool((a == b).all()) == (i < kept)
    for wrong in (3, np.int64(3), -1):
        with pytest.raises(ConfigError, match="num_kept must be within 0 and 2"):
            model.apply(variables, first, KEY, wrong, method="resample")
    with pytest.raises(ConfigError, match="latents must be arrays of z, got a code"):
        model.apply(variables, Noise(first.z), KEY, 1, method="resample")


@pytest.mark.slow
def test_each_image_may_keep_another_number_of_scales():
    model, variables = made()
    first = draw(model, variables, KEY, 3, method="sample_prior")
    kept = jnp.array([0, 1, 2])
    again = call(model, variables, first, jax.random.key(7), kept, method="resample")
    for i, (a, b) in enumerate(zip(first.z, again.z, strict=True)):
        same = (a == b).reshape(3, -1).all(1)
        np.testing.assert_array_equal(same, [i < k for k in (0, 1, 2)])


def test_top_down_groups_are_mirrored_in_the_bottom_up_pass():
    """The last bottom-up group, which has seen the most, is the first top-down."""
    groups = stacked_bottom_up(Style("plain"), GroupSizes(1, 1, 0, "none"), 3)
    x = jax.random.normal(KEY, (1, 3, 3, 4))
    variables = jax.jit(groups.init)(KEY, x, None)

    @jax.jit
    def taps(scale):
        moved = jax.tree.map(
            lambda a: a * scale.reshape(3, *(1,) * (a.ndim - 1)), variables
        )
        return groups.apply(moved, x, None)[1]

    before = taps(jnp.ones(3))
    for i in range(3):
        after = taps(jnp.ones(3).at[i].set(1.5))
        changed = (jnp.abs(after - before) > 1e-6).reshape(3, -1).any(1)
        np.testing.assert_array_equal(changed, [tap <= i for tap in range(3)])


@pytest.mark.slow
def test_a_posterior_that_says_nothing_has_the_code_zero():
    model, variables = made()
    variables = {**variables, "params": without_heads(variables["params"])}
    code = call(model, variables, images(3), method="code")
    for u, shape in zip(code.u, model.latent_shapes, strict=True):
        np.testing.assert_allclose(u, np.zeros((3, *shape)), atol=1e-6)
    cold = draw(model, variables, KEY, 3, 0.0, method="generate")
    np.testing.assert_allclose(call(model, variables, code, method="decode"), cold)


@pytest.mark.slow
@pytest.mark.parametrize("flow_pairs", [0, 1])
def test_a_code_decodes_to_what_its_latents_do(flow_pairs):
    """The top-down pass makes of the noise the latents that it was taken from."""
    model, variables = made(flow_pairs=flow_pairs)

    def means(model, batch):
        seen = model._bottom_up(batch)
        return model._top_down(3, SamplingContext(None, 1.0, None), seen)[0].z

    z = jax.jit(lambda v, batch: model.apply(v, batch, method=means))(
        variables, images(3)
    )
    code = call(model, variables, images(3), method="code")
    by_noise, by_latents = (
        call(model, variables, which, method="decode") for which in (code, z)
    )
    np.testing.assert_allclose(by_noise, by_latents, rtol=1e-4, atol=1e-5)
    zero = jax.tree.map(jnp.zeros_like, code)
    other = call(model, variables, zero, method="decode")
    assert float(jnp.abs(other - by_noise).max()) > 1e-3


@pytest.mark.slow
def test_an_arc_between_codes_keeps_their_lengths_and_meets_them():
    model, _ = made()
    shapes = [(2, 1, *shape) for shape in model.latent_shapes]
    start, end = (
        Noise(tuple(jax.random.normal(jax.random.key(i), s) for s in shapes))
        for i in (1, 2)
    )
    t = jnp.linspace(0.0, 1.0, 5).reshape(1, 5, 1, 1, 1, 1)
    path = model.interpolate(start, end, t)
    for a, b, points in zip(start.u, end.u, path.u, strict=True):
        assert points.shape == (2, 5, *a.shape[2:])
        np.testing.assert_allclose(points[:, 0], a[:, 0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(points[:, -1], b[:, 0], rtol=1e-5, atol=1e-6)
        lengths = jnp.linalg.norm(points.reshape(2, 5, a.shape[2], -1), axis=-1)
        np.testing.assert_allclose(
            lengths[:, 2], (lengths[:, 0] + lengths[:, 4]) / 2, rtol=1e-5
        )
    still = model.interpolate(start, start, t)
    for a, points in zip(start.u, still.u, strict=True):
        np.testing.assert_allclose(points, jnp.tile(a, (1, 5, 1, 1, 1, 1)), rtol=1e-4)


def outcome(fields):
    """Loss, new collections and gradient in training mode."""
    model, _ = made()
    other = models.build("nvae", **{**SMALL, **fields})
    variables = dict(made()[1])
    params = variables.pop("params")
    loss = losses.build("elbo", model=other)

    def value(params):
        loss_value, aux = loss(params, variables, KEY, images(4), {})
        return loss_value, (loss_value, aux.state)

    gradient, (loss_value, state) = jax.jit(jax.grad(value, has_aux=True))(params)
    return loss_value, state, gradient


@pytest.fixture(scope="module")
def kept():
    return outcome({})


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"remat": "cells"},
        {"features": "recompute"},
    ],
)
def test_what_is_recomputed_changes_nothing(kept, fields):
    """Loss, running statistics (once updated, not twice) and gradient."""
    paths = jax.tree_util.tree_leaves_with_path(kept)
    for (path, a), b in zip(paths, jax.tree.leaves(outcome(fields)), strict=True):
        # Before a BatchNorm a bias has no gradient but what is rounded.
        scale = float(jnp.abs(a).max()) + 0.1
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(b, a, rtol=0.0, atol=1e-4 * scale, err_msg=name)


def test_shapes_of_all_that_it_offers():
    """By tracing alone: in the default tier, where nothing else calls it."""
    model = models.build("nvae", **{**SMALL, "padding": 1, "groups": (1, 1)})
    batch = images(2)

    def everything(key):
        variables = model.init(key, batch, key)
        run = functools.partial(model.apply, variables)
        latents = run(batch, key, method="infer").latents
        code = run(batch, method="code")
        other = run(latents, key, 1, method="resample")
        return {
            "kl": run(batch, key, method="infer").kl,
            "likelihood": run(latents, batch, method="likelihood").logits,
            "again": run(list(latents.z), batch, method="likelihood").logits,
            "of_code": run(code, method="decode"),
            "on_the_way": run(
                run(code, code, jnp.float32(0.5), method="interpolate"), method="decode"
            ),
            "resampled": run(other, method="decode"),
            "generated": run(key, 2, method="generate"),
        }

    shapes = {k: a.shape for k, a in jax.eval_shape(everything, KEY).items()}
    assert shapes.pop("kl") == (2, 2)
    assert set(shapes.values()) == {(2, 6, 8, 1)}


@pytest.mark.slow
def test_the_padding_is_within_the_model_and_not_scored():
    model = models.build("nvae", **{**SMALL, "padding": 1, "groups": (1, 1)})
    batch = images(2)
    variables = jax.jit(model.init)(KEY, batch, KEY)
    likelihood = call(model, variables, batch, KEY, method="__call__")
    assert likelihood.logits.shape == (2, 6, 8, 1)
    assert model.latent_shapes == [(1, 4, 5, 3), (1, 8, 10, 3)]


@pytest.mark.slow
def test_in_bfloat16_costs_and_statistics_are_in_float32():
    model = models.build("nvae", **{**SMALL, "dtype": "bfloat16"})
    shapes = jax.eval_shape(model.init, KEY, images(2), KEY)
    assert all(a.dtype == jnp.float32 for a in jax.tree.leaves(shapes))

    def infer(variables):
        inference = model.apply(variables, images(2), KEY, method="infer")
        likelihood = model.apply(variables, inference.latents, {}, method="likelihood")
        return inference, likelihood

    inference, likelihood = jax.eval_shape(infer, shapes)
    assert inference.kl.dtype == inference.log_ratio.dtype == jnp.float32
    assert likelihood.logits.dtype == jnp.float32
    assert inference.latents.features.dtype == jnp.bfloat16


def test_weights_of_groups_are_four_to_the_scale_over_their_number():
    model = models.build("nvae", **{**SMALL, "groups": (2, 4), "channels": 2})
    np.testing.assert_allclose(model.group_weights, [1.0] * 2 + [2.0] * 4)
    model = models.build("nvae", **{**HQ})
    each = np.cumsum([0, 4, 4, 4, 8])
    np.testing.assert_allclose(
        np.asarray(model.group_weights)[each], [1.0, 4.0, 16.0, 32.0, 64.0]
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_shape": (6, 7, 1)}, r"multiple of 2\^1 = 2 for 1 halvings, got 7"),
        ({"channels": 0}, "model.channels must be at least 1"),
        ({"groups": ()}, "model.groups must"),
        ({"groups": (2, 0)}, "model.groups must"),
        ({"blocks": -1}, "model.blocks must be at least 0"),
        ({"channels": 5}, "model.channels must be even"),
        ({"likelihood": "bernouli"}, "bernoulli"),
        ({"image_shape": (6, 8)}, "image_shape"),
    ],
)
def test_what_cannot_be_built_is_said(fields, message):
    with pytest.raises(ConfigError, match=message):
        models.build("nvae", **{**SMALL, **fields})
