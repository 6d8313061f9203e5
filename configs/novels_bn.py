"""BN-VAE on plain novels: means normalised so that the KL stays."""

import novels_text
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = novels_text.get_config()
    # Lengths mixed: batches of one length are normalised by statistics of their own.
    config.data.num_buckets = 1
    config.model.latent = {"name": "normalized_gaussian", "gamma": 0.6}
    return config
