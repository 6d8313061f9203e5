"""NVAE on ImageNet at 32x32 at the published settings.

45 epochs at a batch of 576; 143,360 latents, 268.5 M parameters. Vahdat & Kautz, 2020,
https://arxiv.org/abs/2007.03898. Never trained here: see docs/nvae.md.
"""

import nvae_cifar10
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = nvae_cifar10.get_config()
    config.num_steps = 100_080
    config.eval_every_steps = 2_224
    config.checkpoint_every_steps = 2_224
    config.schedules.beta.begin = 10
    config.schedules.beta.steps = 30_024
    config.data.dataset = "downsampled_imagenet/32x32"
    config.data.test_split = "validation"
    config.data.height = 32
    config.data.width = 32
    config.data.batch_size = 576
    config.model.channels = 192
    config.model.groups = (28,)
    config.loss.smoothness_start = 1.0
    config.optimizer.warmup_steps = 2224
    return config
