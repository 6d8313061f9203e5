"""The variational autoencoder with one group of latents, and its conditional form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import keys
from jvae.contract import Model
from jvae.distributions import DiagGaussian, Distribution, as_distribution, kl_per_group
from jvae.errors import ConfigError, DataError, require
from jvae.flows import FlowPosterior, FlowPrior
from jvae.models import likelihoods
from jvae.models.latents import GaussianLatent, Latent
from jvae.types import Array, Batch, Inference, Key, at_least_float32, batch_size

if TYPE_CHECKING:
    Mixed = Model
else:  # no module, so that a model may name it before or after `nn.Module`
    Mixed = object


class SingleLatent(Mixed):
    """Gives `infer` to a model that has `posterior(batch)` and `prior(batch)`.

    Both return distribution objects: the posterior with `sample_and_log_prob(key)`,
    the prior with `log_prob(z)`; `kl_to` where there is a closed form. A posterior may
    have `sample_and_log_ratio(key, prior)` where that is more exact.
    """

    def infer(self, batch: Batch, key: Key) -> Inference:
        """Returns one draw z ~ q(z|x) per example, its KL and log q - log p.

        Args:
          batch: what `posterior` and `prior` read.
          key: one key, or [B] keys, one per example.
        """
        each = keys.per_example(key, batch_size(batch))
        return sample_and_kl(self.posterior(batch), self.prior(batch), each)


class LatentHead(SingleLatent, Model):
    """What models with a `latent` of `latent_dim` dimensions have in common."""

    if TYPE_CHECKING:  # fields of the models below, each in its place among others

        @property
        def latent(self) -> Latent: ...  # noqa: D102

        @property
        def latent_dim(self) -> int: ...  # noqa: D102

    def add_latent(self, **head: Any) -> None:
        """Adds the layers between features and q(z|x); for `setup`."""
        self.posterior_head = nn.Dense(self.latent.num_outputs(self.latent_dim), **head)
        self.normalise = self.latent.layer()
        self.posterior_flow, self.prior_flow = self.latent.flows(self.latent_dim)

    @property
    def coefficients(self) -> dict[str, float]:
        """What a trainer may anneal: the coefficients of `latent`."""
        return self.latent.coefficients

    @property
    def uniform_prior(self) -> bool:
        """Whether p(z) is uniform; then no temperature acts on samples."""
        return self.latent.uniform_prior

    def posterior_of(self, features: Array, batch: Batch) -> Any:
        """Returns q(z|x) of features [B, F]; of `batch` it reads the mask."""
        outputs = self.posterior_head(at_least_float32(features))
        if self.normalise is not None:
            outputs = self.normalise(outputs, batch.get("mask"))
        q = self.latent.posterior(outputs, self.annealed())
        if self.posterior_flow is None:
            return q
        return FlowPosterior.of(self.posterior_flow, q, self.latent.cond(outputs))

    def latent_prior(self, batch: Batch) -> Any:
        """Returns p(z) of `latent`, for each row of the batch."""
        rows, dim = batch_size(batch), self.latent_dim
        if self.prior_flow is None:
            return self.latent.prior(rows, dim, self.annealed())
        return FlowPrior.of(self.prior_flow, rows, (dim,))

    def tempered_prior(self, batch: Batch, temperature: float) -> Any:
        """Returns `prior`, its standard deviations times `temperature`.

        p(z)^(1/temperature^2), that is, which for a uniform prior is the prior itself.
        """
        prior = self.prior(batch)
        return prior if self.uniform_prior else prior.tempered(temperature)

    def interpolate(self, start: Array, end: Array, fraction: Array) -> Array:
        """Returns latents between two: on the line, on a sphere on the great circle.

        With a flow as prior, on the line of its codes.

        Args:
          start: [..., D] or [..., D, K].
          end: broadcasts against `start`.
          fraction: from 0 to 1; broadcasts against one coordinate of `start`.
        """
        if self.prior_flow is not None:
            prior = FlowPrior.of(self.prior_flow, 1, (self.latent_dim,))
            return prior.interpolate(start, end, fraction)
        return self.latent.interpolate(start, end, fraction)


def sample_and_kl(q: Any, p: Any, key: Key) -> Inference:
    """Returns a draw z ~ q per example, with KL(q || p) and log q(z) - log p(z).

    Args:
      q: posteriors of B examples.
      p: their priors.
      key: [B] keys.
    """
    z, log_ratio = as_distribution(q).sample_and_log_ratio(key, p)
    kl = kl_per_group(q, p)
    return Inference(z, log_ratio[:, None] if kl is None else kl, log_ratio)


class VAE(LatentHead):
    """q(z|x) and p(z) from `latent`, p(x|z) from a decoder.

    By default q(z|x) = N(mean(x), diag var(x)) and p(z) = N(0, I). With `num_classes`,
    p(z|y) = N(mean_y, I) with learned class means: neither encoder nor decoder sees the
    label, generation for class y draws around mean_y.

    Attributes:
      encoder: a module, (x [B, H, W, C], mask) -> features [B, F].
      decoder: a module, (z [B, D], mask) -> [B, H, W, observation.num_outputs(C)]; of
        a discrete z it gets [B, D K], the one-hot vectors one after another.
        Both get `batch.get('mask')`, [B] or None, for layers that couple rows.
      observation: a module of `jvae.models.likelihoods`: decoder outputs -> p(x|z),
        and how the encoder sees x.
      latent_dim: D, dimensions of z, or variables of a discrete z.
      image_shape: (H, W, C).
      num_classes: classes of the learned prior means, None for N(0, I).
      latent: an object of `jvae.models.latents`: features -> q(z|x), and p(z).

    Kingma & Welling, 2013, https://arxiv.org/abs/1312.6114.
    """

    encoder: nn.Module
    decoder: nn.Module
    observation: nn.Module
    latent_dim: int
    image_shape: Sequence[int]
    num_classes: int | None = None
    latent: Latent = GaussianLatent()

    target = "image"

    def setup(self):
        """Adds the layer that turns features into a posterior, and the class means."""
        glorot = nn.initializers.glorot_uniform()
        self.add_latent(kernel_init=glorot)
        if self.num_classes is not None:
            self.class_means = nn.Dense(self.latent_dim, kernel_init=glorot)

    def posterior(self, batch: Batch) -> Any:
        """Returns q(z|x), a distribution over [B, D], or [B, D, K] of discrete z."""
        x = check_image(batch["image"], self.image_shape)
        x = check_scaled(likelihoods.encoder_input(self.observation, x))
        features = self.encoder(x, batch.get("mask"))
        _check_shape("encoder", self.encoder, features, (x.shape[0], None))
        return self.posterior_of(features, batch)

    def prior(self, batch: Batch) -> Any:
        """Returns p(z), or p(z|y) with `batch['label']` [B] int or [B, K] one-hot."""
        if self.num_classes is None:
            return self.latent_prior(batch)
        if "label" not in batch:
            raise ConfigError(
                "label is missing for a conditional model",
                where="model.num_classes",
                fix="Give batch['label'], or set model.num_classes to None.",
            )
        mean = self.class_means(as_one_hot(batch["label"], self.num_classes))
        return DiagGaussian(mean, jnp.zeros_like(mean))

    def likelihood(self, latents: Array, batch: Batch) -> Distribution:
        """Returns p(x|z) for z [B, D] (or [B, D, K]); of `batch` the mask is read."""
        event_shape, shape = self.latent.event_shape(self.latent_dim), latents.shape
        rule = f"have shape [B, {_shape(event_shape)}]"
        require(shape[1:] == event_shape, "latents", rule, list(shape))
        flat = latents.reshape(latents.shape[0], -1)
        outputs = self.decoder(flat, batch.get("mask"))
        *size, channels = self.image_shape
        expected = (latents.shape[0], *size, self.observation.num_outputs(channels))
        _check_shape("decoder", self.decoder, outputs, expected)
        return self.observation(at_least_float32(outputs))

    def decode(self, z: Array) -> Array:
        """Returns the mean of p(x|z), [B, H, W, C]."""
        return self.likelihood(z, {}).mean

    def sample_prior(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns n latents from the prior, its std times `temperature`."""
        batch = {"mask": jnp.ones((n,), bool)}
        if self.num_classes is not None:
            if label is None:
                label = jnp.arange(n) % self.num_classes
            batch = {"label": label}
        return self.tempered_prior(batch, temperature).sample(key)

    def generate(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns the means of p(x|z) for n draws of the prior, [n, H, W, C].

        Args:
          key: one key, or [n] keys.
          n: number of images.
          temperature: factor on the prior's standard deviation; a uniform prior has
            none, and every temperature gives its samples.
          label: [n] classes of a conditional model; None takes them in turn.
        """
        return self.decode(self.sample_prior(key, n, temperature, label))


def as_one_hot(label: Array, num_classes: int) -> Array:
    """Returns [B, K] of classes [B] or of one-hots [B, K], in float32."""
    if label.ndim == 2:
        return label.astype(jnp.float32)
    return jax.nn.one_hot(label, num_classes, dtype=jnp.float32)


def check_image(image: Array, image_shape: Sequence[int]) -> Array:
    """Returns images [B, H, W, C]; ConfigError unless that is their shape."""
    rule = f"have shape [B, {_shape(image_shape)}]"
    require(image.shape[1:] == tuple(image_shape), "image", rule, list(image.shape))
    return image


def check_scaled(x: Array) -> Array:
    """Returns x as an encoder sees it; DataError if it is integers.

    An encoder would make some code of pixels 0..255 too, of no example it has learned.
    """
    if jnp.issubdtype(x.dtype, jnp.integer):
        fix = "Scale pixels, such as by 1/255, or use one of jvae.data.transforms."
        raise DataError(f"images must be floating or bool, got {x.dtype}", fix=fix)
    return x


def _shape(sizes: Sequence[int | str]) -> str:
    return ", ".join(str(s) for s in sizes)


def _check_shape(role: str, module: Any, value: Array, expected: tuple) -> None:
    """Raises ConfigError that names the module unless value has shape `expected`."""
    matches = len(value.shape) == len(expected) and all(
        w is None or w == g for w, g in zip(expected, value.shape, strict=True)
    )
    rule = f"return shape [{_shape(['F' if w is None else w for w in expected])}]"
    require(matches, f"{role} {type(module).__name__}", rule, list(value.shape))
