"""Images on the way between codes: lines, grids, single dimensions.

Images are those of `jvae.pretrained.samples`: means of p(x|z) in the support of the
likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jvae.distributions import arc
from jvae.errors import ConfigError, require
from jvae.pretrained.samples import codes, decode_codes
from jvae.pretrained.trained_model import TrainedModel
from jvae.types import Array


def interpolate(
    trained: TrainedModel,
    a: Array | np.ndarray,
    b: Array | np.ndarray,
    num: int,
    spherical: bool = False,
) -> Array:
    """Returns decoded points on the paths between the codes of a and b, [B, num, ...].

    A path is the model's `interpolate(start, end, fraction)`, or else the straight
    line; if `spherical` the arc of `jvae.distributions.arc`, which stays as far from 0
    as codes are.

    The first and last of each row are the reconstructions of a and b.

    Args:
      trained: the model.
      a: [B, H, W, C].
      b: [B, H, W, C].
      num: points on a line, at least 2.
      spherical: whether to go along an arc; codes must be vectors.

    Raises:
      ConfigError: a and b differ in shape, num < 2, the model has no posterior, or arcs
        are asked for of codes that are no vectors.
    """
    require(num >= 2, "num", "be at least 2", num)
    if a.shape != b.shape:
        raise ConfigError(
            f"a and b must have one shape, got {list(a.shape)} and {list(b.shape)}"
        )
    start, end = codes(trained, a), codes(trained, b)
    is_vector = isinstance(start, jax.Array) and start.ndim == 2
    if spherical and not is_vector:
        raise ConfigError(f"the codes of {trained.name} have no arcs")
    return trained.run(_decode_lines, start, end, num=num, spherical=spherical)


def interpolation_grid(trained: TrainedModel, x: Array | np.ndarray, num: int) -> Array:
    """Returns decoded points between the codes of four images, [num, num, ...].

    First along the paths from x[0] to x[1] and from x[2] to x[3], then from those to
    these: x[0] is at the top left, x[1] at the top right.

    Args:
      trained: the model.
      x: [4, H, W, C].
      num: points on a side, at least 2.

    Raises:
      ConfigError: x holds another number of images, num < 2, or the model has no
        posterior.
    """
    require(num >= 2, "num", "be at least 2", num)
    require(len(x) == 4, "x", "hold 4 images", len(x))
    z = codes(trained, x)
    left, right = (jax.tree.map(lambda a, i=i: a[i::2], z) for i in (0, 1))
    sides = trained.run(_paths, left, right, num=num)
    top, bottom = (jax.tree.map(lambda a, i=i: a[i], sides) for i in (0, 1))
    columns = trained.run(_decode_lines, top, bottom, num=num)
    return columns.swapaxes(0, 1)


def traversals(
    trained: TrainedModel,
    x: Array | np.ndarray,
    dims: Sequence[int],
    num: int,
    reach: float,
) -> Array:
    """Returns images along single dimensions, [B, len(dims), num, H, W, C].

    Of codes that are vectors whose dimensions move alone, unlike those of a sphere.

    Everything but one dimension of the code of x stays; that one goes from -reach to
    reach, standard deviations of a prior N(0, I). `by_kl` gives an order worth looking
    at.

    Args:
      trained: the model.
      x: [B, H, W, C].
      dims: the latent dimensions.
      num: steps, at least 2.
      reach: how far, above 0.

    Raises:
      ConfigError: a number out of range, or the model's codes are no vectors.
    """
    require(num >= 2, "num", "be at least 2", num)
    require(reach > 0.0, "reach", "be positive", reach)
    z = codes(trained, x)
    has_some = not trained.model.offers("code")
    trained.require(has_some, "has no single dimensions to move along")
    known = all(0 <= d < z.shape[-1] for d in dims)
    require(known, "dims", f"be in 0..{z.shape[-1] - 1}", list(dims))
    values = jnp.linspace(-reach, reach, num, dtype=jnp.float32)
    return trained.run(_decode_axes, z, jnp.asarray(dims), values)


def by_kl(kl: np.ndarray, n: int) -> list[int]:
    """Returns the `n` dimensions with the largest KL, largest first; kl is [D]."""
    return [int(d) for d in np.argsort(-np.asarray(kl), kind="stable")[:n]]


def _decode_all(trained: TrainedModel, z: Any, num_axes: int) -> Array:
    """Returns the images [..., H, W, C] of codes with `num_axes` axes before a code."""
    axes = jax.tree.leaves(z)[0].shape[:num_axes]
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[num_axes:]), z)
    images = decode_codes(trained, flat)
    return images.reshape(*axes, *images.shape[1:])


def _paths(
    trained: TrainedModel, start: Any, end: Any, *, num: int, spherical: bool = False
) -> Any:
    """Returns the points [B, num, *event] between codes [B, *event]."""
    inner = jax.tree.leaves(start)[0].ndim - 1
    t = jnp.linspace(0.0, 1.0, num, dtype=jnp.float32)
    t = t.reshape(1, num, *(1,) * inner)
    first, last = jax.tree.map(lambda a: a[:, None], (start, end))
    if spherical:
        return arc(first, last, t)
    return trained.call("interpolate", first, last, t)


def _decode_lines(
    trained: TrainedModel, start: Any, end: Any, *, num: int, spherical: bool = False
) -> Array:
    points = _paths(trained, start, end, num=num, spherical=spherical)
    return _decode_all(trained, points, 2)


def _decode_axes(trained: TrainedModel, z: Array, dims: Array, values: Array) -> Array:
    is_moved = jax.nn.one_hot(dims, z.shape[-1], dtype=bool)
    shape = (z.shape[0], len(dims), len(values), z.shape[-1])
    moved = jnp.broadcast_to(values.reshape(1, 1, -1, 1), shape)
    base = jnp.broadcast_to(z[:, None, None], shape)
    return _decode_all(trained, jnp.where(is_moved[None, :, None], moved, base), 3)
