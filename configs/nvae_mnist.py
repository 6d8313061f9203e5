"""NVAE on MNIST, binarised anew at every visit, at the published settings.

400 epochs at a batch of 400; 14,400 latents, 33.4 M parameters. Vahdat & Kautz, 2020,
https://arxiv.org/abs/2007.03898. Never trained here: see docs/nvae.md.
"""

import mnist_mlp
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = mnist_mlp.get_config()
    config.num_steps = 60_000
    config.eval_every_steps = 1500
    config.checkpoint_every_steps = 1500
    config.ema_decay = 0.0
    config.data.batch_size = 400

    config.model = ConfigDict()
    config.model.name = "nvae"
    config.model.image_shape = (28, 28, 1)
    config.model.padding = 2
    config.model.channels = 32
    config.model.groups = (5, 10)
    config.model.blocks = 2
    config.model.block_cells = 3
    config.model.likelihood = "bernoulli"
    config.model.dtype = "bfloat16"

    config.loss = ConfigDict()
    config.loss.name = "hierarchical_elbo"
    config.loss.smoothness = 0.01

    config.schedules = ConfigDict()
    config.schedules.beta = ConfigDict()
    config.schedules.beta.name = "linear"
    config.schedules.beta.begin = 6
    config.schedules.beta.steps = 18_000
    config.schedules.beta.floor = 1e-4

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamax"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.eps = 1e-3
    config.optimizer.weight_decay = 3e-4
    config.optimizer.decayed = "all"
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 750
    config.optimizer.final_fraction = 0.01
    return config
