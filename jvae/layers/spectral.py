"""Largest singular values of kernels, by power iteration."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jvae.types import Array, Key, at_least_float32

Kernels = Mapping[str, Array]


def power_start(key: Key, matrices: Kernels) -> dict[str, Array]:
    """Returns [K, O] random unit vectors for each of the matrices [K, O, I]."""
    sizes = [w.shape[0] * w.shape[1] for w in matrices.values()]
    noise, begin, vectors = jax.random.normal(key, (sum(sizes),), jnp.float32), 0, {}
    for (name, w), size in zip(matrices.items(), sizes, strict=True):
        vectors[name] = _unit(noise[begin : begin + size].reshape(w.shape[:-1]))
        begin += size
    return vectors


def power_iteration(
    matrices: Kernels, left: Mapping[str, Array], num_iterations: int
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Returns (largest singular values [K], left vectors [K, O]) after the iterations.

    A value is u^T W v at fixed u and v, so that its gradient is u v^T. From vectors of
    the step before a few iterations are enough, as W has hardly changed. In float32
    at least.

    Miyato et al., 2018, https://arxiv.org/abs/1802.05957.

    Args:
      matrices: by name W, [K, O, I].
      left: by name u, [K, O], unit vectors.
      num_iterations: how many, at least 1.
    """
    matrices = {name: at_least_float32(w) for name, w in matrices.items()}
    start = {name: left[name].astype(w.dtype) for name, w in matrices.items()}
    fixed, start = jax.lax.stop_gradient((matrices, start))

    def once(_, u):
        return {n: _unit(_product("koi,ki->ko", w, _right(w, u[n]))) for n, w in pairs}

    pairs = list(fixed.items())
    u = jax.lax.fori_loop(0, num_iterations, once, start)
    values = {
        name: _product("koi,ko,ki->k", w, u[name], _right(fixed[name], u[name]))
        for name, w in matrices.items()
    }
    return values, u


def _right(w: Array, u: Array) -> Array:
    """Returns W^T u / |W^T u|, [K, I]."""
    return _unit(_product("koi,ko->ki", w, u))


def _product(axes: str, *arrays: Array) -> Array:
    return jnp.einsum(axes, *arrays, precision="highest")


def _unit(x: Array) -> Array:
    """Returns vectors [K, N] of length 1; zeros stay zeros."""
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.maximum(length, 1e-12)
