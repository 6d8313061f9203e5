"""32 categorical latents of 10 values on MNIST, relaxed by Gumbel noise.

The network, optimizer and annealing of Su, 2019, https://kexue.fm/archives/6705.
"""

import mnist_mlp
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = mnist_mlp.get_config()
    config.num_steps = 18_000
    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (28, 28, 1)
    config.model.channels = (32, 64)
    config.model.hidden = (32,)
    config.model.decoder_hidden = (32,)
    config.model.likelihood = "bernoulli"
    config.model.latent_dim = 32
    config.model.latent = ConfigDict()
    config.model.latent.name = "gumbel_softmax"
    config.model.latent.num_values = 10

    config.schedules = ConfigDict()
    config.schedules.temperature = ConfigDict()
    config.schedules.temperature.name = "exponential"
    config.schedules.temperature.start = 1.0
    config.schedules.temperature.end = 0.01
    config.schedules.temperature.decay = 0.999
    return config
