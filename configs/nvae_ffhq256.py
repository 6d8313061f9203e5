"""NVAE on FFHQ at 256x256, 5 bits at the published settings.

200 epochs at a batch of 96; 6,005,760 latents. Images in data/ffhq/train and
data/ffhq/test. Vahdat & Kautz, 2020,
https://arxiv.org/abs/2007.03898. Never trained here: see docs/nvae.md.
"""

import nvae_cifar10
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = nvae_cifar10.get_config()
    config.num_steps = 131_200
    config.eval_every_steps = 656
    config.checkpoint_every_steps = 656
    config.schedules.beta.begin = 13
    config.schedules.beta.steps = 39_360
    config.data = ConfigDict()
    config.data.name = "images"
    config.data.path = "data/ffhq"
    config.data.batch_size = 96
    config.data.transform = "signed"
    config.data.num_bits = 5
    config.data.mirror = True
    config.model.image_shape = (256, 256, 3)
    config.model.channels = 30
    config.model.groups = (4, 4, 4, 8, 16)
    config.model.flow_pairs = 2
    config.model.likelihood.num_bits = 5
    config.model.features = "recompute"
    config.loss.smoothness = 0.1
    config.loss.smoothness_start = 1.0
    config.optimizer.learning_rate = 8e-3
    config.optimizer.final_fraction = 0.0125
    config.optimizer.warmup_steps = 3280
    return config
