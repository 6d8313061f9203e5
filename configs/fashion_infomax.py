"""Codes of Fashion-MNIST without a decoder: three epochs of 60,000 images.

A small encoder, for two cores; configs/cifar10_infomax.py is the reference's.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 2800
    config.log_every_steps = 100
    config.eval_every_steps = 2800
    config.checkpoint_every_steps = 700

    config.data = ConfigDict()
    config.data.name = "idx"
    config.data.path = "/usr/share/datasets/fashion-mnist"
    config.data.batch_size = 64
    config.data.transform = "signed"

    config.model = ConfigDict()
    config.model.name = "infomax"
    config.model.image_shape = (28, 28, 1)
    config.model.latent_dim = 64
    config.model.channels = (32, 64)
    config.model.top_channels = (128,)
    config.model.critic_hidden = (128, 128)

    config.loss = ConfigDict()
    config.loss.name = "infomax"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    return config
