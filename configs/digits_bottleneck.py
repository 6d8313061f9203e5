"""The bundled 8x8 digits told apart through an information bottleneck, in a minute."""

import digits
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.num_steps = 3000
    config.data.transform = "signed"

    config.model = ConfigDict()
    config.model.name = "mlp_classifier"
    config.model.image_shape = (8, 8, 1)
    config.model.hidden = (256, 256)
    config.model.latent_dim = 16
    config.model.num_classes = 10

    config.loss = ConfigDict()
    config.loss.name = "bottleneck"
    config.loss.beta = 1e-2
    return config
