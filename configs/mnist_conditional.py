"""The conditional VAE of the series: a learned prior mean for every digit."""

import mnist_mlp
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = mnist_mlp.get_config()
    config.num_steps = 60_000
    config.model.num_classes = 10
    return config
