"""A VAE with the encoder of configs/fashion_infomax.py, to compare its codes with."""

import fashion_infomax
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = fashion_infomax.get_config()
    config.data.transform = "unit"

    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (28, 28, 1)
    config.model.latent_dim = 64
    config.model.channels = (32, 64)
    config.model.top_channels = (128,)
    config.model.downsampling = "max_pool"
    config.model.pooling = "max"
    config.model.batch_norm = True
    config.model.activation = "leaky_relu"
    # The variance of configs/fashion_cluster.py.
    std = 0.4**0.5
    config.model.likelihood = {"name": "gaussian", "std": std, "mean": "sigmoid"}

    config.loss = ConfigDict()
    config.loss.name = "elbo"
    return config
