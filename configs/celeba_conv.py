"""The CelebA VAE of the series: 64x64 faces, Gaussian decoder of variance 1.

Prepare the data once with `jvae prepare celeb_a`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 1_000_000
    config.eval_every_steps = 10_000
    config.checkpoint_every_steps = 10_000
    config.eval_examples = 2048
    config.ema_decay = 0.999

    config.data = ConfigDict()
    config.data.name = "tfds"
    config.data.dataset = "celeb_a"
    config.data.crop = 178
    config.data.height = 64
    config.data.width = 64
    config.data.batch_size = 32
    config.data.transform = "signed"
    config.data.num_validation = 2048

    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (64, 64, 3)
    config.model.latent_dim = 512
    config.model.channels = (32, 64, 128, 256, 512)
    config.model.decoder_channels = (256, 128, 64, 32)
    config.model.kernel_size = 5
    config.model.pooling = "mean"
    config.model.batch_norm = True
    config.model.activation = "leaky_relu"
    config.model.decoder_activation = "relu"
    config.model.start_activation = False
    config.model.likelihood = ConfigDict({"name": "gaussian", "mean": "tanh"})

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-4
    return config
