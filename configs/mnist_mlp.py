"""The first VAE of the series: 784-256-2 on MNIST, binarised dynamically."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 30_000
    config.eval_every_steps = 3000
    config.checkpoint_every_steps = 3000
    config.ema_decay = 0.999

    config.data = ConfigDict()
    config.data.name = "idx"
    config.data.path = "~/data/mnist"
    config.data.batch_size = 100
    config.data.transform = "binarize"
    config.data.num_validation = 1000

    config.model = ConfigDict()
    config.model.name = "mlp"
    config.model.image_shape = (28, 28, 1)
    config.model.hidden = (256,)
    config.model.latent_dim = 2
    config.model.likelihood = "bernoulli"

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "rmsprop"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.b2 = 0.9
    config.optimizer.eps = 1e-7
    return config
