"""Fashion-MNIST in 10 clusters, without labels: 50 epochs of a 784-512-20 VAE.

The objective and the optimiser of configs/fashion_cluster.py with layers that two
cores train in minutes.
"""

import fashion_cluster
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = fashion_cluster.get_config()
    config.steps_per_dispatch = 10
    clusters, likelihood = config.model.clusters, config.model.likelihood
    config.model = ConfigDict()
    config.model.name = "mlp"
    config.model.image_shape = (28, 28, 1)
    config.model.hidden = (512,)
    config.model.latent_dim = 20
    config.model.likelihood = likelihood
    config.model.clusters = clusters
    return config
