"""A convolutional VAE with the f-VAE's likelihood, of as many parameters."""

import digits_fvae
from ml_collections import ConfigDict

from jvae.models.fvae import LIKELIHOOD


def get_config() -> ConfigDict:
    config = digits_fvae.get_config()
    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (8, 8, 1)
    config.model.latent_dim = 8
    config.model.channels = (32, 32)
    config.model.likelihood = dict(LIKELIHOOD)
    return config
