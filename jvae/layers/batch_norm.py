"""Batch normalisation of a global batch that may hold rows of padding."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jvae.types import Array


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, statistics in float32 at least.

    Uses and updates the statistics of the batch where 'batch_stats' is mutable, else
    the running ones. Under a sharded batch they are those of the global batch. Rows of
    padding have no part in them; a batch of padding alone leaves the running ones.

    Attributes:
      momentum: weight of the old running value.
      epsilon: added to the variance.
      dtype: of the result; None for that of the input and the parameters.
      affine: whether a learned scale and shift follow.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    dtype: Any = None
    affine: bool = True

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Returns x normalised, scaled and shifted.

        Args:
          x: [B, ..., C].
          mask: [B] bool, False for rows of padding, `batch.get('mask')`; None for none.
        """
        momentum: Any = self.momentum
        if mask is not None:
            is_real = mask.astype(bool).reshape(-1, *(1,) * (x.ndim - 1))
            # The mean of no rows is nan: then take all of them, and remember nothing.
            momentum = jnp.where(is_real.any(), momentum, 1.0)
            mask = is_real | ~is_real.any()
        return nn.BatchNorm(
            use_running_average=not self.is_mutable_collection("batch_stats"),
            momentum=momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            use_scale=self.affine,
            use_bias=self.affine,
            # The mean square less the squared mean is no variance in float32 where the
            # mean is large; without a scale nothing would hide that.
            use_fast_variance=self.affine,
        )(x, mask=mask)
