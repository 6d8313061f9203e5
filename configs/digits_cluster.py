"""The bundled 8x8 digits in 10 clusters, without labels: half a minute on two cores.

The weight of the squared error of a picture is that of 28x28 pixels in the reference,
whose variance is 0.4: here 0.4 * 64 / 784 = 0.18^2. docs/clustering.md has the flags
that make a mixture with responsibilities of it.
"""

import digits
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = digits.get_config()
    config.num_steps = 4000
    config.ema_decay = 0.0
    config.steps_per_dispatch = 10
    config.data.batch_size = 100
    config.data.transform = "unit"

    config.model = ConfigDict()
    config.model.name = "mlp"
    config.model.image_shape = (8, 8, 1)
    config.model.hidden = (256, 256)
    config.model.latent_dim = 8
    config.model.likelihood = {"name": "gaussian", "std": 0.18, "mean": "sigmoid"}
    config.model.clusters = ConfigDict()
    config.model.clusters.num_clusters = 10

    config.loss.name = "cluster_elbo"
    config.optimizer.schedule = "constant"
    return config
