"""The language model that configs/novels_text.py is compared with: no latents."""

import novels_text
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = novels_text.get_config()
    config.model = ConfigDict()
    config.model.name = "language_model"
    config.model.vocabulary_size = 4000
    config.model.embedding_dim = 128
    config.model.hidden = 128
    config.model.dropout = 0.5
    return config
