"""Sentences of the bundled grammar, whose exact probability is known; no files."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 3000
    config.log_every_steps = 100
    config.eval_every_steps = 500
    config.checkpoint_every_steps = 500

    config.data = ConfigDict()
    config.data.name = "grammar"
    config.data.batch_size = 64
    config.data.transform = "tokens"
    config.data.num_validation = 500

    config.model = ConfigDict()
    config.model.name = "text_vae"
    config.model.vocabulary_size = 85
    config.model.latent_dim = 8
    config.model.embedding_dim = 32
    config.model.hidden = 64
    config.model.dropout = 0.2
    config.model.max_length = 20

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 2e-3
    return config
