"""Glow on the bundled digits: a flow, whose bits per dimension are those of pixels."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 2000
    config.log_every_steps = 100
    config.eval_every_steps = 500
    config.checkpoint_every_steps = 500
    config.ema_decay = 0.995

    config.data = ConfigDict()
    config.data.name = "digits"
    config.data.batch_size = 64
    config.data.transform = "levels"
    config.data.num_bits = 4
    config.data.num_validation = 139

    config.model = ConfigDict()
    config.model.name = "glow"
    config.model.image_shape = (8, 8, 1)
    config.model.levels = 2
    config.model.depth = 4
    config.model.hidden = 32
    config.model.num_bits = 4

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 100.0
    return config
