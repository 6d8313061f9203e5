"""Glow: levels of steps, and at the end of each half of the channels leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from jvae.errors import require
from jvae.flows.actnorm import ActNorm, ConditionalActNorm
from jvae.flows.bijection import Bijection, Chain, no_change
from jvae.flows.coupling import ConvNet, Coupling, Kind
from jvae.flows.mixing import InvertibleConv
from jvae.flows.squeeze import Permutation, check_squeezes
from jvae.flows.steps import Remat, Steps
from jvae.layers import depth_to_space, space_to_depth
from jvae.types import Array

Mixing = Literal["convolution", "permutation"]


class GlowSteps(Steps):
    """Steps of actnorm, mixing of channels, coupling.

    Attributes:
      hidden: channels within the couplings' networks.
      coupling: 'additive' or 'affine'.
      mixing: 'convolution' (1x1, invertible), or a fixed 'permutation'.
    """

    hidden: int = 64
    coupling: Kind = "affine"
    mixing: Mixing = "convolution"

    def step(self, order: Array) -> Bijection:
        """Returns one step."""
        mix = InvertibleConv if self.mixing == "convolution" else Permutation
        couple = Coupling(ConvNet(self.hidden, parent=None), self.coupling, parent=None)
        norm = ActNorm(self.features, parent=None)
        return Chain([norm, mix(order, parent=None), couple], parent=None)


class Split(nn.Module):
    """Half of the channels leaves, normalised by what the other half says of it."""

    def setup(self):
        """Adds the norm of what leaves."""
        self.norm = ConditionalActNorm()

    def forward(self, x: Array) -> tuple[Array, Array, Array]:
        """Returns (a, z, log |det|), a and z [B, H, W, C/2]."""
        a, b = jnp.split(x, 2, axis=-1)
        z, log_det = self.norm.forward(b, a)
        return a, z, log_det

    def inverse(self, a: Array, z: Array) -> Array:
        """Returns x."""
        return jnp.concatenate([a, self.norm.inverse(z, a)], axis=-1)


class Glow(Bijection):
    """Maps [B, H, W, C] <-> codes [B, H W C], of a standard Gaussian.

    A level squeezes, does `depth` steps, and lets half of the channels go; the last one
    lets all go, after an actnorm.

    Kingma & Dhariwal, 2018, https://arxiv.org/abs/1807.03039.

    Attributes:
      shape: (H, W, C).
      levels: how many.
      depth: steps of each.
      hidden: channels within the couplings' networks.
      coupling: 'additive' or 'affine'.
      mixing: 'convolution' or 'permutation'.
      squeeze_first: whether the first level squeezes.
      remat: see `Steps`.
    """

    shape: tuple[int, int, int]
    levels: int = 3
    depth: int = 8
    hidden: int = 64
    coupling: Kind = "affine"
    mixing: Mixing = "convolution"
    squeeze_first: bool = True
    remat: Remat = "couplings"

    def _shapes(self) -> list[tuple[int, int, int]]:
        """Returns the shape of the maps that each level's steps see."""
        height, width, channels = self.shape
        shapes = []
        for level in range(self.levels):
            if level > 0 or self.squeeze_first:
                height, width, channels = height // 2, width // 2, 4 * channels
            shapes.append((height, width, channels))
            channels //= 2
        return shapes

    def setup(self):
        """Adds levels and splits."""
        first = int(not self.squeeze_first)
        check_squeezes(self.shape[:2], self.levels - first)
        shapes = self._shapes()
        for *_, channels in shapes[:-1]:
            rule = "be even, as half of them leave at the end of a level"
            require(channels % 2 == 0, "channels", rule, channels)
        self.steps = [
            GlowSteps(
                channels,
                self.depth,
                hidden=self.hidden,
                coupling=self.coupling,
                mixing=self.mixing,
                remat=self.remat,
            )
            for *_, channels in shapes
        ]
        self.splits = [Split() for _ in shapes[1:]]
        self.last = ActNorm(shapes[-1][-1])

    def forward(self, x: Array, cond: Array | None = None) -> tuple[Array, Array]:
        """Returns (z [B, H W C], log |det dz/dx| [B])."""
        return self._through(lambda part, x: part.forward(x), x)

    def inverse(self, y: Array, cond: Array | None = None) -> Array:
        """Returns maps [B, H, W, C] of codes [B, H W C]."""
        shapes, parts, begin = self._shapes(), [], 0
        for level, (height, width, channels) in enumerate(shapes):
            left = channels if level == len(self.splits) else channels // 2
            size = height * width * left
            part = y[:, begin : begin + size]
            parts.append(part.reshape(-1, height, width, left))
            begin += size
        x = self.last.inverse(parts[-1])
        for level in reversed(range(len(shapes))):
            if level < len(self.splits):
                x = self.splits[level].inverse(x, parts[level])
            x = self.steps[level].inverse(x)
            if level > 0 or self.squeeze_first:
                x = depth_to_space(x)
        return x

    def data_dependent_init(self, x: Array, cond: Array | None = None) -> Array:
        """Sets the actnorms of all levels, and returns the codes."""
        return self._through(lambda part, x: (part.data_dependent_init(x), 0.0), x)[0]

    def _through(self, call: Callable, x: Array) -> tuple[Array, Array]:
        """Returns (codes, log |det| [B]), by `call` of steps and of the last norm."""
        total, leaving = no_change(x), []
        for level, steps in enumerate(self.steps):
            x = space_to_depth(x) if level > 0 or self.squeeze_first else x
            x, log_det = call(steps, x)
            total += log_det
            if level < len(self.splits):
                x, z, log_det = self.splits[level].forward(x)
                total += log_det
                leaving.append(z)
        x, log_det = call(self.last, x)
        flat = [z.reshape(z.shape[0], -1) for z in (*leaving, x)]
        return jnp.concatenate(flat, axis=-1), total + log_det
