"""Fashion-MNIST told apart through an information bottleneck: 20 epochs.

784-512-512 to 64 noisy codes, a linear map to 10 labels. The control, an ordinary
classifier of the same layers: --config.model.noise=False --config.loss.beta=0.
"""

import fashion_mlp
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = fashion_mlp.get_config()
    config.num_steps = 11_800
    config.log_every_steps = 590
    config.eval_every_steps = 590
    config.checkpoint_every_steps = 11_800
    config.steps_per_dispatch = 10
    config.data.batch_size = 100
    config.data.transform = "signed"

    config.model = ConfigDict()
    config.model.name = "mlp_classifier"
    config.model.image_shape = (28, 28, 1)
    config.model.hidden = (512, 512)
    config.model.latent_dim = 64
    config.model.num_classes = 10

    config.loss.name = "bottleneck"
    config.loss.beta = 1e-3
    config.optimizer.schedule = "cosine"
    return config
