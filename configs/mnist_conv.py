"""The convolutional VAE of the series on MNIST, binarised dynamically."""

import mnist_mlp
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = mnist_mlp.get_config()
    config.num_steps = 18_000
    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (28, 28, 1)
    config.model.channels = (32, 64)
    config.model.hidden = (16,)
    config.model.latent_dim = 2
    config.model.likelihood = "bernoulli"
    return config
