"""An f-VAE on the bundled digits, of as many parameters as the Glow beside it."""

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
    config.data.transform = "dequantize"
    config.data.num_bits = 4
    config.data.num_validation = 139

    config.model = ConfigDict()
    config.model.name = "fvae"
    config.model.image_shape = (8, 8, 1)
    config.model.levels = 1
    config.model.blocks = 1
    config.model.block_hidden = 36
    config.model.flow_levels = 2
    config.model.depth = 4
    config.model.hidden = 30
    config.model.coupling = "affine"
    config.model.mixing = "convolution"

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 100.0
    return config
