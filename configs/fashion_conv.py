"""A convolutional VAE on Fashion-MNIST, dynamically binarised; see docs/nvae.md."""

import fashion_mlp
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = fashion_mlp.get_config()
    config.num_steps = 3684  # four epochs
    config.steps_per_dispatch = 1
    config.eval_every_steps = 921
    config.checkpoint_every_steps = 921
    config.data.batch_size = 64
    config.data.num_validation = 1024

    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (28, 28, 1)
    config.model.channels = (32, 64)
    config.model.hidden = (256,)
    config.model.latent_dim = 32
    config.model.likelihood = "bernoulli"

    config.optimizer.schedule = "cosine"
    return config
