"""NVAE, a hierarchical VAE: the model, its scales, groups, cells and convolutions."""

from jvae.models.nvae.model import NVAE, nvae

__all__ = ["NVAE", "nvae"]
