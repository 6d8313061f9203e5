"""Sentences of the bundled grammar, with means normalised so that the KL stays."""

import grammar_text
from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = grammar_text.get_config()
    config.model.latent = {"name": "normalized_gaussian", "gamma": 0.6}
    return config
