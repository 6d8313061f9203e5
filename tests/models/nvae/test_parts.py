"""Cells, masks and kernels of hierarchical models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jvae.models.nvae.cells import (
    BottomUpCell,
    HalvingSkip,
    SqueezeExcite,
    Style,
    TopDownCell,
)
from jvae.models.nvae.convolutions import Convolution, conv_kernels, norm_scales
from jvae.models.nvae.flows import AutoregressiveStep, VolumePreservingFlow
from jvae.models.nvae.groups import gaussian
from tests.distributions.jitted import normal

KEY = jax.random.key(0)


def random_variables(module, *args):
    """Returns normal numbers where the module has parameters, by NumPy."""
    shapes = jax.eval_shape(module.init, KEY, *args)
    draws = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: (0.5 * draws.normal(size=a.shape)).astype(a.dtype), shapes
    )


def jacobian(module, shape):
    """d outputs / d inputs [N, N] of a module at random parameters and inputs."""
    z = normal(1, 1, *shape)
    variables = random_variables(module, z)

    def flat(z):
        return module.apply(variables, z.reshape(1, *shape)).reshape(-1)

    return np.asarray(jax.jit(jax.jacobian(flat))(z.reshape(-1)))


def test_a_step_changes_each_variable_by_those_before_it():
    found = jacobian(AutoregressiveStep(), (3, 2, 2))
    np.testing.assert_array_equal(np.triu(found, 1), np.zeros((12, 12)))
    np.testing.assert_array_equal(np.diag(found), np.ones(12))
    # The first variable reaches every one in its 3x3 neighbourhood, and beyond by 5x5.
    assert (np.abs(found[1:, 0]) > 0).all()


def test_a_flow_keeps_volumes_and_its_pairs_go_both_ways():
    found = jacobian(VolumePreservingFlow(2), (2, 2, 2))
    np.testing.assert_allclose(np.linalg.det(found.astype(np.float64)), 1.0, rtol=1e-4)
    assert (np.abs(found[np.triu_indices(8, 1)]) > 0).all()
    assert (np.abs(found[np.tril_indices(8, -1)]) > 0).all()


def test_a_flow_of_no_pairs_is_nothing():
    np.testing.assert_array_equal(
        jacobian(VolumePreservingFlow(0), (1, 2, 1)), np.eye(2)
    )


@pytest.mark.parametrize("cells", ["batch_norm", "plain"])
@pytest.mark.parametrize(
    ("kind", "resize", "shape"),
    [
        (BottomUpCell, "none", (4, 6, 8)),
        (BottomUpCell, "down", (2, 3, 16)),
        (TopDownCell, "none", (4, 6, 8)),
        (TopDownCell, "up", (8, 12, 4)),
    ],
)
def test_cells_have_the_shapes_of_their_kind(kind, resize, shape, cells):
    cell = kind(Style(cells, 4), resize=resize)
    x = np.zeros((2, 4, 6, 8), "float32")
    variables = jax.eval_shape(cell.init, KEY, x)
    assert jax.eval_shape(cell.apply, variables, x).shape == (2, *shape)
    assert ("batch_stats" in variables) == (cells == "batch_norm")


def test_plain_cells_add_little_at_the_start():
    """A hundred of them leave the size of what goes through in order."""
    cell = BottomUpCell(Style("plain", depth=100))
    x = normal(0, 2, 6, 6, 8)
    through = jax.jit(lambda key, y: cell.apply(cell.init(key, y), y))
    y = x
    for i in range(100):
        y = through(jax.random.key(i), y)
    assert 0.5 < np.asarray(y).std() / x.std() < 3.0


def test_weight_normalized_kernels_have_the_length_of_their_gain():
    variables = random_variables(Convolution(4), normal(0, 2, 5, 5, 3))
    (matrix,) = jax.jit(conv_kernels)(variables["params"]).values()
    lengths = np.linalg.norm(np.asarray(matrix)[0], axis=-1)
    np.testing.assert_allclose(
        lengths, np.exp(variables["params"]["log_gain"]), rtol=1e-4
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"weight_norm": False},
        {"order": "strict"},
        {"order": "causal"},
        {"depthwise": True},
        {"depthwise": True, "order": "causal"},
    ],
)
def test_kernels_as_matrices_are_those_that_convolve(fields):
    """A single place of an image, seen by the outputs around it, gives the kernel."""
    channels = 4
    conv = Convolution(channels, 3, use_bias=False, **fields)
    x = np.zeros((channels, 3, 3, channels), "float32")
    x[range(channels), 1, 1, range(channels)] = 1.0
    variables = random_variables(conv, x)
    (matrix,) = jax.jit(conv_kernels)(variables["params"]).values()
    depthwise = fields.get("depthwise", False)
    inputs = 1 if depthwise else channels
    kernel = np.asarray(matrix)[0].T.reshape(3, 3, inputs, channels)
    seen = np.asarray(jax.jit(conv.apply)(variables, x))[:, ::-1, ::-1]
    for c in range(channels):
        wanted = kernel[:, :, 0 if depthwise else c]
        if depthwise:
            wanted = wanted * np.eye(channels)[c][None, None]
        np.testing.assert_allclose(seen[c], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_kernels_and_scales_are_found_and_dense_layers_left_out():
    cell = TopDownCell(Style(), resize="up")
    params = random_variables(cell, np.zeros((1, 2, 2, 4), "float32"))["params"]
    assert len(conv_kernels(params)) == 4  # 1x1, depthwise, 1x1, skip
    assert len(norm_scales(params)) == 4
    stacked = jax.tree.map(lambda a: np.stack([a] * 3), params)
    for name, matrices in conv_kernels(stacked).items():
        one = conv_kernels(params)[name]
        np.testing.assert_array_equal(matrices, np.concatenate([one] * 3))


def test_bounds_of_a_group():
    far = np.array([[-1e9, 0.0, 1e9]], "float32")
    found = jax.jit(gaussian)(far, far)
    np.testing.assert_allclose(found.mean, [[-5.0, 0.0, 5.0]])
    np.testing.assert_allclose(found.std, [[0.016738, 1.01, 148.423]], rtol=1e-4)


def test_a_sum_of_gains_is_what_squeeze_and_excite_multiplies_by():
    """Every channel gets one factor within (0, 1), whatever the place."""
    x = normal(0, 2, 3, 3, 8) + 2.0
    gate = SqueezeExcite()
    ratio = np.asarray(jax.jit(gate.apply)(random_variables(gate, x), x)) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    np.testing.assert_allclose(ratio, ratio[:, :1, :1] + np.zeros_like(x), rtol=1e-5)
    assert ratio.std() > 0.01


def test_the_skip_halves_the_map_phase_by_phase():
    """Each quarter of the channels is a 1x1 convolution of one phase of the pixels."""
    skip = HalvingSkip(Style("plain"))
    x = normal(0, 1, 4, 6, 4)
    variables = random_variables(skip, x)
    found = np.asarray(jax.jit(skip.apply)(variables, x))
    assert found.shape == (1, 2, 3, 8)
    for i, (row, column) in enumerate(((0, 0), (1, 1), (0, 1), (1, 0))):
        layer = variables["params"][f"Convolution_{i}"]
        phase = x[:, row::2, column::2]
        phase = phase * scipy.special.expit(phase)
        wanted = phase @ layer["kernel"][0, 0] + layer["bias"].reshape(1, 1, 1, -1)
        part = found[..., 2 * i : 2 * i + 2]
        np.testing.assert_allclose(part, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("cells", "factor"), [("batch_norm", 0.1), ("plain", 1.0)])
def test_a_cell_is_its_input_and_a_share_of_its_branch(cells, factor):
    """Of a branch that is its last bias alone, behind the gate."""
    cell = BottomUpCell(Style(cells))
    x = normal(0, 2, 4, 4, 4)
    variables = jax.device_get(jax.jit(cell.init)(KEY, x))
    params = variables["params"]
    last = params["Convolution_1"]
    last["kernel"], last["bias"] = 0.0 * last["kernel"], np.float32([1, 2, 3, 4])
    branch = np.zeros_like(x) + last["bias"]
    gate = jax.jit(SqueezeExcite().apply)({"params": params["SqueezeExcite_0"]}, branch)
    found = jax.jit(cell.apply)(variables, x)
    np.testing.assert_allclose(
        found, x + factor * np.asarray(gate), rtol=1e-5, atol=1e-6
    )


def test_heads_are_not_rounded_where_cells_are():
    style, x = Style("plain", dtype=jnp.bfloat16), normal(0, 1, 3, 3, 8)
    for layer, error in ((style.head(5, 1), 1e-6), (style.convolution(5, 1), 1e-2)):
        variables = random_variables(layer, x)
        params = variables["params"]
        exact = x @ params["kernel"][0, 0] + params["bias"]
        off = np.abs(np.float32(jax.jit(layer.apply)(variables, x)) - exact).max()
        assert 0.1 * error < off < 10 * error or error == 1e-6 and off < error


def test_statistics_move_by_a_twentieth_of_the_way_to_the_batch():
    cell = TopDownCell(Style())
    x = 3.0 + normal(0, 8, 4, 4, 4)

    @jax.jit
    def step(x):
        return cell.apply(cell.init(KEY, x), x, mutable=["batch_stats"])

    _, new = step(x)
    first = new["batch_stats"]["BatchNorm_0"]
    first = first.get("BatchNorm_0", first)
    np.testing.assert_allclose(first["mean"], 0.05 * x.mean((0, 1, 2)), rtol=1e-5)
    wanted = 0.95 + 0.05 * x.var((0, 1, 2))
    np.testing.assert_allclose(first["var"], wanted, rtol=1e-3)
