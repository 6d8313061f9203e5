"""Numbers within bounds, whose gradient outside of them leads back."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jvae.layers.manual_axes import varying_alike
from jvae.types import Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def bounded(x: Array, low: float, high: float) -> Array:
    """Returns x clipped, with a gradient outside that leads back.

    Outside the bounds x gets the gradient by which a descent comes nearer to them, and
    none the other way; behind `jnp.clip` it would stay where it is for ever. In forward
    mode (`jax.jvp`, `jax.jacfwd`) the derivative outside is that of `jnp.clip`, 0.
    """
    return jnp.clip(x, low, high)


# A primitive, as the gradient depends on the sign of what it is the gradient of: no
# composition of JAX's operations has such a transpose, and a `custom_vjp` has no
# forward mode.
_inside = Primitive("derivative_inside_bounds")


@bounded.defjvp
def _bounded_jvp(low, high, primals, tangents):
    (x,), (t,) = primals, tangents
    x, t = varying_alike(x, t)
    return jnp.clip(x, low, high), _inside.bind(t, x < low, x > high)


def _forward(t: Array, below: Array, above: Array) -> Array:
    return jnp.where(below | above, 0.0, t)


def _transposed(g: Array, t: object, below: Array, above: Array) -> tuple:
    leaves = (below & (g > 0)) | (above & (g < 0))
    return jnp.where(leaves, 0.0, g), None, None


def _batched(arrays: tuple, axes: tuple) -> tuple[Array, int]:
    """Returns (derivative, batch axis) under `jax.vmap`; not all need be batched."""
    (size,) = {a.shape[i] for a, i in zip(arrays, axes, strict=True) if i is not None}
    rows = [
        jnp.broadcast_to(a, (size, *a.shape)) if i is None else jnp.moveaxis(a, i, 0)
        for a, i in zip(arrays, axes, strict=True)
    ]
    return _inside.bind(*rows), 0


_inside.def_impl(jax.jit(_forward))
_inside.def_abstract_eval(lambda t, below, above: t)
mlir.register_lowering(_inside, mlir.lower_fun(_forward, multiple_results=False))
ad.defjvp(_inside, lambda dt, t, *outside: _inside.bind(dt, *outside), None, None)
ad.primitive_transposes[_inside] = _transposed
batching.primitive_batchers[_inside] = _batched
