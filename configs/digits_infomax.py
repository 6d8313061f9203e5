"""Codes of the bundled 8x8 digits without a decoder, in a minute."""

import digits
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.num_steps = 2000
    config.data.transform = "signed"

    config.model = ConfigDict()
    config.model.name = "infomax"
    config.model.image_shape = (8, 8, 1)
    config.model.latent_dim = 32
    config.model.channels = (32, 64)
    config.model.top_channels = (64,)
    config.model.critic_hidden = (64, 64)

    config.loss = ConfigDict()
    config.loss.name = "infomax"
    return config
