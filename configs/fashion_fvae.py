"""An f-VAE on Fashion-MNIST padded to 32x32, of as many parameters as the Glow."""

import fashion_glow
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = fashion_glow.get_config()
    config.data.transform = "dequantize"
    config.model = ConfigDict()
    config.model.name = "fvae"
    config.model.image_shape = (32, 32, 1)
    config.model.levels = 2
    config.model.blocks = 2
    config.model.block_hidden = 48
    config.model.flow_levels = 2
    config.model.depth = 6
    config.model.hidden = 64
    config.model.coupling = "affine"
    config.model.mixing = "convolution"
    return config
