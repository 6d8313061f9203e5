"""Categorical latents on the bundled digits, in a minute."""

import digits
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.model.latent_dim = 10
    config.model.latent = ConfigDict()
    config.model.latent.name = "gumbel_softmax"
    config.model.latent.num_values = 8

    config.schedules = ConfigDict()
    config.schedules.temperature = ConfigDict()
    config.schedules.temperature.name = "exponential"
    config.schedules.temperature.start = 1.0
    config.schedules.temperature.end = 0.1
    config.schedules.temperature.decay = 0.999
    return config
