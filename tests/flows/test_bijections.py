"""Every layer of a flow: its inverse, its volume, and what it is at the beginning.

At random parameters, in single and in double precision; volumes against the determinant
of the Jacobian.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jvae.errors import ConfigError
from jvae.flows import (
    ActNorm,
    Bijection,
    Chain,
    ConditionalActNorm,
    ConvNet,
    Coupling,
    DenseNet,
    Glow,
    GlowSteps,
    InvertibleConv,
    Nice,
    Permutation,
    Squeeze,
    VectorSteps,
    check_scales,
    random_orders,
)
from tests.tiers import others_slow


class Given(Bijection):
    """A layer that always sees the same maps."""

    layer: Bijection

    def _maps(self, x):
        maps = jnp.linspace(-1.0, 1.0, 12, dtype=x.dtype).reshape(1, 2, 2, 3)
        return jnp.tile(maps, (len(x), 1, 1, 1))

    def forward(self, x, cond=None):
        return self.layer.forward(x, self._maps(x))

    def inverse(self, y, cond=None):
        return self.layer.inverse(y, self._maps(y))


MAP, VECTOR = (2, 2, 4), (6,)
ORDER = (2, 0, 3, 1)
LAYERS = {
    "squeeze": (Squeeze, (2, 4, 3)),
    "permutation": (lambda: Permutation(ORDER), MAP),
    "actnorm": (lambda: ActNorm(4), MAP),
    "conditional_actnorm": (lambda: Given(ConditionalActNorm()), MAP),
    "convolution": (lambda: InvertibleConv(ORDER), MAP),
    "additive": (lambda: Coupling(ConvNet(5), "additive"), MAP),
    "affine": (lambda: Coupling(ConvNet(5), "affine"), MAP),
    "affine_of_vectors": (lambda: Coupling(DenseNet((5,)), "affine"), (3,)),
    "chain": (lambda: Chain([ActNorm(4), InvertibleConv(ORDER), Squeeze()]), MAP),
    "glow_steps": (lambda: GlowSteps(4, 3, hidden=5), MAP),
    "permuted_steps": (
        lambda: GlowSteps(4, 2, hidden=5, coupling="additive", mixing="permutation"),
        MAP,
    ),
    "vector_steps": (lambda: VectorSteps(6, 3, hidden=(5,)), VECTOR),
    "plane": (lambda: VectorSteps(2, 3, hidden=(8,)), (2,)),
    "glow": (lambda: Glow((4, 4, 1), levels=2, depth=2, hidden=5), (4, 4, 1)),
    "glow_of_maps": (
        lambda: Glow(MAP, levels=2, depth=2, hidden=5, squeeze_first=False),
        MAP,
    ),
    "nice": (lambda: Nice((2, 3, 1), depth=3, hidden=(5,)), (2, 3, 1)),
}
DTYPES = {"single": "float32", "double": "float64"}
PRECISIONS = others_slow([*DTYPES], "double")
# The others are made of the same layers.
COMPOSED = {"permuted_steps", "plane"}
OF_THEIR_OWN = others_slow(
    [*LAYERS], *(name for name in LAYERS if name not in COMPOSED)
)
NO_CHANGE = {"squeeze", "permutation", "additive"}


@functools.cache
def shapes(name, dtype):
    """(bijection, shapes of its parameters)."""
    make, shape = LAYERS[name]
    layer = make()
    x = jax.ShapeDtypeStruct((1, *shape), dtype)
    return layer, jax.eval_shape(layer.init, jax.random.key(0), x)


def made(name, dtype="float32", scale=0.3, seed=0, rows=3):
    """(bijection, random parameters, x [rows, ...]) of a layer of `LAYERS`.

    By NumPy, which compiles no program for each shape.
    """
    layer, variables = shapes(name, dtype)
    draws = np.random.default_rng(seed)
    x = draws.normal(size=(rows, *LAYERS[name][1])).astype(dtype)

    def random(a):
        return (scale * draws.normal(size=a.shape)).astype(dtype)

    return layer, jax.tree.map(random, variables), x


def call(layer, variables, *args, method="forward", **kwargs):
    """Returns layer.method(*args), compiled as one program."""
    run = functools.partial(layer.apply, method=method, **kwargs)
    return jax.jit(run)(variables, *args)


@functools.cache
def results(name, precision):
    """(x, y, log_det, x again, Jacobian of each example), by one program."""
    with jax.enable_x64(True) if precision == "double" else contextlib.nullcontext():
        layer, variables, x = made(name, DTYPES[precision])

        @jax.jit
        def run(variables, x):
            def flat(one):
                y, _ = layer.apply(variables, one.reshape(1, *x.shape[1:]))
                return y.reshape(-1)

            y, log_det = layer.apply(variables, x)
            back = layer.apply(variables, y, method="inverse")
            jacobians = jax.vmap(jax.jacrev(flat))(x.reshape(len(x), -1))
            return y, log_det, back, jacobians

        return x, *jax.device_get(run(variables, x))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", OF_THEIR_OWN)
def test_the_inverse_gives_x_back(name, precision):
    x, y, log_det, back, _ = results(name, precision)
    assert y.dtype == log_det.dtype == back.dtype == x.dtype == DTYPES[precision]
    assert log_det.shape == (3,)
    assert np.abs(back - x).max() < (1e-10 if precision == "double" else 1e-4)
    if name not in NO_CHANGE:
        assert np.abs(log_det).min() > 1e-3
    assert np.abs(y.reshape(-1) - x.reshape(-1)).max() > 0.1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", OF_THEIR_OWN)
def test_the_volume_is_the_jacobians(name, precision):
    _, _, log_det, _, jacobians = results(name, precision)
    _, wanted = np.linalg.slogdet(jacobians)
    atol = 1e-10 if precision == "double" else 1e-4
    np.testing.assert_allclose(log_det, wanted, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_at_first_it_is_a_permutation_of_the_coordinates(name):
    layer, _, x = made(name)
    variables = jax.jit(layer.init)(jax.random.key(3), x)
    y, log_det = call(layer, variables, x)
    np.testing.assert_array_equal(log_det, np.zeros(3))
    for one, other in zip(x, y, strict=True):
        np.testing.assert_allclose(np.sort(one.ravel()), np.sort(other.ravel()))


@pytest.mark.parametrize("name", ["actnorm", "convolution", "glow_steps"])
def test_volumes_add_up_over_a_composition(name):
    layer, variables, x = made(name)
    other = made(name, seed=5)[1]
    twice = Chain([LAYERS[name][0](), LAYERS[name][0]()])
    params = {"parts_0": variables["params"], "parts_1": other["params"]}
    apply = jax.jit(layer.apply)
    y, first = apply(variables, x)
    z, second = apply(other, y)
    found, log_det = call(twice, {"params": params}, x)
    np.testing.assert_allclose(found, z, rtol=1e-5)
    np.testing.assert_allclose(log_det, np.add(first, second), rtol=1e-5)


def test_the_convolution_is_one_matrix_at_every_place():
    layer, variables, x = made("convolution")
    lower, upper = jax.device_get(call(layer, variables, method="factors"))
    matrix = (lower @ upper)[list(ORDER)]
    y, log_det = call(layer, variables, x)
    np.testing.assert_allclose(y, x @ matrix.T, atol=1e-5)
    wanted = 4 * np.linalg.slogdet(matrix)[1]
    np.testing.assert_allclose(log_det, np.full(3, wanted), rtol=1e-5)


@pytest.mark.parametrize("size", [1e3, -np.inf])
def test_a_conditional_scale_stays_bounded(size):
    layer, variables, x = made("conditional_actnorm")
    variables["params"]["layer"]["Conv_0"]["bias"][4:] = size
    y, log_det = call(layer, variables, x)
    np.testing.assert_allclose(log_det, np.full(3, -np.sign(size) * 16 * 5.0))
    back = call(layer, variables, y, method="inverse")
    np.testing.assert_allclose(back, x, atol=1e-4)


@pytest.mark.parametrize("size", [1e3, np.inf])
def test_an_affine_scale_stays_bounded(size):
    layer, variables, x = made("affine")
    variables["params"]["net"]["Conv_1"]["bias"][:2] = size
    y, log_det = call(layer, variables, x)
    np.testing.assert_allclose(log_det, np.full(3, 2 * 2 * 2 * 2.0), rtol=1e-6)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("name", ["actnorm", "glow", "nice", "vector_steps"])
def test_the_examples_it_starts_with_come_out_normalized(name):
    layer, variables, x = made(name, rows=64)
    x = 3.0 * x + 5.0
    y, new = call(layer, variables, x, method="data_dependent_init", mutable=["params"])
    y, (found, _) = np.asarray(y), call(layer, new, x)
    np.testing.assert_allclose(y, found, atol=1e-3)
    if name == "actnorm":
        np.testing.assert_allclose(y.mean((0, 1, 2)), np.zeros(4), atol=1e-3)
        np.testing.assert_allclose(y.std((0, 1, 2)), np.ones(4), atol=1e-3)


@pytest.mark.slow
def test_every_scanned_step_is_started_by_what_the_steps_before_make():
    layer, variables, x = made("glow_steps", rows=64)
    _, new = call(layer, variables, x, method="data_dependent_init", mutable=["params"])
    stack = new["params"]["steps"]
    for k, order in enumerate(layer.orders):
        params = jax.tree.map(lambda a, k=k: a[k], stack)
        normed, _ = ActNorm(4).apply({"params": params["parts_0"]}, x)
        np.testing.assert_allclose(normed.mean((0, 1, 2)), np.zeros(4), atol=1e-3)
        np.testing.assert_allclose(normed.std((0, 1, 2)), np.ones(4), atol=1e-3)
        x, _ = call(layer.step(order), {"params": params}, x)


@pytest.mark.slow
def test_random_parameters_give_a_density_of_mass_one():
    layer, variables, _ = made("plane")
    edge = jnp.linspace(-40.0, 40.0, 2001)
    grid = jnp.stack(jnp.meshgrid(edge, edge), -1).reshape(-1, 2)
    z, log_det = jax.jit(layer.apply)(variables, grid)
    log_p = -0.5 * (z**2).sum(-1) - np.log(2 * np.pi) + log_det
    assert jnp.abs(log_det).max() > 0.5
    mass = jnp.exp(log_p).sum() * (edge[1] - edge[0]) ** 2
    assert abs(mass - 1.0) < 1e-3


def test_orders_are_permutations_that_a_seed_decides():
    orders = random_orders(9, 5)
    np.testing.assert_array_equal(np.sort(orders), np.tile(np.arange(9), (5, 1)))
    np.testing.assert_array_equal(orders, random_orders(9, 5))
    assert (orders != random_orders(9, 5, seed=1)).any()
    assert len({tuple(order) for order in orders}) == 5


@pytest.mark.parametrize("size", [2, 8, 9])
def test_two_couplings_move_every_coordinate(size):
    """What stays in the first half of both is passed on as it was."""
    half = -(-size // 2)
    for first, second in zip(*[iter(random_orders(size, 6))] * 2, strict=True):
        stayed = set(first[:half]) & set(first[second[:half]])
        assert len(stayed) == size % 2


@pytest.mark.parametrize(
    ("make", "shape", "count"),
    [
        (Squeeze, (3, 4, 1), 1),
        (lambda: Glow((6, 4, 1), levels=2, depth=1), (6, 4, 1), 2),
        (lambda: Glow((28, 28, 1), levels=3, depth=1), (28, 28, 1), 3),
    ],
)
def test_an_image_that_cannot_be_squeezed_is_refused_before_compiling(
    make, shape, count
):
    message = f"{shape[0]}x{shape[1]} cannot be squeezed {count} times"
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(make().init, jax.random.key(0), np.zeros((1, *shape)))


def test_a_conditional_norm_is_the_gaussian_that_the_maps_say():
    """So that the flow of a split has N(mean(a), std(a)^2) as the prior of b."""
    layer, draws = ConditionalActNorm(), np.random.default_rng(0)

    def normal(*shape):
        return draws.normal(size=shape).astype("float32")

    b, a = normal(3, 2, 2, 1), normal(3, 2, 2, 2)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), b, a)
    variables = jax.tree.map(lambda leaf: 0.3 * normal(*leaf.shape), shapes)
    z, log_det = call(layer, variables, b, a)
    layer_params = variables["params"]["Conv_0"]
    kernel, bias = layer_params["kernel"], layer_params["bias"]
    padded = np.pad(a, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    mean, log_std = np.moveaxis(
        np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias, -1, 0
    )
    log_std = 5.0 * np.tanh(log_std / 5.0)
    wanted = scipy.stats.norm(mean, np.exp(log_std)).logpdf(b[..., 0])
    found = scipy.stats.norm.logpdf(z).reshape(3, -1).sum(-1) + log_det
    np.testing.assert_allclose(found, wanted.reshape(3, -1).sum(-1), rtol=1e-5)
    with pytest.raises(ConfigError, match="cond is missing"):
        layer.apply(variables, b)


@pytest.mark.parametrize("layer", [Permutation, InvertibleConv])
@pytest.mark.parametrize("order", [(0, 1, 1, 3), (1, 2, 3, 4), (0.5, 1, 2, 3)])
def test_an_order_that_is_singular_is_refused_before_compiling(layer, order):
    with pytest.raises(ConfigError, match="order of channels must hold each of 0 to 3"):
        jax.eval_shape(layer(order).init, jax.random.key(0), np.zeros((1, *MAP)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 100.0, -100.0])
@pytest.mark.parametrize("kind", ["a scale", "a 1x1 kernel"])
def test_parameters_without_an_inverse_are_found(kind, bad):
    _, variables, _ = made("glow")
    check_scales(variables, "here")
    part, name = {
        "a scale": ("parts_0", "log_scale"),
        "a 1x1 kernel": ("parts_1", "log_diagonal"),
    }[kind]
    variables["params"]["steps_1"]["steps"][part][name][1, 2] = bad
    with pytest.raises(ConfigError) as error:
        check_scales(variables, "here", "Stop.")
    message = str(error.value)
    assert message.startswith(f"{kind} of the flow is singular or not finite: params/")
    assert f"{part}/{name} must be" in message and message.endswith("(here). Stop.")
