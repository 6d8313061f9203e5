"""One scale of a hierarchy: the bottom-up pass through it, and the top-down pass."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae.models.nvae.cells import Style
from jvae.models.nvae.groups import (
    GroupSample,
    GroupSizes,
    LatentGroup,
    Noise,
    SamplingContext,
    stacked_bottom_up,
    stacked_groups,
)
from jvae.types import Array

Features = Literal["keep", "recompute"]


class Scale(nn.Module):
    """`count` groups of latents on maps of one size, each compiled once.

    Attributes:
      style: of the model.
      sizes: of its groups.
      channels: of the features.
      count: groups.
      is_top: whether the first group has nothing above it.
      features: whether bottom-up features are kept for the top-down pass ('keep') or
        recomputed from the scale's input ('recompute').
    """

    style: Style
    sizes: GroupSizes
    channels: int
    count: int
    is_top: bool
    features: Features = "keep"

    def setup(self):
        """Adds both ways."""
        style, sizes, channels = self.style, self.sizes, self.channels
        self.up = stacked_bottom_up(style, sizes, self.count)
        if self.is_top:
            self.first = LatentGroup(style, sizes, channels, is_first=True)
        others = self.count - self.is_top
        if others:
            self.groups = stacked_groups(style, sizes, channels, others)

    def bottom_up(self, x: Array, mask: Array | None) -> tuple[Array, Array]:
        """Returns (features [B, h, w, C], what `top_down` takes as features)."""
        out, every = self.up(x, mask)
        return out, x if self.features == "recompute" else every

    def top_down(
        self,
        state: Array,
        bottom_up_features: Array | None,
        top: Array | None,
        z: Array | Noise | None,
        context: SamplingContext,
        begin: int,
    ) -> tuple[Array, GroupSample]:
        """Returns (features after all groups, their draws stacked [count, B, ...]).

        Args:
          state: [B, h, w, C], features of what is above.
          bottom_up_features: from `bottom_up`; None to draw from the prior.
          top: [B, h, w, C], what the first group of all sees of x.
          z: [count, B, h, w, d], or its noise, if the latents are given.
          context: keys, temperature and mask.
          begin: number of the first group here.
        """
        every, parts = None, []
        if bottom_up_features is not None:
            every = self._every(bottom_up_features, context.mask)
        if self.is_top:
            inputs = (jnp.asarray(begin), top, jax.tree.map(lambda a: a[0], z))
            state, samples = self.first(state, inputs, context)
            parts.append(jax.tree.map(lambda a: a[None], samples))
            every, z = jax.tree.map(lambda a: a[1:], (every, z))
        first = begin + int(self.is_top)
        numbers = jnp.arange(first, begin + self.count)
        if len(numbers):
            state, samples = self.groups(state, (numbers, every, z), context)
            parts.append(samples)
        return state, jax.tree.map(lambda *a: jnp.concatenate(a), *parts)

    def _every(self, bottom_up_features: Array, mask: Array | None) -> Array:
        """Returns the bottom-up features of every group, [count, B, h, w, C]."""
        if self.features == "keep":
            return bottom_up_features
        # A second time: what BatchNorm learns from it is dropped.
        train = self.is_mutable_collection("batch_stats")
        up, inputs = self.up.clone(parent=None), (bottom_up_features, mask)
        updated = ["batch_stats"] if train else []
        return up.apply(self.up.variables, *inputs, mutable=updated)[0][1]
