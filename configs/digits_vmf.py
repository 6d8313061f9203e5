"""Latents on a sphere on the bundled digits, in a minute."""

import digits
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.model.latent_dim = 6
    config.model.latent = ConfigDict()
    config.model.latent.name = "von_mises_fisher"
    config.model.latent.concentration = 40.0
    return config
