"""NVAE, a hierarchical VAE: the model, its scales, groups, cells and convolutions."""

from jvae.models.nvae.build import nvae
from jvae.models.nvae.model import NVAE

__all__ = ["NVAE", "nvae"]
