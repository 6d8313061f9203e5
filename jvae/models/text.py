"""Sentence VAEs: an LSTM reads a sentence, another one writes it again, given z."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import keys, layers, registry
from jvae.contract import Model
from jvae.distributions import Sentences
from jvae.errors import require
from jvae.layers.lstm import Lstm, Memory
from jvae.models import latents
from jvae.models.latents import GaussianLatent, Latent
from jvae.models.vae import LatentHead
from jvae.ranges import Fraction, PositiveInt, VocabularySize
from jvae.types import Array, Batch, Inference, Key, batch_size, float_dtype

END = 0
"""The token that ends a sentence, stands before it and fills up its row."""


class Decoder(nn.Module):
    """p(x|z) = prod_t p(x_t | x_1 ... x_t-1, z), an LSTM that sees z at every step.

    Its first cell is a linear function of z. Without latents ([B, 0]) it is a language
    model.

    Attributes:
      vocabulary_size: V, tokens.
      embedding_dim: width of a token's embedding.
      hidden: H, width of the LSTM.
      dropout: rate of dropout on embeddings and on what the LSTM shows.
    """

    vocabulary_size: int
    embedding_dim: int
    hidden: int
    dropout: float

    def setup(self):
        """Adds the embedding, the LSTM, and what turns z into a cell, h into logits."""
        init = nn.initializers.uniform(0.2)
        self.embedding = nn.Embed(
            self.vocabulary_size,
            self.embedding_dim,
            embedding_init=_centered(init, 0.1),
        )
        self.lstm = Lstm(self.hidden)
        self.first_cell = nn.Dense(self.hidden, use_bias=False)
        self.output = layers.Dense(self.vocabulary_size, use_bias=False)

    def initial_state(self, z: Array) -> Memory:
        """Returns the state before the first token, of codes z [B, D]."""
        if z.shape[-1] == 0:
            zeros = jnp.zeros((z.shape[0], self.hidden), self.lstm.recurrent.dtype)
            return Memory(zeros, zeros)
        cell = self.first_cell(z)
        return Memory(cell, jnp.tanh(cell))

    def __call__(self, z: Array, tokens: Array, key: Key | None = None) -> Array:
        """Returns logits [B, T, V] of each token, given those before it.

        Args:
          z: [B, D].
          tokens: [B, T].
          key: [B] keys of the dropout; None for none.
        """
        before = jnp.pad(tokens, ((0, 0), (1, 0)), constant_values=END)[:, :-1]
        first, second = (None, None) if key is None else keys.split_each(key, 2)
        x = layers.dropout(self.embedding(before), self.dropout, first)
        h = self.lstm(x, self.initial_state(z), _constant(z))
        return self.output(layers.dropout(h, self.dropout, second))

    def step(self, memory: Memory, z: Array, token: Array) -> tuple[Memory, Array]:
        """Returns (the state after one more token [B], logits [B, V] of the next)."""
        memory = self.lstm.step(memory, self.embedding(token), _constant(z))
        return memory, self.output(memory.hidden)


def _centered(init: Any, shift: float) -> Any:
    """Returns an initializer of values lower by `shift`."""
    return lambda *args: init(*args) - shift


def _constant(z: Array) -> Array | None:
    """Returns z as an input of every step, None of no latents."""
    return z if z.shape[-1] else None


class SentenceModel(Model):
    """What all models of sentences have in common."""

    target = "tokens"

    def as_batch(self, tokens: Array) -> dict[str, Array]:
        """Returns sentences [B, T] with their lengths, up to the first end."""
        is_end = tokens == END
        length = jnp.where(is_end.any(1), jnp.argmax(is_end, 1) + 1, tokens.shape[1])
        return {"tokens": tokens, "length": length.astype(jnp.int32)}

    def decode(self, z: Array) -> Array:
        """Returns the sentences that the likeliest tokens make, int32 [B, T]."""
        return self.write(z)


class SentenceVAE(SentenceModel, LatentHead):
    """A VAE of sentences; it has `features`, `latent`, `latent_dim` and `write`."""

    def posterior(self, batch: Batch) -> Any:
        """Returns q(z|x), of batch['tokens'] [B, T] up to batch['length'] [B]."""
        return self.posterior_of(self.features(batch), batch)

    def prior(self, batch: Batch) -> Any:
        """Returns p(z), one for each row."""
        return self.latent_prior(batch)

    def generate(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns n sentences int32 [n, T], draws of p(x|z) at z from p(z).

        Args:
          key: one key, or [n] keys.
          n: how many.
          temperature: factor on the prior's standard deviation; tokens are drawn from
            p(x|z) as it is.
          label: must be None.
        """
        require(label is None, "label", "be None for a model without classes", label)
        z_key, word_key = keys.split_each(keys.per_example(key, n), 2)
        batch = {"tokens": jnp.zeros((n, 1), jnp.int32)}
        z = self.tempered_prior(batch, temperature).sample(z_key)
        return self.write(z, word_key)


