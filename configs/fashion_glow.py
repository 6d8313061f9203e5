"""Glow on Fashion-MNIST padded to 32x32, for two cores; see docs/flows.md.

configs/fashion_fvae.py and configs/fashion_density_vae.py have as many parameters.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 2000
    config.log_every_steps = 50
    config.eval_every_steps = 200
    config.checkpoint_every_steps = 200
    config.ema_decay = 0.99

    config.data = ConfigDict()
    config.data.name = "idx"
    config.data.path = "/usr/share/datasets/fashion-mnist"
    config.data.batch_size = 64
    config.data.transform = "levels"
    config.data.padding = 2
    config.data.num_validation = 512

    config.model = ConfigDict()
    config.model.name = "glow"
    config.model.image_shape = (32, 32, 1)
    config.model.levels = 3
    config.model.depth = 8
    config.model.hidden = 72

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 100.0
    return config
