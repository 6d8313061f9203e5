"""A sentence VAE on plain novels (`jvae novels` makes the files).

10,000 sentences and 4,000 words, for two cores; drop max_sentences to take all.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 1570  # 10 epochs
    config.log_every_steps = 157
    config.eval_every_steps = 157
    config.checkpoint_every_steps = 471

    config.data = ConfigDict()
    config.data.name = "text"
    config.data.path = "data/novels"
    config.data.vocabulary_size = 4000
    config.data.max_sentences = 10_000
    config.data.batch_size = 64
    config.data.transform = "tokens"

    config.model = ConfigDict()
    config.model.name = "text_vae"
    config.model.vocabulary_size = 4000
    config.model.latent_dim = 32
    config.model.embedding_dim = 128
    config.model.hidden = 128
    config.model.dropout = 0.5

    config.loss = ConfigDict()
    config.loss.name = "elbo"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.optimizer.clip_norm = 5.0
    return config
