"""A small NVAE on the bundled digits, binarised, for a CPU; see docs/nvae.md."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 2000
    config.log_every_steps = 100
    config.eval_every_steps = 500
    config.checkpoint_every_steps = 500

    config.data = ConfigDict()
    config.data.name = "digits"
    config.data.batch_size = 64
    config.data.transform = "binarize"
    config.data.num_validation = 128

    config.model = ConfigDict()
    config.model.name = "nvae"
    config.model.image_shape = (8, 8, 1)
    config.model.channels = 16
    config.model.groups = (2, 2)
    config.model.latent_channels = 4
    config.model.group_cells = 1
    config.model.blocks = 1
    config.model.block_cells = 1
    config.model.likelihood = "bernoulli"

    config.loss = ConfigDict()
    config.loss.name = "hierarchical_elbo"
    config.loss.smoothness = 0.01

    config.schedules = ConfigDict()
    config.schedules.beta = ConfigDict()
    config.schedules.beta.name = "linear"
    config.schedules.beta.steps = 600
    config.schedules.beta.floor = 1e-4

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamax"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.eps = 1e-3
    config.optimizer.weight_decay = 3e-4
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.final_fraction = 0.01
    return config
