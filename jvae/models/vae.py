"""The variational autoencoder with one group of latents, and its conditional form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import keys
from jvae.distributions import DiagGaussian, Distribution, kl_per_group
from jvae.errors import ConfigError
from jvae.types import Array, Batch, Inference, Key, batch_size

MIN_LOG_VAR, MAX_LOG_VAR = -15.0, 10.0


class OneGroup:
    """Gives `infer` to a model that has `posterior(batch)` and `prior(batch)`.

    Both return distribution objects: the posterior with `sample_and_log_prob(key)`,
    the prior with `log_prob(z)`; `kl_to` where there is a closed form.
    """

    def infer(self: Any, batch: Batch, key: Key) -> Inference:
        """Returns one draw z ~ q(z|x) per example, its KL and log q - log p.

        Args:
          batch: what `posterior` and `prior` read.
          key: one key, or [B] keys, one per example.
        """
        q, p = self.posterior(batch), self.prior(batch)
        each = keys.per_example(key, batch_size(batch))
        z, log_q = q.sample_and_log_prob(each)
        log_ratio = log_q - p.log_prob(z)
        kl = kl_per_group(q, p)
        return Inference(z, log_ratio[:, None] if kl is None else kl, log_ratio)


class VAE(nn.Module, OneGroup):
    """q(z|x) = N(mean(x), diag var(x)), p(z) = N(0, I), p(x|z) from a decoder.

    With `num_classes`, p(z|y) = N(mean_y, I) with learned class means: neither encoder
    nor decoder sees the label, generation for class y draws around mean_y.

    Attributes:
      encoder: a module, (x [B, H, W, C], mask) -> features [B, F].
      decoder: a module, (z [B, D], mask) -> [B, H, W, observation.num_outputs(C)].
        Both get `batch.get('mask')`, [B] or None, for layers that couple rows.
      observation: a module of `jvae.models.likelihoods`: decoder outputs -> p(x|z),
        and how the encoder sees x.
      latent_dim: D.
      image_shape: (H, W, C).
      num_classes: classes of the learned prior means, None for N(0, I).

    Kingma & Welling, 2013, https://arxiv.org/abs/1312.6114.
    """

    encoder: nn.Module
    decoder: nn.Module
    observation: nn.Module
    latent_dim: int
    image_shape: Sequence[int]
    num_classes: int | None = None

    target = "image"

    def setup(self):
        """Adds the layer that turns features into a posterior, and the class means."""
        glorot = nn.initializers.glorot_uniform()
        self.posterior_head = nn.Dense(2 * self.latent_dim, kernel_init=glorot)
        if self.num_classes is not None:
            self.class_means = nn.Dense(self.latent_dim, kernel_init=glorot)

    def posterior(self, batch: Batch) -> DiagGaussian:
        """Returns q(z|x), [B, D], its log variance kept within [-15, 10]."""
        x = batch["image"]
        if x.shape[1:] != tuple(self.image_shape):
            raise ConfigError(
                f"image must have shape [B, {_shape(self.image_shape)}], "
                f"got {list(x.shape)}"
            )
        if hasattr(self.observation, "scaled"):  # integer levels would be large inputs
            x = self.observation.scaled(x)
        features = self.encoder(x, batch.get("mask"))
        _check_shape("encoder", self.encoder, features, (x.shape[0], None))
        head = self.posterior_head(features.astype(jnp.float32))
        mean, log_var = jnp.split(head, 2, axis=-1)
        return DiagGaussian(mean, jnp.clip(log_var, MIN_LOG_VAR, MAX_LOG_VAR))

    def prior(self, batch: Batch) -> Any:
        """Returns p(z), or p(z|y) with `batch['label']` [B] int or [B, K] one-hot."""
        if self.num_classes is None:
            return DiagGaussian.standard(batch_size(batch), self.latent_dim)
        if "label" not in batch:
            raise ConfigError(
                "label is missing for a conditional model",
                where="model.num_classes",
                fix="Give batch['label'], or set model.num_classes to None.",
            )
        label = batch["label"]
        if label.ndim == 1:
            label = jax.nn.one_hot(label, self.num_classes)
        mean = self.class_means(label.astype(jnp.float32))
        return DiagGaussian(mean, jnp.zeros_like(mean))

    def likelihood(self, latents: Array, batch: Batch) -> Distribution:
        """Returns p(x|z) for z [B, D]; of `batch` only the mask is read."""
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise ConfigError(
                f"latents must have shape [B, {self.latent_dim}], "
                f"got {list(latents.shape)}"
            )
        outputs = self.decoder(latents, batch.get("mask"))
        *size, channels = self.image_shape
        wanted = (latents.shape[0], *size, self.observation.num_outputs(channels))
        _check_shape("decoder", self.decoder, outputs, wanted)
        return self.observation(outputs.astype(jnp.float32))

    def __call__(self, batch: Batch, key: Key) -> Distribution:
        """Returns p(x|z) at one draw of z; what `init` traces."""
        return self.likelihood(self.infer(batch, key).latents, batch)

    def encode(self, x: Array) -> DiagGaussian:
        """Returns q(z|x) for images [B, H, W, C] in the likelihood's support."""
        return self.posterior({"image": x})

    def decode(self, z: Array) -> Array:
        """Returns the mean of p(x|z), [B, H, W, C]."""
        return self.likelihood(z, {}).mean

    def sample_prior(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns n latents [n, D] from the prior, its std times `temperature`."""
        batch = {"mask": jnp.ones((n,), bool)}
        if self.num_classes is not None:
            if label is None:
                label = jnp.arange(n) % self.num_classes
            batch = {"label": label}
        return self.prior(batch).tempered(temperature).sample(key)

    def generate(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns the means of p(x|z) for n draws of the prior, [n, H, W, C].

        Args:
          key: one key, or [n] keys.
          n: number of images.
          temperature: factor on the prior's standard deviation.
          label: [n] classes of a conditional model; None takes them in turn.
        """
        return self.decode(self.sample_prior(key, n, temperature, label))


def _shape(sizes: Sequence[int | str]) -> str:
    return ", ".join(str(s) for s in sizes)


def _check_shape(role: str, module: Any, value: Array, wanted: tuple) -> None:
    """Raises ConfigError that names the module unless value has shape `wanted`."""
    matches = len(value.shape) == len(wanted) and all(
        w is None or w == g for w, g in zip(wanted, value.shape, strict=True)
    )
    if not matches:
        text = ["F" if w is None else w for w in wanted]
        raise ConfigError(
            f"{role} {type(module).__name__} must return shape [{_shape(text)}], "
            f"got {list(value.shape)}"
        )


def flat_size(image_shape: Sequence[int]) -> int:
    """Returns H * W * C."""
    return math.prod(image_shape)
