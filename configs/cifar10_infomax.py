"""CIFAR-10 codes without a decoder, by the layers and settings of the reference.

50 epochs, batch 64, Adam 1e-3, from a prepared TensorFlow data set. The reference's
code averages the prior KL over dimensions and shows the global critic z twice:
--config.loss.kl_over=mean --config.model.global_view=code. Su, 2018,
https://kexue.fm/archives/6024.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 39_000
    config.log_every_steps = 200
    config.eval_every_steps = 3900
    config.checkpoint_every_steps = 3900

    config.data = ConfigDict()
    config.data.name = "tfds"
    config.data.dataset = "cifar10"
    config.data.batch_size = 64
    config.data.transform = "signed"
    config.data.num_validation = 1000

    config.model = ConfigDict()
    config.model.name = "infomax"
    config.model.image_shape = (32, 32, 3)
    config.model.latent_dim = 256

    config.loss = ConfigDict()
    config.loss.name = "infomax"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.eps = 1e-7
    return config
