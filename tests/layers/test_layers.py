"""Every form of a convolution against jax.lax; BatchNorm against its formulas."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from jvae import layers
from jvae.layers import spectral
from jvae.runtime import mesh
from tests.tiers import others_slow

KEY = jax.random.key(0)
# Every size from 1 to 5 once along an odd and once along an even axis of the image.
SIZE, KERNEL_SHAPES = (5, 6), [(1, 5), (2, 4), (3, 3), (4, 2), (5, 1)]
LARGER_THAN_THE_IMAGE = ((1, 2), (5, 4))
CASES = [*((SIZE, kernel) for kernel in KERNEL_SHAPES), LARGER_THAN_THE_IMAGE]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def lax_convolution(x, kernel, stride):
    axes = ("NHWC", "HWIO", "NHWC")
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", None, None, axes)


def lax_transposed(x, kernel):
    return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME")


WHERE = {"outside": contextlib.nullcontext, "in a loop": layers.loop_body}


def check_values_and_gradients(layer, oracle, x, kernel, places=("outside",)):
    """Asserts that layer(x, kernel) and its pull-back equal the oracle's."""

    @jax.jit
    def values_and_gradients(x, kernel):
        wanted, pull_wanted = jax.vjp(oracle, x, kernel)
        g = jnp.sin(jnp.arange(wanted.size, dtype=jnp.float32)).reshape(wanted.shape)
        found = {}
        for place in places:
            with WHERE[place]():
                y, pull_found = jax.vjp(layer, x, kernel)
                found[place] = (y, *pull_found(g))
        return (wanted, *pull_wanted(g)), found

    wanted, found = values_and_gradients(x, kernel)
    for place in places:
        for a, b in zip(found[place], wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=place)


@pytest.mark.parametrize(("size", "kernel_shape"), CASES)
@pytest.mark.parametrize(
    ("stride", "channels"),
    others_slow(
        [(s, c) for s in (1, 2) for c in ((3, 2), (2, 9), (9, 10), (10, 9), (9, 9))],
        *((1, c) for c in ((3, 2), (2, 9), (9, 10), (10, 9), (9, 9))),
        (2, (3, 2)),
    ),
)
def test_convolution_equals_lax(stride, channels, size, kernel_shape):
    x = normal(0, 2, *size, channels[0])
    kernel = normal(1, *kernel_shape, *channels)
    layer, oracle = (
        functools.partial(f, stride=stride)
        for f in (layers.convolution, lax_convolution)
    )
    check_values_and_gradients(layer, oracle, x, kernel, WHERE)


@pytest.mark.parametrize(("size", "kernel_shape"), CASES)
def test_upsampling_convolution_equals_lax(size, kernel_shape):
    x, kernel = normal(0, 2, *size, 3), normal(1, *kernel_shape, 3, 2)
    layer, oracle = layers.upsampling_convolution, lax_transposed
    check_values_and_gradients(layer, oracle, x, kernel, WHERE)


@pytest.mark.parametrize(
    "function",
    [layers.convolution, layers.upsampling_convolution, layers.depthwise_convolution],
)
def test_a_kernel_may_be_a_constant_of_numpy(function):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 2)).astype("f4")
    if function is layers.depthwise_convolution:
        kernel = kernel[:, :, :1]
    x = np.ones((1, 4, 4, 2), "f4")

    def gradient(x, kernel):
        return jax.grad(lambda x: function(x, kernel).sum())(x)

    found = jax.jit(lambda x: gradient(x, kernel))(x)
    np.testing.assert_allclose(found, jax.jit(gradient)(x, kernel), rtol=1e-5)


def lax_depthwise(x, kernel):
    axes = ("NHWC", "HWIO", "NHWC")
    groups = x.shape[-1]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", None, None, axes, feature_group_count=groups
    )


