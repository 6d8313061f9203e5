"""Drawings of known factors, a convolutional VAE with beta = 4: disentanglement."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 6000
    config.log_every_steps = 200
    config.eval_every_steps = 1000
    config.checkpoint_every_steps = 1000
    config.ema_decay = 0.999

    config.data = ConfigDict()
    config.data.name = "shapes"
    config.data.batch_size = 64
    config.data.transform = "binarize"
    config.data.num_validation = 256

    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (32, 32, 1)
    config.model.channels = (16, 32, 32)
    config.model.hidden = (128,)
    config.model.latent_dim = 8
    config.model.likelihood = "bernoulli"

    config.loss = ConfigDict()
    config.loss.name = "elbo"
    config.loss.beta = 4.0

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    return config
