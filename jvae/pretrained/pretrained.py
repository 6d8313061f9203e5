"""A trained model as a person uses it: encode, decode, sample, bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jvae.data import datasets
from jvae.data.sources import Source
from jvae.data.vocabulary import Vocabulary, split_sentence
from jvae.distributions import Distribution
from jvae.errors import ConfigError, require
from jvae.losses.iwae import sample_keys
from jvae.pretrained import interpolation, likelihood, predictions, samplers, samples
from jvae.pretrained.inputs import checked_input, checked_label
from jvae.pretrained.samplers.fit import training_codes
from jvae.pretrained.trained_model import TrainedModel
from jvae.types import Array, Key

NUM_CODES = 10_000
"""Training images whose codes a sampler is fitted to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained(TrainedModel):
    """A model with its parameters. Images are in the support of its likelihood.

    Methods that take images refuse values far outside it with a ConfigError, where they
    are known: not while a caller traces them.

    Attributes:
      model: the Flax module.
      params: its parameters, averaged or raw as asked for.
      state: its other collections.
      transform: from stored pixels to images, and from images to pictures in [0, 1].
      mesh: the devices that hold the parameters.
      vocabulary: of a model of sentences; None of others.
      config: what it was trained with, as in WORKDIR/config.json.
      step: updates it was trained for.
      samplers: the folder of what was fitted to its codes, see
        `jvae.pretrained.samplers`.
      sampled_at: the temperature that BatchNorm's statistics belong to, of a model from
        `jvae recalibrate`, which samples and bounds no likelihood; None of others.
    """

    config: dict[str, Any]
    step: int
    samplers: epath.Path | None = None
    sampled_at: float | None = None

    @property
    def trained(self) -> Pretrained:
        """The model itself; in 0.2.0 what `jvae.evaluation` looks at."""
        return self

    def tokenize(self, sentences: Sequence[str]) -> Array:
        """Returns the tokens of sentences, int32 [B, T], what other methods call x.

        Words that the vocabulary does not have become the token of unknown words.

        Args:
          sentences: written as in training: words between spaces, or, of a vocabulary
            of characters, these one after the other.

        Raises:
          ConfigError: the model is not one of sentences.
        """
        spelling = self._spelling
        words = [split_sentence(text, spelling.unit) for text in sentences]
        return jnp.asarray(spelling.encode(words)[0])

    def detokenize(self, tokens: Array) -> list[str]:
        """Returns the sentences that tokens [B, T] spell, each up to its end.

        Raises:
          ConfigError: the model is not one of sentences.
        """
        return self._spelling.decode(np.asarray(tokens))

    @property
    def _spelling(self) -> Vocabulary:
        if self.vocabulary is None:
            raise ConfigError(
                f"{self.name} has no vocabulary", fix="Train a model of sentences."
            )
        return self.vocabulary

    def encode(self, x: Array) -> Any:
        """Returns q(z|x), a distribution over [B, D], for images x [B, H, W, C].

        Over [B, D, K] one-hot vectors, where the latents are D variables of K values.
        """
        has_some = self.model.offers("encode") or self.model.offers("posterior")
        self.require(has_some, "has no codes")
        return self.call("encode", checked_input(self, x))

    def cluster(self, x: Array) -> Array:
        """Returns [B], the most probable cluster of each image at z = E q(z|x).

        Args:
          x: images [B, H, W, C].

        Raises:
          ConfigError: a model without clusters.
        """
        fix = "Train a model with model.clusters."
        self.require(predictions.has_clusters(self), "has no clusters", fix)
        return predictions.clusters_of(self, {"image": checked_input(self, x)})

    def classify(self, x: Array, key: Key | None = None, num_samples: int = 1) -> Array:
        """Returns p(y|z), [B, K], at the mean of q(z|x), or averaged over draws of z.

        Args:
          x: images [B, H, W, C].
          key: of the draws; None for the mean.
          num_samples: draws for each image, at least 1.

        Raises:
          ConfigError: a model that does not score labels.
        """
        fix = "Train a model whose target is 'label'."
        self.require(self.is_classifier, "is no classifier", fix)
        require(num_samples >= 1, "num_samples", "be at least 1", num_samples)
        draws = None if key is None else sample_keys(key, len(x), num_samples)
        return predictions.label_probs(self, {"image": checked_input(self, x)}, draws)

    def decode(self, z: Array) -> Array:
        """Returns the mean of p(x|z), [B, H, W, C], for latents as `encode` has."""
        self._require_decoder()
        return self.call("decode", z)

    def likelihood(self, z: Array, x: Array | None = None) -> Distribution:
        """Returns p(x|z), a distribution over [B, H, W, C].

        Args:
          z: latents as `encode` has.
          x: of a model of sentences these, whose tokens each depend on those before.

        Raises:
          ConfigError: a model of sentences is given none.
        """
        self._require_decoder()
        is_text = self.vocabulary is not None
        require(x is not None or not is_text, "x", "hold sentences", x)
        return self.call("likelihood", z, {} if x is None else self._batch(x, None))

    def reconstruct(self, x: Array, key: Key | None = None) -> Array:
        """Returns the mean of p(x|z) at the mode of q(z|x), or at a draw with a key.

        The mode of a Gaussian is its mean.
        """
        self._require_decoder()
        x = checked_input(self, x)
        if key is None:
            return samples.reconstructions(self, x, jax.random.key(0))
        return samples.reconstructions(self, x, key, mode="sample")

    def sample(
        self,
        key: Key,
        n: int,
        temperature: float = 1.0,
        label: Array | int | None = None,
        batch_size: int = samples.CHUNK,
        sampler: str | None = None,
    ) -> np.ndarray:
        """Returns the means of p(x|z) for n draws of z from the prior, [n, H, W, C].

        Args:
          key: of the draws; image i is the same whatever n and the batch size.
          n: number of images.
          temperature: factor on the prior's standard deviation; 0 decodes its mean.
            It does not act on a uniform prior.
          label: class or [n] classes of a conditional model, None takes all in turn;
            cluster or [n] clusters of a model with clusters, None draws them.
          batch_size: images decoded at once.
          sampler: the name of one that was fitted and saved (`jvae sample`),
            which draws z instead of the prior; None for the prior.

        Raises:
          ConfigError: a number out of range, a label that is no class of the model, or
            a sampler that was not fitted.
        """
        self._require_decoder()
        fitted = None
        if sampler is not None:
            require(label is None, "label", "be None with a sampler", label)
            require(self.samplers is not None, "sampler", "be None", sampler)
            fitted = samplers.load(sampler, self.samplers)
        return samples.prior_samples(
            self, key, n, temperature, label, chunk_size=batch_size, sampler=fitted
        )

    def sampler(self, name: str, train: Source | None = None) -> Any:
        """Returns a sampler of this checkpoint, fitted and saved unless it was before.

        Args:
          name: a key of `jvae.pretrained.samplers.SAMPLERS`.
          train: the training split; None to open the data set of the run.

        Raises:
          ConfigError: an unknown name, or a model whose codes none stands for.
          DataError: the training data is not there.
        """
        if self.samplers is None:
            raise ConfigError(
                "a model that was not restored has no folder for samplers"
            )
        if name in samplers.names(self.samplers):
            return samplers.load(name, self.samplers)
        if train is None:
            train = datasets.load_split(self.config["data"], "train", self.vocabulary)
        key = jax.random.key(0)
        codes = training_codes(self, train, key=key, num_examples=NUM_CODES)
        sampler = samplers.build(name, codes)
        samplers.save(sampler, name, self.samplers, {"codes": len(codes)})
        return sampler

    def resample_fine_scales(
        self, key: Key, n: int, num: int, num_kept: int, temperature: float = 1.0
    ) -> np.ndarray:
        """Returns n samples of a hierarchy, each with others of the same coarse scales.

        Args:
          key: of the draws.
          n: rows.
          num: images in a row, the first of which the others are varied from.
          num_kept: how many scales they share, the coarsest.
          temperature: factor on the prior's standard deviations.

        Returns:
          [n, num, H, W, C].

        Raises:
          ConfigError: a model without scales, or a number out of range.
        """
        return samples.resample_fine_scales(self, key, n, num, num_kept, temperature)

    def interpolate(self, a: Array, b: Array, n: int, spherical: bool = False) -> Array:
        """Returns [B, n, H, W, C], decoded between the modes of q(z|a) and q(z|b).

        On the straight line, on a sphere on the great circle; of one-hot codes on the
        line between them, of a hierarchy on arcs of its `code`. The first and the last
        are the reconstructions of a and b.

        Args:
          a: images [B, H, W, C].
          b: as many images.
          n: points on the path, ends included, at least 2.
          spherical: whether to go along the arc that keeps the distance to 0, of codes
            that are vectors.

        Raises:
          ConfigError: a and b differ in shape, n < 2, or codes without arcs.
        """
        self._require_decoder()
        a, b = checked_input(self, a), checked_input(self, b)
        if self.vocabulary is not None:  # filled up to one width
            width = max(a.shape[1], b.shape[1])
            a, b = (jnp.pad(s, ((0, 0), (0, width - s.shape[1]))) for s in (a, b))
        return interpolation.interpolate(self, a, b, n, spherical)

    def interpolation_grid(self, x: Array, n: int) -> Array:
        """Returns [n, n, H, W, C], decoded between the modes of q(z|x) of four images.

        As `interpolate`, along two sides and then from one to the other.

        Args:
          x: four images [4, H, W, C], of the corners row by row.
          n: points on a side, at least 2.

        Raises:
          ConfigError: another number of images, or n < 2.
        """
        self._require_decoder()
        return interpolation.interpolation_grid(self, checked_input(self, x), n)

    def _require_decoder(self) -> None:
        """Raises ConfigError for a model that has no p(x|z)."""
        lack = "has no p(x|z): it makes no images and bounds no likelihood"
        self.require(self.is_generative, lack, "Use `encode`, or a VAE.")

    def require_statistics_of_data(self) -> None:
        """Raises ConfigError for a model whose statistics are those of samples."""
        if self.sampled_at is not None:
            raise ConfigError(
                f"the statistics of this model are those of samples at temperature "
                f"{self.sampled_at:g}, so it bounds no likelihood",
                fix="Evaluate the run that `jvae recalibrate` was given.",
            )

    def _batch(self, x: Array, label: Array | None) -> dict[str, Array]:
        x = checked_input(self, x)
        if label is None:
            return self.model.as_batch(x)
        if not isinstance(label, jax.core.Tracer):
            label = jnp.asarray(checked_label(label, len(x), self.model.num_classes))
        return {"image": x, "label": label}

    def elbo(self, x: Array, key: Key, label: Array | None = None) -> Array:
        """Returns [B], one draw of each image's bound on log p(x), in nats.

        Of a conditional model the bound is one on log p(x|y), y the label.
        """
        self._require_decoder()
        self.require_statistics_of_data()
        return likelihood.elbo_per_example(self, key, self._batch(x, label))["elbo"]

    def log_likelihood(
        self,
        x: Array,
        key: Key,
        num_samples: int,
        label: Array | None = None,
        chunk_size: int = 100,
    ) -> Array:
        """Returns [B], importance-weighted estimates of log p(x) in nats.

        A lower bound in expectation, tighter with more samples; of a conditional model
        on log p(x|y), y the label.

        Args:
          x: images [B, H, W, C].
          key: image i uses key i of `split(key, B)`.
          num_samples: draws per image.
          label: [B] classes of a conditional model.
          chunk_size: draws decoded at once; changes nothing but memory.
        """
        self._require_decoder()
        self.require_statistics_of_data()
        batch, counts = self._batch(x, label), (num_samples, chunk_size)
        return likelihood.log_likelihood_per_example(self, key, batch, *counts)