class TextModel(SentenceModel):
    """Sentences that an LSTM writes token by token.

    Attributes:
      decoder: a `Decoder`.
      max_length: tokens after which a sentence that is written is cut off.
    """

    decoder: nn.Module
    max_length: int

    @property
    def vocabulary_size(self) -> int:
        """V, tokens."""
        return self.decoder.vocabulary_size

    @property
    def has_dropout(self) -> bool:
        """Whether there is dropout in training."""
        return self.decoder.dropout > 0.0

    def likelihood(self, z: Array, batch: Batch) -> Sentences:
        """Returns p(x|z), each token given those of batch['tokens'] before it.

        Args:
          z: [B, D].
          batch: 'tokens' [B, T] and 'length' [B].
        """
        logits = self.decoder(flat_code(z), batch["tokens"], self.dropout_keys())
        return Sentences(logits, batch["length"])

    def write(
        self, z: Array, key: Key | None = None, top_p: float | Array = 1.0
    ) -> Array:
        """Returns a sentence for each code z [B, D], int32 [B, max_length].

        What stands behind its end is END. Stops when all have ended.

        Args:
          z: [B, D].
          key: [B] keys of the tokens' draws; None takes the likeliest each time.
          top_p: draws are among the likeliest tokens that have this probability
            together (the nucleus; Holtzman et al., 2020,
            https://arxiv.org/abs/1904.09751).
        """
        z = flat_code(z)

        def unfinished(carry):
            step, _, _, previous = carry
            return (step < self.max_length) & ((step == 0) | jnp.any(previous != END))

        def body(carry):
            step, memory, tokens, previous = carry
            memory, logits = self.decoder.step(memory, z, previous)
            token = _choose(logits, key, step, top_p)
            token = jnp.where((step > 0) & (previous == END), END, token)
            tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, step, 1)
            return step + 1, memory, tokens, token

        rows = z.shape[0]
        tokens = jnp.full((rows, self.max_length), END, jnp.int32)
        start = jnp.full(rows, END, jnp.int32)
        carry = (0, self.decoder.initial_state(z), tokens, start)
        if self.is_initializing():
            return body(carry)[2]
        return jax.lax.while_loop(unfinished, body, carry)[2]


def flat_code(z: Array) -> Array:
    """Returns codes [B, D], one-hot vectors [B, D, K] one after another."""
    return z if z.ndim == 2 else z.reshape(z.shape[0], -1)


def _choose(logits: Array, key: Key | None, step: Array, top_p: float | Array) -> Array:
    """Returns a token of logits [B, V] for each row, int32 [B]."""
    if key is None:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    each = jax.vmap(lambda k: jax.random.fold_in(k, step))(key)
    tokens = jax.vmap(jax.random.categorical)(each, nucleus(logits, top_p))
    return tokens.astype(jnp.int32)


