"""Fashion-MNIST, dynamically binarised, with a 784-512-16 VAE: 10 epochs."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 4690
    config.log_every_steps = 140
    config.eval_every_steps = 2345
    config.checkpoint_every_steps = 2345
    config.ema_decay = 0.999
    config.steps_per_dispatch = 35

    config.data = ConfigDict()
    config.data.name = "idx"
    config.data.path = "/usr/share/datasets/fashion-mnist"
    config.data.batch_size = 128
    config.data.transform = "binarize"
    config.data.num_validation = 1000

    config.model = ConfigDict()
    config.model.name = "mlp"
    config.model.image_shape = (28, 28, 1)
    config.model.hidden = (512,)
    config.model.latent_dim = 16
    config.model.likelihood = "bernoulli"

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    return config
