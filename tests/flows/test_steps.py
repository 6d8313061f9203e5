"""Scanned steps: those one after the other, whatever memory their gradient takes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jvae.flows import GlowSteps, VectorSteps
from tests.tiers import others_slow

KINDS = {
    "maps": (lambda **o: GlowSteps(4, 4, hidden=5, **o), (2, 2, 4), None),
    "vectors": (lambda **o: VectorSteps(6, 4, hidden=(5,), **o), (6,), None),
    "conditional": (
        lambda **o: VectorSteps(6, 4, cond_features=3, hidden=(5,), **o),
        (6,),
        (3,),
    ),
}


def made(kind, **options):
    """(steps, random parameters, x, cond), by NumPy, as precise as JAX is now."""
    make, shape, cond_shape = KINDS[kind]
    steps, draws = make(**options), np.random.default_rng(0)
    dtype = jax.dtypes.canonicalize_dtype(float)

    def normal(*shape):
        return draws.normal(size=shape).astype(dtype)

    x, cond = normal(5, *shape), cond_shape and normal(5, *cond_shape)
    shapes = jax.eval_shape(steps.init, jax.random.key(0), x, cond)
    return steps, jax.tree.map(lambda a: 0.3 * normal(*a.shape), shapes), x, cond


@pytest.mark.parametrize("kind", others_slow([*KINDS], "vectors"))
def test_they_are_the_steps_one_after_the_other(kind):
    steps, variables, x, cond = made(kind)
    found, log_det = jax.jit(steps.apply)(variables, x, cond)

    @jax.jit
    def one_by_one(variables, x, cond):
        total = 0.0
        for k, order in enumerate(steps.orders):
            params = jax.tree.map(lambda a, k=k: a[k], variables["params"]["steps"])
            x, more = steps.step(order).apply({"params": params}, x, cond)
            total += more
        return x, total

    y, total = one_by_one(variables, x, cond)
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_det, total, rtol=1e-5, atol=1e-6)


@functools.cache
def gradients(kind, remat, double):
    """Those of a function of y and log_det, by parameters, x and cond."""
    with jax.enable_x64(double):
        return _gradients(*made(kind, remat=remat))


def _gradients(steps, variables, x, cond):
    def loss(variables, x, cond):
        y, log_det = steps.apply(variables, x, cond)
        return (jnp.sin(y) * jnp.arange(y.size).reshape(y.shape)).sum() + (
            log_det * jnp.arange(5)
        ).sum()

    numbers = (0, 1) if cond is None else (0, 1, 2)
    return jax.device_get(jax.jit(jax.grad(loss, numbers))(variables, x, cond))


@pytest.mark.parametrize("remat", ["couplings", "steps", "invert"])
@pytest.mark.parametrize("kind", others_slow([*KINDS], "vectors"))
def test_the_gradient_is_that_of_what_is_kept(kind, remat):
    wanted, found = (gradients(kind, m, double=True) for m in ("none", remat))
    paths = jax.tree_util.tree_leaves_with_path(wanted)
    for (path, a), b in zip(paths, jax.tree.leaves(found), strict=True):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-9, err_msg=name)
        assert np.abs(a).max() > 0, name


@pytest.mark.parametrize("kind", others_slow([*KINDS], "vectors"))
def test_in_single_precision_going_back_costs_few_digits(kind):
    wanted, found = (gradients(kind, m, double=False) for m in ("none", "invert"))
    for a, b in zip(*map(jax.tree.leaves, (wanted, found)), strict=True):
        assert a.dtype == b.dtype == np.float32
        assert np.linalg.norm(b - a) < 1e-4 * np.linalg.norm(a)


@pytest.mark.parametrize("remat", ["none", "invert"])
def test_steps_of_double_precision_take_single_precision(remat):
    with jax.enable_x64(True):
        steps, variables, x, _ = made("vectors", remat=remat)
        assert x.dtype == jnp.float64
        single = x.astype(jnp.float32)

        @jax.jit
        def there_and_back(variables, x):
            y, log_det = steps.apply(variables, x)
            back = steps.apply(variables, y.astype(jnp.float32), method="inverse")
            return y, log_det, back

        y, log_det, back = there_and_back(variables, single)
        assert y.dtype == log_det.dtype == jnp.float64
        np.testing.assert_allclose(back, single, atol=1e-5)


@pytest.mark.slow
def test_parameters_differ_from_step_to_step():
    steps = VectorSteps(6, 4, hidden=(5,))
    params = steps.init(jax.random.key(0), jnp.zeros((1, 6)))["params"]["steps"]
    kernel = params["parts_2"]["net"]["Dense_0"]["kernel"]
    assert kernel.shape == (4, 3, 5)
    assert len({float(k[0, 0]) for k in kernel}) == 4


def temporary_bytes(depth, remat):
    """What the gradient of a stack needs besides arguments and results."""
    steps = GlowSteps(8, depth, hidden=8, remat=remat)
    x = jnp.zeros((16, 16, 16, 8))
    variables = jax.eval_shape(steps.init, jax.random.key(0), x)

    def loss(variables, x):
        y, log_det = steps.apply(variables, x)
        return (y**2).sum() - log_det.sum()

    compiled = jax.jit(jax.grad(loss)).lower(variables, x).compile()
    gradient = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(variables))
    return compiled.memory_analysis().temp_size_in_bytes - gradient


@pytest.mark.slow
def test_going_back_through_the_inverses_takes_no_more_memory_with_depth():
    kept = [temporary_bytes(depth, "none") for depth in (4, 12)]
    between = temporary_bytes(12, "couplings")
    inverted = [temporary_bytes(depth, "invert") for depth in (4, 12)]
    assert kept[1] > 1.8 * kept[0]
    assert inverted[1] < between < 0.8 * kept[1]
    assert inverted[1] < 1.1 * inverted[0]
