"""Fashion-MNIST in 10 clusters, without labels: the reference network, 50 epochs.

Hours on two cores, minutes on an accelerator; configs/fashion_cluster_mlp.py is its
quick form. All 60,000 images are trained on, so nothing is left for validation and
'best' is the last checkpoint. Su, 2018, https://kexue.fm/archives/5887.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 30_000
    config.log_every_steps = 200
    config.eval_every_steps = 0
    config.checkpoint_every_steps = 3000

    config.data = ConfigDict()
    config.data.name = "idx"
    config.data.path = "/usr/share/datasets/fashion-mnist"
    config.data.batch_size = 100
    config.data.transform = "unit"

    config.model = ConfigDict()
    config.model.name = "conv"
    config.model.image_shape = (28, 28, 1)
    config.model.channels = (32, 64)
    config.model.convs_per_level = 2
    config.model.activation = "leaky_relu"
    config.model.start_activation = False
    config.model.latent_dim = 20
    # Half of 2.5 times the squared error: a variance of 1 / 2.5.
    std = 0.4**0.5
    config.model.likelihood = {"name": "gaussian", "std": std, "mean": "sigmoid"}
    config.model.clusters = ConfigDict()
    config.model.clusters.num_clusters = 10

    config.loss = ConfigDict()
    config.loss.name = "cluster_elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.eps = 1e-7
    return config
