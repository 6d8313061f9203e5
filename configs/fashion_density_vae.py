"""A convolutional VAE with the f-VAE's likelihood, of as many parameters."""

import fashion_fvae
from ml_collections import ConfigDict

from jvae.models.fvae import LIKELIHOOD


def get_config() -> ConfigDict:
    config = fashion_fvae.get_config()
    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (32, 32, 1)
    config.model.latent_dim = 64
    config.model.channels = (32, 64, 64)
    config.model.likelihood = dict(LIKELIHOOD)
    return config
