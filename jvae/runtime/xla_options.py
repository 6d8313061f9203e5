"""What XLA is told where its defaults are slow."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.errors import JaxRuntimeError

LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
PRODUCTS = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
FUSIONS = "xla_cpu_use_fusion_emitters"

Options = dict[str, str | int]
UNOPTIMISED: Options = {"xla_backend_optimization_level": 0}


@functools.cache
def for_repeated_runs(platform: str) -> Options | None:
    """Returns options of a program that runs often, for `jax.jit(compiler_options=)`.

    On CPU: convolutions are XLA's own. Those of the library YNNPACK, which jaxlib 0.10
    takes by default, split the width of an image among threads and nothing else: of
    maps of 14 x 14 one of two threads works (180 GFLOP/s in place of 95).

    Args:
      platform: 'cpu', 'gpu' or 'tpu'.
    """
    if platform != "cpu":
        return None
    return _if_known({LIBRARY: PRODUCTS})


@functools.cache
def for_one_run(platform: str) -> Options | None:
    """Returns options of a program that runs once.

    On CPU: no optimisation, which takes longer than to run the program as it is, and
    fusions without XLA's compiler of fusions, which sets itself up anew for every
    program and takes as long again.

    Args:
      platform: 'cpu', 'gpu' or 'tpu'.
    """
    if platform != "cpu":
        return None
    return _if_known(UNOPTIMISED | {FUSIONS: False}) or UNOPTIMISED


def _if_known(options: Options) -> Options | None:
    """Returns `options`, None where this version of XLA does not know one of them."""
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(0.0).compile()
    except JaxRuntimeError:
        return None
    return options


def is_tracing(*trees: object) -> bool:
    """Returns whether a function that JAX transforms is being traced.

    A program within another takes no options of its own.

    Args:
      *trees: what the program would be called with.
    """
    arrays = (*jax.tree.leaves(trees), jnp.zeros(()))
    return any(isinstance(x, jax.core.Tracer) for x in arrays)
