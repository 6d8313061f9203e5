"""NICE: couplings of vectors that keep volumes, and a scale of every coordinate."""

from __future__ import annotations

import math

import jax.numpy as jnp

from jvae.flows.actnorm import ActNorm
from jvae.flows.bijection import Bijection, Chain
from jvae.flows.coupling import Coupling, DenseNet
from jvae.flows.squeeze import Permutation, random_orders
from jvae.types import Array


class Nice(Bijection):
    """[B, ...] <-> codes [B, D]: additive couplings of vectors, then a scale.

    Dinh et al., 2014, https://arxiv.org/abs/1410.8516; coordinates are dealt to the two
    halves anew before every coupling.

    Attributes:
      shape: of one example.
      depth: couplings.
      hidden: widths within their networks.
    """

    shape: tuple[int, ...]
    depth: int = 4
    hidden: tuple[int, ...] = (1000,) * 5

    def setup(self):
        """Adds the couplings and the scale."""
        size = math.prod(self.shape)
        parts: list[Bijection] = []
        for order in random_orders(size, self.depth):
            parts.append(Permutation(tuple(map(int, order))))
            parts.append(Coupling(DenseNet(self.hidden), "additive"))
        self.chain = Chain([*parts, ActNorm(size)])

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (z [B, D], log |det dz/dx| [B])."""
        return self.chain.forward(x.reshape(x.shape[0], -1))

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns examples [B, ...] of codes [B, D]."""
        x = self.chain.inverse(y)
        return x.reshape(y.shape[0], *self.shape)

    def data_dependent_init(self, x: Array, cond: Array | None = None) -> Array:
        """Sets the scale, and returns the codes."""
        return self.chain.data_dependent_init(jnp.reshape(x, (x.shape[0], -1)))
