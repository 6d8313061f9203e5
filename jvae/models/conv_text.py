"""A VAE of verses: gated convolutions read them, and write all tokens at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import layers, registry
from jvae.distributions import Sentences
from jvae.errors import require
from jvae.models import latents
from jvae.models.latents import GaussianLatent, Latent
from jvae.models.text import END, SentenceVAE, flat_code, nucleus
from jvae.ranges import PositiveInt, VocabularySize
from jvae.types import Array, Batch, Key

_GLOROT = nn.initializers.glorot_uniform()


class GatedConvolution(nn.Module):
    """x + conv(x) * sigmoid(conv'(x)), kernels of three places, [B, T, C].

    Dauphin et al., 2017, https://arxiv.org/abs/1612.08083, with a residual.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the sum; beyond both ends of a row there are zeros."""
        channels = x.shape[-1]
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        places = [padded[:, i : i + x.shape[1]] for i in range(3)]
        patches = jnp.concatenate(places, axis=-1)
        layer = layers.Dense(2 * channels, use_bias=False, kernel_init=_GLOROT)
        value, gate = jnp.split(layer(patches), 2, axis=-1)
        return x + value * nn.sigmoid(gate)


class VerseDecoder(nn.Module):
    """Codes [B, D] -> logits [B, T, V] of the token at every place.

    Attributes:
      vocabulary_size: V.
      embedding_dim: C, width of the layers.
      max_length: T.
    """

    vocabulary_size: int
    embedding_dim: int
    max_length: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Returns the logits."""
        size = self.max_length * self.embedding_dim
        x = nn.Dense(size, kernel_init=_GLOROT)(z)
        x = GatedConvolution()(x.reshape(z.shape[0], self.max_length, -1))
        output = layers.Dense(self.vocabulary_size, kernel_init=_GLOROT)
        return output(x)


class PoetryVAE(SentenceVAE):
    """q(z|x) and p(x|z) = prod_t p(x_t|z) of gated convolutions.

    As no token sees another one, all that they have in common has to be in z: the KL
    does not vanish.

    Su, 2018, https://kexue.fm/archives/5332.

    Attributes:
      vocabulary_size: V, tokens.
      latent_dim: D.
      embedding_dim: C, width of all layers.
      max_length: T, tokens of the longest sentence, its end counted.
      latent: an object of `jvae.models.latents`.
    """

    vocabulary_size: int
    latent_dim: int
    embedding_dim: int
    max_length: int
    latent: Latent = GaussianLatent()

    def setup(self):
        """Adds encoder and decoder."""
        self.embedding = nn.Embed(self.vocabulary_size, self.embedding_dim)
        self.encoder = [GatedConvolution() for _ in range(2)]
        self.add_latent(kernel_init=_GLOROT)
        sizes = (self.vocabulary_size, self.embedding_dim, self.max_length)
        self.decoder = VerseDecoder(*sizes)

    def features(self, batch: Batch) -> Array:
        """Returns the mean over a sentence's places, [B, C]; padding does not count."""
        tokens, length = batch["tokens"], batch["length"]
        is_token = (jnp.arange(tokens.shape[1])[None] < length[:, None])[..., None]
        x = jnp.where(is_token, self.embedding(tokens), 0.0)
        for layer in self.encoder:
            x = jnp.where(is_token, layer(x), 0.0)
        return x.sum(1) / jnp.maximum(length, 1)[:, None].astype(x.dtype)

    def logits(self, z: Array) -> Array:
        """Returns those of the token at every place, [B, T, V]."""
        return self.decoder(flat_code(z))

    def likelihood(self, z: Array, batch: Batch) -> Sentences:
        """Returns p(x|z) of batch['tokens'] [B, up to T], of 'length' [B]."""
        width = batch["tokens"].shape[1]
        rule = f"be at least the data's {width} tokens"
        require(width <= self.max_length, "model.max_length", rule, self.max_length)
        return Sentences(self.logits(z)[:, :width], batch["length"])

    def write(
        self, z: Array, key: Key | None = None, top_p: float | Array = 1.0
    ) -> Array:
        """Returns a sentence for each code z [B, D], int32 [B, T], as `TextModel` does.

        Args:
          z: [B, D].
          key: [B] keys of the draws; None takes the likeliest tokens.
          top_p: see `TextModel.write`.
        """
        logits = self.logits(z)
        if key is None:
            tokens = jnp.argmax(logits, axis=-1)
        else:
            of_nucleus = jax.vmap(lambda row: nucleus(row, top_p))(logits)
            tokens = jax.vmap(jax.random.categorical)(key, of_nucleus)
        is_past = jnp.cumsum(tokens == END, axis=1) > 0
        return jnp.where(is_past, END, tokens).astype(jnp.int32)


@registry.checked("model")
def poetry_vae(
    vocabulary_size: VocabularySize,
    latent_dim: PositiveInt = 64,
    embedding_dim: PositiveInt = 64,
    max_length: PositiveInt = 11,
    latent: str | Mapping[str, Any] = "gaussian",
) -> PoetryVAE:
    """Returns a VAE of verses whose tokens are independent given z.

    Args:
      vocabulary_size: tokens; at least as many as the data's vocabulary has.
      latent_dim: dimensions of z.
      embedding_dim: width of the embedding of a token and of all layers.
      max_length: tokens of the longest sentence, the one that ends it counted.
      latent: the kind of latents, a name or {'name': ..., fields}.

    Raises:
      ConfigError: a number out of range, or latents that do not fit.
    """
    built = latents.build(latent, latent_dim)
    return PoetryVAE(vocabulary_size, latent_dim, embedding_dim, max_length, built)
