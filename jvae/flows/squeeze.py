"""Space to channels, and channels in another order: volumes stay."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jvae.errors import ConfigError, require
from jvae.flows.bijection import Bijection, no_change
from jvae.layers import depth_to_space, space_to_depth
from jvae.types import Array


class Squeeze(Bijection):
    """[B, H, W, C] <-> [B, H/2, W/2, 4 C], channels in order (row, column, C)."""

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, 0).

        Raises:
          ConfigError: an odd height or width.
        """
        check_squeezes(x.shape[1:3], 1)
        return space_to_depth(x), no_change(x)

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        return depth_to_space(y)


class Permutation(Bijection):
    """y[..., i] = x[..., order[i]].

    Attributes:
      order: C places; ConfigError unless each of 0 to C - 1 is there once.
    """

    order: Array | tuple[int, ...]

    def setup(self):
        """Adds nothing; looks at the order."""
        check_order(self.order)

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, 0)."""
        return jnp.take(x, jnp.asarray(self.order), axis=-1), no_change(x)

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x."""
        return jnp.take(y, jnp.argsort(jnp.asarray(self.order)), axis=-1)


def random_orders(features: int, depth: int, seed: int = 0) -> np.ndarray:
    """Returns int32 [depth, features], orders that a seed decides.

    Every second one begins with the second half of what it sees: a coupling moves that
    half alone, so after two every coordinate has been moved (of an odd number, all but
    one). They are part of the architecture: no parameters, and not of the run's key.
    """
    rng = np.random.default_rng([seed, features])
    half = -(-features // 2)
    orders = []
    for k in range(depth):
        halves = rng.permutation(half), half + rng.permutation(features - half)
        swapped = np.concatenate(halves[::-1])
        orders.append(swapped if k % 2 else rng.permutation(features))
    return np.array(orders, np.int32).reshape(depth, features)


def check_order(order: Array | tuple[int, ...]) -> None:
    """Raises ConfigError unless it is a permutation: no other mixing has an inverse."""
    if isinstance(order, jax.core.Tracer):  # one of `Steps`, whose orders are
        return
    places = np.asarray(order).tolist()
    is_one = sorted(places) == list(range(len(places)))
    rule = f"hold each of 0 to {len(places) - 1} once, or it is singular"
    require(is_one, "order of channels", rule, places)


def check_squeezes(size: tuple[int, ...], count: int) -> None:
    """Raises ConfigError unless height and width can be halved so many times."""
    height, width = size
    if height % 2**count or width % 2**count:
        raise ConfigError(
            f"images of {height}x{width} cannot be squeezed {count} times: height and "
            f"width must be multiples of {2**count}",
            fix="Take fewer levels, or images of another size.",
        )
