"""A small NVAE on Fashion-MNIST, binarised anew at every visit; see docs/nvae.md."""

import nvae_mnist
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = nvae_mnist.get_config()
    config.num_steps = 3684  # four epochs
    config.log_every_steps = 100
    config.eval_every_steps = 921
    config.checkpoint_every_steps = 307
    config.eval_examples = 1024

    config.data = ConfigDict()
    config.data.name = "idx"
    config.data.path = "/usr/share/datasets/fashion-mnist"
    config.data.batch_size = 64
    config.data.transform = "binarize"
    config.data.num_validation = 1024

    config.model.channels = 16
    config.model.groups = (2, 4)
    config.model.group_cells = 1
    config.model.block_cells = 1
    config.model.dtype = "float32"

    config.schedules.beta.begin = 1
    config.schedules.beta.steps = 1105
    config.optimizer.warmup_steps = 150
    return config
