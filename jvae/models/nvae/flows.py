"""Volume-preserving autoregressive flows for posteriors of maps."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jvae.models.nvae.convolutions import Convolution
from jvae.types import Array

EXPANSION = 6
"""Hidden channels of a step for every variable of a place."""


class AutoregressiveStep(nn.Module):
    """z - m(z), m of the variables before each in raster order: its volume is 1.

    Kingma et al., 2016, https://arxiv.org/abs/1606.04934, without scales.

    Attributes:
      dtype: of the computation; None for that of input and parameters.
    """

    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Returns [B, h, w, d]."""
        variables = z.shape[-1]
        hidden, kind = EXPANSION * variables, {"dtype": self.dtype}
        m = Convolution(hidden, 3, use_bias=False, order="strict", **kind)(z)
        m = Convolution(
            hidden, 5, use_bias=False, depthwise=True, order="causal", **kind
        )(nn.elu(m))
        last = Convolution(variables, 1, order="causal", scale=0.1, **kind)
        return z - last(nn.elu(nn.elu(m))).astype(z.dtype)


class VolumePreservingFlow(nn.Module):
    """Pairs of steps, the second of each from the last pixel to the first.

    Attributes:
      num_pairs: how many.
      dtype: of the computation; None for that of input and parameters.
    """

    num_pairs: int
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Returns [B, h, w, d], of the same density as z."""
        for _ in range(self.num_pairs):
            z = AutoregressiveStep(self.dtype)(z)
            turned = AutoregressiveStep(self.dtype)(jnp.flip(z, (1, 2)))
            z = jnp.flip(turned, (1, 2))
        return z