FORMS = {
    "thin": (layers.convolution, functools.partial(lax_convolution, stride=1)),
    "upsampling": (layers.upsampling_convolution, lax_transposed),
    "thick": (layers.convolution, functools.partial(lax_convolution, stride=1)),
    "depthwise": (layers.depthwise_convolution, lax_depthwise),
    "depthwise of large maps": (layers.depthwise_convolution, lax_depthwise),
}
every_form = pytest.mark.parametrize("name", FORMS)


def example(name):
    """Returns (layer, its oracle, x, kernel)."""
    size, shape = (4, 3), (3, 3, 3, 2)
    if name == "thick":
        size, shape = (4, 3), (3, 3, 10, 9)
    elif name == "depthwise":
        shape = (3, 3, 1, 3)
    elif name == "depthwise of large maps":
        size, shape = (8, 7), (3, 3, 1, 3)
    channels = shape[3] if shape[2] == 1 else shape[2]
    return *FORMS[name], normal(0, 2, *size, channels), normal(1, *shape)


@every_form
def test_derivatives_forward_and_of_second_order_are_laxs(name):
    """Newton's method needs the derivative of a gradient; a Jacobian may go forward."""
    layer, oracle, x, kernel = example(name)

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(layer, x, kernel):
        def value(x, kernel):
            return jnp.sin(layer(x, kernel)).sum()

        ways = jnp.cos(x), jnp.sin(kernel)
        return (
            jax.jvp(layer, (x, kernel), ways),
            jax.jvp(jax.grad(value, (0, 1)), (x, kernel), ways),
            jax.grad(lambda *at: jax.jvp(value, at, ways)[1], (0, 1))(x, kernel),
            jax.jacfwd(layer, (0, 1))(x, kernel),
        )

    found, wanted = derivatives(layer, x, kernel), derivatives(oracle, x, kernel)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@every_form
@pytest.mark.parametrize("axes", [(1, None), (None, 2), (0, 0)])
def test_values_and_gradients_of_several_at_once_are_those_of_each(name, axes):
    layer, _, x, kernel = example(name)
    x, kernel = (
        a if axis is None else np.stack([a, -a, a / 2.0], axis)
        for a, axis in zip((x, kernel), axes, strict=True)
    )

    def results(x, kernel):
        y, pull = jax.vjp(layer, x, kernel)
        return y, *pull(jnp.sin(y))

    found = jax.jit(jax.vmap(results, axes))(x, kernel)
    for i in range(3):
        at = [
            a if axis is None else np.take(a, i, axis)
            for a, axis in zip((x, kernel), axes, strict=True)
        ]
        for a, b in zip(found, jax.jit(results)(*at), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-4)


@every_form
def test_devices_that_share_a_kernel_add_up_its_gradient(name):
    layer, _, x, kernel = example(name)
    x = np.concatenate([x, 2.0 - x, x**2, -x])  # a row for each device

    def gradients(x, kernel):
        return jax.grad(lambda *at: jnp.sin(layer(*at)).sum(), (0, 1))(x, kernel)

    devices = mesh.build()
    specs = P(mesh.AXES), P()
    sharded = jax.shard_map(gradients, mesh=devices, in_specs=specs, out_specs=specs)
    found, wanted = jax.jit(sharded)(x, kernel), jax.jit(gradients)(x, kernel)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@every_form
def test_devices_keep_their_rows_of_what_is_drawn_several_times(name):
    """As an importance-weighted bound maps a decoder over draws."""
    layer, _, x, kernel = example(name)
    x = np.concatenate([x, 2.0 - x, x**2, -x])
    many = np.stack([x, -x, x / 2.0])

    def gradient(many, kernel):
        mapped = jax.vmap(layer, (0, None))
        return jax.grad(lambda m: jnp.sin(mapped(m, kernel)).sum())(many)

    placed = jax.device_put(many, mesh.rows(mesh.build(), leading=1))
    program = jax.jit(gradient).lower(placed, kernel).compile()
    assert "all-gather" not in program.as_text()
    wanted = jax.jit(gradient)(many, kernel)
    np.testing.assert_allclose(program(placed, kernel), wanted, rtol=1e-4, atol=1e-4)


