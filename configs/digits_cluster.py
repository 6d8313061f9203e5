"""The bundled 8x8 digits in 10 clusters, without labels: half a minute on two cores.

The weight of the squared error of a picture is that of 28x28 pixels in the reference,
whose variance is 0.4: here 0.4 * 64 / 784 = 0.18^2. docs/clustering.md has the flags
that make a mixture with responsibilities of it.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 4000
    config.log_every_steps = 200
    config.eval_every_steps = 1000
    config.checkpoint_every_steps = 1000
    config.steps_per_dispatch = 10

    config.data = ConfigDict()
    config.data.name = "digits"
    config.data.batch_size = 100
    config.data.transform = "unit"
    config.data.num_validation = 144

    config.model = ConfigDict()
    config.model.name = "mlp"
    config.model.image_shape = (8, 8, 1)
    config.model.hidden = (256, 256)
    config.model.latent_dim = 8
    config.model.likelihood = {"name": "gaussian", "std": 0.18, "mean": "sigmoid"}
    config.model.clusters = ConfigDict()
    config.model.clusters.num_clusters = 10
    config.model.clusters.assignment = "classifier"
    config.model.clusters.classifier_hidden = (256,)
    config.model.clusters.mean_std = 0.0
    config.model.clusters.learned_variances = False
    config.model.clusters.learned_weights = False

    config.loss = ConfigDict()
    config.loss.name = "cluster_elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3

    config.mesh = ConfigDict()
    config.mesh.data = -1
    config.mesh.params = 1
    return config
