"""NVAE on CelebA at 64x64 at the published settings.

90 epochs at a batch of 128; 467,200 latents, 153.3 M parameters. Prepare the data
once with `jvae prepare celeb_a`. The central 148x148 pixels are scaled
down, where the reference takes a square 5 pixels lower. As published, numbers are those
of the validation split, so no checkpoint is chosen by it. Vahdat & Kautz, 2020,
https://arxiv.org/abs/2007.03898. Never trained here: see docs/nvae.md.
"""

import nvae_cifar10
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = nvae_cifar10.get_config()
    config.num_steps = 114_390
    config.eval_every_steps = 1_271
    config.checkpoint_every_steps = 1_271
    config.schedules.beta.begin = 11
    config.schedules.beta.steps = 34_317
    config.data.dataset = "celeb_a"
    config.data.test_split = "validation"
    config.data.num_validation = 0
    config.data.crop = 148
    config.data.height = 64
    config.data.width = 64
    config.data.batch_size = 128
    config.model.image_shape = (64, 64, 3)
    config.model.channels = 64
    config.model.groups = (5, 10, 20)
    config.loss.smoothness = 0.1
    config.optimizer.warmup_steps = 6355
    return config