@every_form
def test_on_an_explicit_mesh_gradients_lie_as_their_arrays(name):
    layer, _, x, kernel = example(name)
    x = np.concatenate([x, 2.0 - x, x**2, -x])

    def gradients(x, kernel):
        return jax.grad(lambda *at: jnp.sin(layer(*at)).sum(), (0, 1))(x, kernel)

    wanted = jax.jit(gradients)(x, kernel)
    devices = jax.make_mesh((8,), ("d",))
    with jax.set_mesh(devices):
        placed = jax.device_put(x, P("d")), jax.device_put(kernel, P())
        found = jax.jit(gradients)(*placed)
    assert found[0].sharding.spec[0] == "d"
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@every_form
def test_a_nan_is_found_and_jit_may_be_off(name):
    layer, _, x, kernel = example(name)
    wanted = jax.jit(layer)(x, kernel)
    with jax.disable_jit():
        np.testing.assert_allclose(layer(x, kernel), wanted, rtol=1e-4, atol=1e-4)
    with jax.debug_nans(True), pytest.raises(FloatingPointError, match="nan"):
        jax.jit(layer)(np.nan * x, kernel)


@every_form
def test_a_batch_under_vmap_may_be_symbolic_or_empty(name):
    layer, _, x, kernel = example(name)

    def each(x):
        return jax.vmap(lambda one: layer(one[None], kernel)[0])(x)

    (size,) = jax.export.symbolic_shape("b")
    given = jax.ShapeDtypeStruct((size, *x.shape[1:]), "float32")
    exported = jax.export.export(jax.jit(each))(given)
    np.testing.assert_allclose(exported.call(x), layer(x, kernel), rtol=1e-4, atol=1e-4)
    assert len(jax.jit(each)(x[:0])) == 0


@every_form
def test_a_default_precision_is_that_of_where_it_was_traced(name):
    layer, oracle, x, kernel = example(name)

    def precise(f):
        def call(x, kernel):
            with jax.default_matmul_precision("highest"):
                return f(x, kernel)

        return jax.export.export(jax.jit(call), platforms=["tpu"])(x, kernel)

    found, wanted = (precise(f).mlir_module() for f in (layer, oracle))
    assert found.count("HIGHEST") == wanted.count("HIGHEST") > 0


def test_two_dtypes_are_refused_where_lax_refuses_them():
    layer, _, x, kernel = example("thick")
    with pytest.raises(TypeError, match="the same, got bfloat16, float32"):
        layer(x.astype(jnp.bfloat16), kernel)


@every_form
def test_a_program_has_the_form_of_its_own_platform(name):
    """Exported here, on a CPU; XLA's own convolution, and its gradients, on others."""
    layer, oracle, x, kernel = example(name)
    platforms = ("cpu", "tpu", "cuda")

    def program(layer, *platforms):
        def pulled(x, kernel):
            y, pull = jax.vjp(layer, x, kernel)
            return y, *pull(y)

        exported = jax.export.export(jax.jit(pulled), platforms=platforms)(x, kernel)
        return exported.mlir_module()

    def convolutions(text):
        return text.count("stablehlo.convolution")

    for platform in platforms[1:]:
        found, wanted = program(layer, platform), program(oracle, platform)
        assert convolutions(found) == convolutions(wanted) == 3
        assert "case" not in found and "case" not in program(layer, "cpu")
    assert convolutions(program(layer, *platforms)) == 2 * 3 + convolutions(
        program(layer, "cpu")
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_outside_a_loop_is_laxs_own(stride):
    x, kernel = normal(0, 2, 5, 4, 9), normal(1, 3, 3, 9, 9)
    found, wanted = (
        jax.jit(lambda x, kernel, f=f: f(x, kernel, stride)).lower(x, kernel).as_text()
        for f in (layers.convolution, lax_convolution)
    )
    assert found == wanted


def test_scanned_convolutions_train_like_unrolled_ones():
    """Gradients of layers under scan equal those of a Python loop over lax."""
    x, kernels = normal(0, 2, 6, 6, 3), normal(1, 4, 3, 3, 3, 3) * 0.3

    def scanned(kernels):
        def body(x, kernel):
            return jnp.tanh(layers.convolution(x, kernel)), None

        return jnp.square(layers.scan(body, x, kernels)[0]).sum()

    def unrolled(kernels):
        y = x
        for kernel in kernels:
            y = jnp.tanh(lax_convolution(y, kernel, 1))
        return jnp.square(y).sum()

    found = jax.jit(jax.value_and_grad(scanned))(kernels)
    wanted = jax.jit(jax.value_and_grad(unrolled))(kernels)
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-4, atol=1e-4)


