"""Operations of our own inside `jax.shard_map`, whose axes are manual."""

from __future__ import annotations

import jax

from jvae.types import Array


def varying_alike(x: Array, y: Array) -> tuple[Array, Array]:
    """Returns both, varying over the same axes of a `jax.shard_map` around them.

    JAX's own operations do the same to their arguments. The gradient of one that all
    devices share is then summed over them.
    """
    over_x, over_y = (jax.typeof(a).manual_axis_type.varying for a in (x, y))
    return _varying(x, over_y - over_x), _varying(y, over_x - over_y)


def _varying(x: Array, axes: frozenset[str]) -> Array:
    return jax.lax.pcast(x, tuple(sorted(axes)), to="varying") if axes else x
