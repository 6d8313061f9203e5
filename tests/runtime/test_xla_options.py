"""What XLA is told, and that a program within another is told nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jvae
from jvae.pretrained import samples
from jvae.runtime import xla_options


@pytest.mark.parametrize(
    "options", [xla_options.for_repeated_runs, xla_options.for_one_run]
)
def test_options_are_for_cpus_and_such_that_this_version_knows(options):
    doubled = jax.jit(lambda x: 2 * x, compiler_options=options("cpu"))
    assert doubled(3.0) == 6.0
    assert options("gpu") is options("tpu") is None


def test_nothing_else_is_told():
    assert {*(xla_options.for_repeated_runs("cpu") or ())} <= {xla_options.LIBRARY}
    assert {*xla_options.for_one_run("cpu")} - {xla_options.FUSIONS} == {
        *xla_options.UNOPTIMISED
    }


def test_a_flag_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(xla_options, "LIBRARY", "xla_cpu_no_such_flag")
    monkeypatch.setattr(xla_options, "FUSIONS", "xla_cpu_no_such_flag")
    assert xla_options.for_repeated_runs.__wrapped__("cpu") is None
    assert xla_options.for_one_run.__wrapped__("cpu") == xla_options.UNOPTIMISED


def test_a_transformed_function_is_known_as_such():
    seen = []

    def look(x):
        seen.append(xla_options.is_tracing(x))
        return x * 1.0

    look(1.0)
    jax.jit(look)(1.0)
    jax.grad(look)(1.0)
    jax.vmap(look)(jnp.ones(2))
    assert seen == [False, True, True, True]

    def constant(x):
        seen.append(xla_options.is_tracing(np.ones(2)))
        return x

    jax.jit(constant)(1.0)
    assert seen[-1]


@pytest.fixture(scope="module")
def decoded(trained):
    """Codes -> images of a restored model, the way evaluation makes them."""
    return functools.partial(samples.decoded, jvae.restore(trained))


@pytest.mark.slow
def test_an_evaluation_can_be_part_of_another_program(decoded):
    z = jnp.ones((2, 3)) * jnp.arange(3.0)[None]
    images = decoded(z)
    for other in (jax.jit(decoded)(z), jax.vmap(decoded)(z[:, None])[:, 0]):
        np.testing.assert_allclose(other, images, atol=1e-6)
    slope = jax.grad(lambda z: decoded(z).sum())(z)
    assert decoded(z + 1e-2 * jnp.sign(slope)).sum() > images.sum()
    still = jax.jit(lambda: decoded(z))()
    np.testing.assert_allclose(still, images, atol=1e-6)
