"""Invertible 1x1 convolutions: a matrix on the channels of every place."""

from __future__ import annotations

import jax.numpy as jnp
import jax.scipy.linalg
from flax import linen as nn

from jvae.flows.bijection import Bijection, places
from jvae.flows.squeeze import check_order
from jvae.layers import row_product
from jvae.types import Array


class InvertibleConv(Bijection):
    """y = W x at every place, W = P L (U + diag(exp(s))), never singular.

    P is the fixed permutation `order`, L lower triangular with ones on its diagonal,
    U upper triangular with zeros on it. So log |det W| is the sum of s. The layer
    begins as the permutation alone. (Of Kingma & Dhariwal, 2018,
    https://arxiv.org/abs/1807.03039, it leaves out fixed signs on the diagonal, and
    begins with a permutation in place of a rotation.)

    Attributes:
      order: C integers; ConfigError unless each of 0 to C - 1 is there once.
    """

    order: Array | tuple[int, ...]

    def setup(self):
        """Adds L, U and s."""
        check_order(self.order)
        size = len(self.order)
        zeros, dtype = nn.initializers.zeros, jnp.float32
        self.lower = self.param("lower", zeros, (size, size), dtype)
        self.upper = self.param("upper", zeros, (size, size), dtype)
        self.log_diagonal = self.param("log_diagonal", zeros, (size,), dtype)

    def factors(self) -> tuple[Array, Array]:
        """Returns (L, U + diag(exp(s))), both [C, C]."""
        ones = jnp.eye(len(self.order), dtype=self.lower.dtype)
        lower = jnp.tril(self.lower, -1) + ones
        return lower, jnp.triu(self.upper, 1) + jnp.diag(jnp.exp(self.log_diagonal))

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (y, log |det dy/dx| [B])."""
        lower, upper = self.factors()
        matrix = (lower @ upper).T
        # What a GPU would round away here, the inverse could not give back.
        mixed = row_product(x, matrix, precision="highest")
        y = jnp.take(mixed, jnp.asarray(self.order), axis=-1)
        log_det = places(x) * self.log_diagonal.sum()
        return y, jnp.full(x.shape[0], log_det, y.dtype)

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns x, by two triangular systems."""
        lower, upper = self.factors()
        mixed = jnp.take(y, jnp.argsort(jnp.asarray(self.order)), axis=-1)
        columns = mixed.reshape(-1, mixed.shape[-1]).T
        solve = jax.scipy.linalg.solve_triangular
        columns = solve(lower, columns, lower=True, unit_diagonal=True)
        return solve(upper, columns, lower=False).T.reshape(y.shape)
