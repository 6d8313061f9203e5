"""An NVAE from the fields of a config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from jvae import registry
from jvae.errors import ConfigError, require
from jvae.layers import compute_dtype
from jvae.models import likelihoods
from jvae.models.nvae.cells import Cells, Style
from jvae.models.nvae.groups import GroupSizes, Remat
from jvae.models.nvae.model import NVAE
from jvae.models.nvae.scale import Features
from jvae.ranges import ImageShape, NonNegativeInt, PositiveInt, SomeWidths


@registry.checked("model")
def nvae(
    image_shape: ImageShape,
    channels: PositiveInt = 32,
    groups: SomeWidths = (5, 10),
    latent_channels: PositiveInt = 20,
    group_cells: PositiveInt = 2,
    blocks: NonNegativeInt = 2,
    block_cells: PositiveInt = 3,
    flow_pairs: NonNegativeInt = 0,
    padding: NonNegativeInt = 0,
    likelihood: str | Mapping[str, Any] = "bernoulli",
    cells: Cells = "batch_norm",
    remat: Remat = "cells",
    features: Features = "keep",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> NVAE:
    """Returns NVAE, a deep hierarchical VAE (Vahdat & Kautz, 2020).

    Args:
      image_shape: (H, W, C); with the padding H and W must be halved by all blocks and
        all scales but one.
      channels: of the stem; doubled at every halving.
      groups: groups of latents of each scale, the coarsest first.
      latent_channels: variables of a group at every place.
      group_cells: cells before a group, on either way.
      blocks: halvings before the finest scale.
      block_cells: cells of each, one of which halves.
      flow_pairs: pairs of autoregressive steps behind every posterior.
      padding: rows and columns of zeros added on each side within the model.
      likelihood: a name, or {'name': ..., fields}, see `jvae.models.likelihoods`.
      cells: 'batch_norm' (NVAE), or 'plain', without BatchNorm and with branches that
        start small (VDVAE).
      remat: activations that the gradient recomputes: 'none', or those within the
        'cells' from their input (on CPU of the cells of groups alone, where it is
        faster too: fewer arrays to fill).
      features: whether bottom-up features are kept for the top-down pass ('keep') or
        recomputed ('recompute'), one scale at a time.
      dtype: of the cells' computation; likelihood, KL and statistics are in float32.

    Raises:
      ConfigError: a number out of range, or an image that cannot be halved so often.
    """
    height, width, colors = image_shape
    halvings = blocks + len(groups) - 1

    for side in (height, width):
        if (side + 2 * padding) % 2**halvings:
            raise ConfigError(
                f"model.image_shape with padding {padding} must be a multiple of "
                f"2^{halvings} = {2**halvings} for {halvings} halvings, got {side} + "
                f"2 x {padding}",
                fix="Set model.padding, or fewer model.blocks or model.groups.",
            )
    require(channels % 2 == 0, "model.channels", "be even", channels)

    depth = 2 * (blocks * block_cells + group_cells * sum(groups))
    return NVAE(
        observation=likelihoods.build(likelihood),
        image_shape=(height, width, colors),
        channels=channels,
        groups=tuple(groups),
        sizes=GroupSizes(latent_channels, group_cells, flow_pairs, remat),
        style=Style(cells, depth, compute_dtype(dtype)),
        blocks=blocks,
        block_cells=block_cells,
        padding=padding,
        features=features,
    )