def nucleus(logits: Array, top_p: float | Array) -> Array:
    """Returns logits [B, V], -inf but for the likeliest that have `top_p` together.

    The likeliest always stays. At 1.0 all do, exactly: sums of probabilities round.
    """
    if isinstance(top_p, float) and top_p >= 1.0:
        return logits
    ranked = -jnp.sort(-logits, axis=-1)
    before = jnp.cumsum(jax.nn.softmax(ranked), axis=-1) - jax.nn.softmax(ranked)
    is_in = (before < top_p).at[:, 0].set(True)
    least = jnp.min(jnp.where(is_in, ranked, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)


class TextVAE(TextModel, SentenceVAE):
    """q(z|x) from the last state of an LSTM, p(x|z) an LSTM that sees z.

    The model of Bowman et al., 2016, https://arxiv.org/abs/1511.06349, in the form of
    Zhu et al., 2020, https://arxiv.org/abs/2004.12585.

    Attributes:
      latent_dim: D.
      embedding_dim: of the encoder's tokens.
      hidden: width of the encoder's LSTM.
      latent: an object of `jvae.models.latents`.
    """

    latent_dim: int
    embedding_dim: int
    hidden: int
    latent: Latent = GaussianLatent()

    def setup(self):
        """Adds the encoder."""
        self.embedding = nn.Embed(self.decoder.vocabulary_size, self.embedding_dim)
        self.encoder = Lstm(self.hidden)
        self.add_latent(use_bias=False)

    def features(self, batch: Batch) -> Array:
        """Returns the LSTM's last state of each sentence, [B, hidden]."""
        h = self.encoder(self.embedding(batch["tokens"]))
        last = jnp.maximum(batch["length"] - 1, 0)  # a blanked row has no token
        return jnp.take_along_axis(h, last[:, None, None], axis=1)[:, 0]


class LanguageModel(TextModel):
    """p(x) = prod_t p(x_t | x_1 ... x_t-1), an LSTM without latents: the baseline.

    Its ELBO is log p(x).
    """

    has_latents = False

    def infer(self, batch: Batch, key: Key) -> Inference:
        """Returns no latents, [B, 0], which cost nothing."""
        rows = batch_size(batch)
        zeros = jnp.zeros((rows, 1), float_dtype(self.variables))
        return Inference(zeros[:, :0], zeros, zeros[:, 0])

    def generate(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns n sentences int32 [n, max_length]; no temperature acts on them."""
        require(label is None, "label", "be None for a model without classes", label)
        return self.write(jnp.zeros((n, 0), jnp.float32), keys.per_example(key, n))


@registry.checked("model")
def text_vae(
    vocabulary_size: VocabularySize,
    latent_dim: PositiveInt = 32,
    embedding_dim: PositiveInt = 128,
    hidden: PositiveInt = 128,
    dropout: Fraction = 0.5,
    max_length: PositiveInt = 61,
    latent: str | Mapping[str, Any] = "gaussian",
) -> TextVAE:
    """Returns a sentence VAE with LSTM encoder and decoder.

    Args:
      vocabulary_size: tokens; at least as many as the data's vocabulary has.
      latent_dim: dimensions of z.
      embedding_dim: width of the embedding of a token, in encoder and decoder.
      hidden: width of the LSTMs.
      dropout: rate in the decoder, on embeddings and on what the LSTM shows.
      max_length: tokens after which a sentence that is written is cut off.
      latent: the kind of latents, a name or {'name': ..., fields}.

    Raises:
      ConfigError: a number out of range, or latents that do not fit.
    """
    decoder = Decoder(vocabulary_size, embedding_dim, hidden, dropout)
    built = latents.build(latent, latent_dim)
    return TextVAE(decoder, max_length, latent_dim, embedding_dim, hidden, built)


@registry.checked("model")
def language_model(
    vocabulary_size: VocabularySize,
    embedding_dim: PositiveInt = 128,
    hidden: PositiveInt = 128,
    dropout: Fraction = 0.5,
    max_length: PositiveInt = 61,
) -> LanguageModel:
    """Returns the decoder of `text_vae` without latents.

    Args:
      vocabulary_size: tokens; at least as many as the data's vocabulary has.
      embedding_dim: width of the embedding of a token.
      hidden: width of the LSTM.
      dropout: rate, on embeddings and on what the LSTM shows.
      max_length: tokens after which a sentence that is written is cut off.

    Raises:
      ConfigError: a number out of range.
    """
    decoder = Decoder(vocabulary_size, embedding_dim, hidden, dropout)
    return LanguageModel(decoder, max_length)
