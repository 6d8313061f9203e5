"""8x8 digits bundled with scikit-learn: a VAE in a minute, without a download."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 6000
    config.log_every_steps = 200
    config.eval_every_steps = 1000
    config.checkpoint_every_steps = 1000
    config.ema_decay = 0.999

    config.data = ConfigDict()
    config.data.name = "digits"
    config.data.batch_size = 128
    config.data.transform = "binarize"
    config.data.num_validation = 144

    config.model = ConfigDict()
    config.model.name = "mlp"
    config.model.image_shape = (8, 8, 1)
    config.model.hidden = (256, 256)
    config.model.latent_dim = 8
    config.model.likelihood = "bernoulli"

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    return config
