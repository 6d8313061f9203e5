"""Latents on a sphere, von Mises-Fisher of fixed concentration, on MNIST.

The network and optimizer of Su, 2021, https://kexue.fm/archives/8404.
"""

import mnist_mlp
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = mnist_mlp.get_config()
    config.model.latent_dim = 4
    config.model.latent = ConfigDict()
    config.model.latent.name = "von_mises_fisher"
    config.model.latent.concentration = 20.0

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    return config
