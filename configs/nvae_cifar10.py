"""NVAE on CIFAR-10 at the published settings.

400 epochs at a batch of 256; 153,600 latents, 130.9 M parameters. Vahdat & Kautz, 2020,
https://arxiv.org/abs/2007.03898. Never trained here: see docs/nvae.md.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 78_000
    config.eval_every_steps = 1950
    config.checkpoint_every_steps = 1950

    config.data = ConfigDict()
    config.data.name = "tfds"
    config.data.dataset = "cifar10"
    config.data.batch_size = 256
    config.data.transform = "signed"
    config.data.mirror = True
    config.data.num_validation = 1000

    config.model = ConfigDict()
    config.model.name = "nvae"
    config.model.image_shape = (32, 32, 3)
    config.model.channels = 128
    config.model.groups = (30,)
    config.model.blocks = 1
    config.model.block_cells = 2
    config.model.flow_pairs = 1
    config.model.likelihood = ConfigDict()
    config.model.likelihood.name = "discretized_logistic_mixture"
    config.model.likelihood.num_components = 10
    config.model.dtype = "bfloat16"

    config.loss = ConfigDict()
    config.loss.name = "hierarchical_elbo"
    config.loss.smoothness = 0.01

    config.schedules = ConfigDict()
    config.schedules.beta = ConfigDict()
    config.schedules.beta.name = "linear"
    config.schedules.beta.begin = 8
    config.schedules.beta.steps = 23_400
    config.schedules.beta.floor = 1e-4

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamax"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.eps = 1e-3
    config.optimizer.weight_decay = 3e-4
    config.optimizer.decayed = "all"
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 975
    config.optimizer.final_fraction = 0.01
    return config