def test_scan_takes_the_loop_form_inside_its_body_only():
    def body(carry, x):
        return carry, layers.convolution(x, np.ones((3, 3, 9, 9), "float32"))

    x = np.ones((2, 1, 4, 4, 9), "float32")
    inside = str(jax.make_jaxpr(lambda x: layers.scan(body, None, x))(x))
    assert "in_loop=True" in inside
    after = str(jax.make_jaxpr(lambda x: body(None, x))(x[0]))
    assert "in_loop=False" in after


def test_the_loop_form_ends_with_the_loop_even_after_an_error():
    with pytest.raises(KeyError), layers.loop_body():
        raise KeyError
    x, kernel = normal(0, 1, 4, 4, 9), normal(1, 3, 3, 9, 9)
    assert "in_loop=False" in str(jax.make_jaxpr(layers.convolution)(x, kernel))


class NormedCell(nn.Module):
    """A BatchNorm between two nonlinear layers."""

    @nn.compact
    def __call__(self, x):
        return x + jnp.tanh(layers.BatchNorm()(jnp.tanh(layers.Dense(3)(x))))


def test_what_is_recomputed_sums_over_no_devices_again():
    """The statistics of a batch are kept: as many sums as where nothing is recomputed.

    And the same numbers.
    """
    x = jax.device_put(normal(0, 16, 2, 3), mesh.rows(mesh.build()))

    def sums_and_gradient(kind):
        cell = kind()
        variables = jax.jit(cell.init)(KEY, x)
        stacked = jax.tree.map(lambda a: jnp.stack([a, 2.0 * a]), variables["params"])

        def value(stacked, x):
            def body(x, params):
                together = {**variables, "params": params}
                return cell.apply(together, x, mutable=["batch_stats"])

            return jnp.sin(layers.scan(body, x, stacked)[0]).sum()

        program = jax.jit(jax.grad(value)).lower(stacked, x).compile()
        return program.as_text().count(" all-reduce("), program(stacked, x)

    count, wanted = sums_and_gradient(NormedCell)
    found, recomputed = sums_and_gradient(layers.remat(NormedCell, in_loop=True))
    assert found == count > 0
    for a, b in zip(*map(jax.tree.leaves, (recomputed, wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_space_to_depth_orders_channels_by_phase_and_depth_to_space_undoes_it(block):
    x = normal(0, 2, 2 * block, 3 * block, 5)
    y = np.asarray(layers.space_to_depth(x, block))
    assert y.shape == (2, 2, 3, block * block * 5)
    for row in range(block):
        for column in range(block):
            first = (row * block + column) * 5
            phase = y[..., first : first + 5]
            np.testing.assert_array_equal(phase, x[:, row::block, column::block])
    np.testing.assert_array_equal(layers.depth_to_space(y, block), x)


@pytest.mark.parametrize(
    ("layer", "oracle"),
    [
        (layers.Conv(4, 3), nn.Conv(4, (3, 3))),
        (layers.Conv(4, 5, stride=2), nn.Conv(4, (5, 5), strides=2)),
        (layers.ConvTranspose(4, 3), nn.ConvTranspose(4, (3, 3), strides=(2, 2))),
    ],
    ids=["conv", "strided", "transposed"],
)
def test_layers_have_the_parameters_and_the_values_of_flax(layer, oracle):
    x = normal(0, 2, 6, 4, 3)
    shapes = jax.eval_shape(layer.init, KEY, x)
    assert shapes == jax.eval_shape(oracle.init, KEY, x)
    params = jax.tree.map(lambda a: normal(1, *a.shape), shapes)
    found, wanted = jax.jit(lambda p, x: (layer.apply(p, x), oracle.apply(p, x)))(
        params, x
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_layers_compute_in_their_dtype_with_float32_parameters():
    layer = layers.Conv(4, dtype=jnp.bfloat16)
    x = normal(0, 2, 6, 4, 3)
    y, params = jax.eval_shape(lambda: layer.init_with_output(KEY, x))
    assert y.dtype == jnp.bfloat16
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def batch_norm(x):
    """A BatchNorm with its parameters and statistics moved away from 1 and 0."""
    layer = layers.BatchNorm(momentum=0.9, epsilon=1e-3)
    shapes = jax.eval_shape(layer.init, KEY, x)
    leaves, tree = jax.tree.flatten(shapes)
    moved = [1.0 + 0.1 * np.square(normal(i, *a.shape)) for i, a in enumerate(leaves)]
    return layer, jax.tree.unflatten(tree, moved)


def normalized(x, mean, var, params):
    scale, bias = (params["BatchNorm_0"][k] for k in ("scale", "bias"))
    return (x - mean) / np.sqrt(var + 1e-3) * scale + bias


def test_batch_norm_uses_running_statistics_where_they_are_not_mutable():
    x = 3.0 * normal(7, 16, 2, 2, 3) + 1.0
    layer, variables = batch_norm(x)
    running = variables["batch_stats"]["BatchNorm_0"]
    wanted = normalized(x, running["mean"], running["var"], variables["params"])
    found = jax.jit(layer.apply)(variables, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_batch_norm_uses_and_updates_statistics_of_the_global_batch(devices):
    x = 3.0 * normal(7, 16, 2, 2, 3) + np.arange(16).reshape(-1, 1, 1, 1)
    x = x.astype("float32")
    layer, variables = batch_norm(x)
    placed = x if devices == 1 else jax.device_put(x, mesh.rows(mesh.build()))
    apply = jax.jit(lambda v, x: layer.apply(v, x, mutable=["batch_stats"]))
    found, updated = apply(variables, placed)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    wanted = normalized(x, mean, var, variables["params"])
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    old, new = (v["batch_stats"]["BatchNorm_0"] for v in (variables, updated))
    np.testing.assert_allclose(new["mean"], 0.9 * old["mean"] + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(new["var"], 0.9 * old["var"] + 0.1 * var, rtol=1e-4)


def test_batch_norm_is_that_of_the_reference_networks_unless_told_otherwise():
    """Keras's defaults: 0.99 of the old statistics stays, 1e-3 is added to var."""
    x = normal(7, 64, 3)
    apply = functools.partial(layers.BatchNorm().apply, mutable=["batch_stats"])
    params = {"scale": np.ones(3, "float32"), "bias": np.zeros(3, "float32")}
    stats = {"mean": np.zeros(3, "float32"), "var": np.ones(3, "float32")}
    collections = {"params": params, "batch_stats": stats}
    variables = {k: {"BatchNorm_0": v} for k, v in collections.items()}
    y, new = jax.jit(apply)(variables, 0.1 * x)
    found = new["batch_stats"]["BatchNorm_0"]
    mean, var = 0.1 * x.mean(0), 0.01 * x.var(0)
    np.testing.assert_allclose(y, (0.1 * x - mean) / np.sqrt(var + 1e-3), atol=1e-4)
    np.testing.assert_allclose(found["mean"], 0.01 * mean, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["var"], 0.99 + 0.01 * var, rtol=1e-6)


def test_rows_of_padding_have_no_part_in_batch_norm():
    """Output of the other rows, gradient and statistics stay, whatever they hold."""
    x, places = 3.0 * normal(7, 8, 2, 2, 3) + 1.0, [0, 3, 8]
    layer, variables = batch_norm(x)
    g = normal(8, *x.shape)

    @jax.jit
    def run(x, g, mask):
        def value(x):
            y, state = layer.apply(variables, x, mask, mutable=["batch_stats"])
            return (g * y).sum(), (y, state)

        gradient, (y, state) = jax.grad(value, has_aux=True)(x)
        return gradient, y, state

    gradient, y, state = run(x, g, np.ones(8, bool))
    mask = np.insert(np.ones(8, bool), places, False)
    padded, cotangent = np.insert(x, places, 1e4, 0), np.insert(g, places, 0.0, 0)
    found = jax.device_get(run(padded, cotangent, mask))
    np.testing.assert_allclose(found[0][mask], gradient, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found[0][~mask], np.zeros((3, 2, 2, 3)))
    np.testing.assert_allclose(found[1][mask], y, rtol=1e-6, atol=1e-6)
    for f, w in zip(jax.tree.leaves(found[2]), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-6)


def test_a_batch_of_padding_alone_leaves_the_statistics_of_batch_norm():
    x = normal(7, 4, 3)
    layer, variables = batch_norm(x)
    apply = jax.jit(functools.partial(layer.apply, mutable=["batch_stats"]))
    y, state = apply(variables, x, np.zeros(4, bool))
    assert np.isfinite(y).all()
    jax.tree.map(
        np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"]
    )


def test_batch_norm_keeps_float32_statistics_of_a_bfloat16_batch():
    x = jnp.zeros((4, 3), jnp.bfloat16)
    layer = layers.BatchNorm(dtype=jnp.bfloat16)
    y, variables = jax.eval_shape(lambda: layer.init_with_output(KEY, x))
    assert y.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("name", "negative"),
    [
        ("relu", 0.0),
        ("leaky_relu", -0.2),
        ("elu", np.expm1(-1.0)),
        ("tanh", np.tanh(-1)),
    ],
)
def test_activations_are_the_functions_of_their_names(name, negative):
    found = jax.jit(layers.ACTIVATIONS[name])(np.array([-1.0, 0.0], "float32"))
    np.testing.assert_allclose(found, [negative, 0.0], rtol=1e-6)


def test_dropout_drops_its_rate_of_every_example_and_scales_the_rest():
    n, rate = 20_000, 0.1
    keys = jax.random.split(jax.random.key(0), 3)
    x = np.full((3, n), 2.0, "float32")
    y = np.asarray(jax.jit(lambda x, keys: layers.dropout(x, rate, keys))(x, keys))
    assert set(np.unique(y)) == {0.0, np.float32(2.0 / 0.9)}
    dropped = (y == 0).mean(1)
    assert np.abs(dropped - rate).max() < 5 * np.sqrt(rate * (1 - rate) / n)
    assert (y[0] != y[1]).any() and (y[1] != y[2]).any()
    assert layers.dropout(x, 0.0, keys) is x and layers.dropout(x, rate, None) is x


def test_a_product_of_rows_is_matmul_and_so_are_its_gradients():
    x, kernel = normal(0, 2, 3, 4, 5), normal(1, 5, 6)

    def value(product):
        return lambda x, kernel: jnp.sin(product(x, kernel)).sum()

    rows = value(layers.row_product)
    found = jax.jit(jax.grad(rows, (0, 1)))(x, kernel)
    wanted = jax.jit(jax.grad(value(jnp.matmul), (0, 1)))(x, kernel)
    y = jax.eval_shape(layers.row_product, x, kernel)
    assert y.shape == (2, 3, 4, 6)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_product_of_a_row_has_its_derivatives_and_dtypes():
    """Of one vector, and of two dtypes, as `jnp.dot` takes them."""
    x, kernel = normal(0, 4, 5), normal(1, 5, 6)
    found = jax.jit(jax.vmap(layers.row_product, (0, None)))(x, kernel)
    np.testing.assert_allclose(found, x @ kernel, rtol=1e-4, atol=1e-5)
    dense = layers.Dense(6)
    params = jax.jit(dense.init)(KEY, x[0])
    jacobian = jax.jit(jax.jacfwd(lambda one: dense.apply(params, one)))(x[0])
    np.testing.assert_allclose(jacobian, params["params"]["kernel"].T, rtol=1e-5)

    def value(x, kernel):
        return layers.row_product(x, kernel).sum()

    gradients = jax.grad(value, (0, 1))(jnp.asarray(x, jnp.bfloat16), kernel)
    assert [g.dtype for g in gradients] == ["bfloat16", "float32"]


def test_outside_its_bounds_a_value_gets_the_gradients_that_lead_back():
    x = np.array([-3.0, -3.0, 0.5, 0.5, 3.0, 3.0], "float32")
    g = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0], "float32")

    @jax.jit
    def value_and_gradient(x, g):
        y, pull = jax.vjp(lambda x: layers.bounded(x, -1.0, 2.0), x)
        return y, pull(g)[0]

    y, gradient = value_and_gradient(x, g)
    np.testing.assert_array_equal(y, np.clip(x, -1.0, 2.0))
    np.testing.assert_array_equal(gradient, [0.0, -1.0, 1.0, -1.0, 1.0, 0.0])


def test_within_its_bounds_a_value_has_all_derivatives_outside_those_of_a_constant():
    x = np.array([-3.0, -0.5, 0.25, 1.5, 3.0], "float32")
    inside = np.array([0.0, 1.0, 1.0, 1.0, 0.0])

    def value(x):
        return jnp.sin(layers.bounded(x, -1.0, 2.0)).sum()

    @jax.jit
    def derivatives(x):
        twice = jax.hessian(value)(x), jax.jacfwd(jax.jacfwd(value))(x)
        return jax.jacfwd(value)(x), *map(jnp.diagonal, twice)

    first, *second = derivatives(x)
    np.testing.assert_allclose(first, inside * np.cos(x), rtol=1e-6, atol=1e-7)
    for each in second:
        np.testing.assert_allclose(each, inside * -np.sin(x), rtol=1e-6, atol=1e-7)


def test_forward_mode_at_bounds_is_that_of_clip_in_a_batch_and_over_devices():
    """With one direction for all examples, and for all devices."""
    x = np.linspace(-3.0, 3.0, 16, dtype="float32").reshape(8, 2)
    inside = (x >= -1.0) & (x <= 2.0)

    def bounded(x):
        return layers.bounded(x, -1.0, 2.0)

    def along(x):
        return jax.jvp(bounded, (x,), (jnp.ones(2, x.dtype),))[1]

    jacobians = jax.jit(jax.vmap(jax.jacfwd(bounded)))(x)
    np.testing.assert_array_equal(jacobians, inside[:, :, None] * np.eye(2))
    np.testing.assert_array_equal(jax.jit(jax.vmap(along))(x), inside)

    def of_device(x):
        return jax.jvp(bounded, (x,), (jnp.ones((1, 2), x.dtype),))[1]

    rows = P(mesh.AXES)
    mapped = jax.shard_map(of_device, mesh=mesh.build(), in_specs=rows, out_specs=rows)
    np.testing.assert_array_equal(jax.jit(mapped)(x), inside)


def test_in_a_loop_and_example_by_example_the_gradient_at_bounds_is_the_same():
    x = np.array([[-3.0, 0.5, 3.0], [3.0, -3.0, 0.5]], "float32")
    slope = np.array([1.0, -1.0, -1.0], "float32")

    def value(x):
        def body(total, s):
            return total + s * layers.bounded(x, -1.0, 2.0).sum(), None

        return layers.scan(body, jnp.float32(0.0), slope)[0]

    found = jax.jit(jax.vmap(jax.grad(jax.checkpoint(value))))(x)
    wanted = [[-2.0, -1.0, 1.0], [1.0, -2.0, -1.0]]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("size", [(2, 3), (8, 8), (9, 8), (3, 66)])
def test_a_depthwise_convolution_equals_lax(size, kernel_size):
    """Small maps as one product, large ones as shifted products."""
    x = normal(0, 2, *size, 3)
    kernel = normal(1, kernel_size, kernel_size, 1, 3)
    check_values_and_gradients(layers.depthwise_convolution, lax_depthwise, x, kernel)


def test_every_place_four_times():
    x = normal(0, 2, 3, 2, 2)
    wanted = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    np.testing.assert_array_equal(layers.double_nearest(x), wanted)


@pytest.mark.parametrize("size", [(1, 2), (3, 4)])
def test_bilinear_doubling_is_linear_between_corners(size):
    x = normal(0, 1, *size, 1)
    places = [np.linspace(0.0, n - 1.0, 2 * n) for n in size]
    by_row = [np.interp(places[1], np.arange(size[1]), row) for row in x[0, :, :, 0]]
    columns = np.stack(by_row).T
    wanted = [np.interp(places[0], np.arange(size[0]), column) for column in columns]
    found = np.asarray(jax.jit(layers.double_bilinear)(x))[0, :, :, 0]
    np.testing.assert_allclose(found, np.stack(wanted).T, atol=1e-6)


def power_iteration(matrices, iterations):
    """Returns (values, left vectors), from a start at random."""

    @jax.jit
    def run(matrices):
        start = spectral.power_start(KEY, matrices)
        return spectral.power_iteration(matrices, start, iterations)

    return jax.device_get(run(matrices))


@pytest.mark.parametrize("iterations", [1, 20])
def test_power_iteration_finds_the_largest_singular_value(iterations):
    """Within 1% after 20 iterations; a lower bound before."""
    matrices = {"a": normal(0, 3, 8, 20), "b": normal(1, 1, 5, 5)}
    found, left = power_iteration(matrices, iterations)
    for name, w in matrices.items():
        exact = np.linalg.svd(w, compute_uv=False)[:, 0]
        assert (found[name] <= exact * (1 + 1e-5)).all()
        np.testing.assert_allclose(np.linalg.norm(left[name], axis=-1), 1.0, rtol=1e-5)
        if iterations == 20:
            np.testing.assert_allclose(found[name], exact, rtol=1e-2)


def test_power_iteration_of_a_scaled_identity_is_exact():
    matrices = {"k": 3.5 * np.eye(6, dtype="float32")[None]}
    found, _ = power_iteration(matrices, 1)
    np.testing.assert_allclose(found["k"], [3.5], rtol=1e-6)


def test_the_gradient_of_a_singular_value_is_the_product_of_its_vectors():
    w = normal(0, 1, 4, 6)

    def largest(w):
        start = spectral.power_start(KEY, {"w": w})
        return spectral.power_iteration({"w": w}, start, 200)[0]["w"].sum()

    u, _, vt = np.linalg.svd(w[0])
    found = np.asarray(jax.jit(jax.grad(largest))(w))[0]
    np.testing.assert_allclose(found, np.outer(u[:, 0], vt[0]), atol=1e-3)


def test_vectors_that_have_not_converged_are_constants_of_the_gradient():
    w = normal(0, 1, 4, 6)

    def largest(w):
        start = spectral.power_start(KEY, {"w": w})
        values, left = spectral.power_iteration({"w": w}, start, 1)
        return values["w"].sum(), left["w"]

    found, left = jax.device_get(jax.jit(jax.grad(largest, has_aux=True))(w))
    right = w[0].T @ left[0]
    wanted = np.outer(left[0], right / np.linalg.norm(right))
    np.testing.assert_allclose(found[0], wanted, atol=1e-6)
