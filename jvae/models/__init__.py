"""Models: pure Flax modules, one file per family.

What a model offers to every objective is in docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flax import linen as nn

from jvae import registry
from jvae.models.classifier import BottleneckClassifier, Classifier, mlp_classifier
from jvae.models.cluster import ClusterVAE
from jvae.models.conv import ConvDecoder, ConvEncoder, conv
from jvae.models.conv_text import PoetryVAE, poetry_vae
from jvae.models.flow import FlowModel, glow, nice
from jvae.models.fvae import FlowVAE, fvae
from jvae.models.infomax import InfoMaxEncoder, infomax
from jvae.models.latents import LATENTS
from jvae.models.likelihoods import LIKELIHOODS
from jvae.models.mlp import MlpDecoder, MlpEncoder, mlp
from jvae.models.nvae import NVAE
from jvae.models.nvae import nvae as build_nvae
from jvae.models.text import LanguageModel, TextVAE, language_model, text_vae
from jvae.models.vae import VAE, SingleLatent

MODELS: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "conv": conv,
    "mlp_classifier": mlp_classifier,
    "infomax": infomax,
    "glow": glow,
    "nice": nice,
    "nvae": build_nvae,  # `jvae.models.nvae` is the package
    "fvae": fvae,
    "poetry_vae": poetry_vae,
    "text_vae": text_vae,
    "language_model": language_model,
}

__all__ = [
    "LATENTS",
    "LIKELIHOODS",
    "MODELS",
    "NVAE",
    "VAE",
    "BottleneckClassifier",
    "Classifier",
    "ClusterVAE",
    "ConvDecoder",
    "ConvEncoder",
    "FlowModel",
    "FlowVAE",
    "InfoMaxEncoder",
    "LanguageModel",
    "MlpDecoder",
    "MlpEncoder",
    "SingleLatent",
    "PoetryVAE",
    "TextVAE",
    "build",
    "conv",
    "fvae",
    "glow",
    "infomax",
    "language_model",
    "mlp",
    "mlp_classifier",
    "nice",
    "poetry_vae",
    "text_vae",
]


def build(name: str, **fields: Any) -> nn.Module:
    """Returns the model `name` with these fields.

    Args:
      name: a key of `MODELS`, or 'package.module:Name' of a model of your own.
      **fields: those of that function or module.

    Raises:
      ConfigError: an unknown name or field, a wrong type or an impossible value.
    """
    return registry.build(MODELS, "model", name, **fields)
