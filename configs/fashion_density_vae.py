"""A convolutional VAE with the f-VAE's likelihood, of as many parameters."""

import fashion_fvae
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = fashion_fvae.get_config()
    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (32, 32, 1)
    config.model.latent_dim = 64
    config.model.channels = (32, 64, 64)
    config.model.likelihood = {"name": "gaussian", "variance": "shared", "std": 0.1}
    return config
