"""Classifiers that see an image through a code: the information bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from jvae import registry
from jvae.contract import Model
from jvae.distributions import Categorical, DiagGaussian
from jvae.layers import ACTIVATIONS, Activation, compute_dtype
from jvae.models.latents import MAX_LOG_VAR, MIN_LOG_VAR
from jvae.models.mlp import MlpEncoder
from jvae.models.vae import SingleLatent, check_image, check_scaled
from jvae.ranges import ImageShape, PositiveInt, Widths
from jvae.types import Array, Batch, Inference, Key, at_least_float32, batch_size

_GLOROT = nn.initializers.glorot_uniform()


class Classifier(Model):
    """p(y|z) at a code z(x) without noise: the control of `BottleneckClassifier`.

    The layers are the same, but for the head's log variances. Its KL is 0 by
    convention: the information of such a code has no finite bound.

    Attributes:
      encoder: a module, (x [B, H, W, C], mask) -> features [B, F].
      hidden: widths of the layers from z to the logits, () for a linear map.
      activation: a key of `jvae.layers.ACTIVATIONS`, between those.
      latent_dim: D.
      image_shape: (H, W, C).
      num_classes: K, labels are 0 .. K - 1.
    """

    encoder: nn.Module
    hidden: Sequence[int]
    activation: str
    latent_dim: int
    image_shape: Sequence[int]
    num_classes: int

    target = "label"

    def setup(self):
        """Adds the layers around the code."""
        self.mean_head = nn.Dense(self.latent_dim, kernel_init=_GLOROT)
        widths = (*self.hidden, self.num_classes)
        self.decoder = [nn.Dense(w, kernel_init=_GLOROT) for w in widths]

    def features(self, batch: Batch) -> Array:
        """Returns the encoder's output [B, F] in float32 at least."""
        x = check_scaled(check_image(batch["image"], self.image_shape))
        return at_least_float32(self.encoder(x, batch.get("mask")))

    def code(self, batch: Batch) -> Array:
        """Returns the code [B, D] that a label is told from where nothing is drawn."""
        return self.mean_head(self.features(batch))

    def infer(self, batch: Batch, key: Key) -> Inference:
        """Returns the code, at no cost; nothing is drawn."""
        code = self.code(batch)
        nothing = jnp.zeros_like(code[:, 0])
        return Inference(code, nothing[:, None], nothing)

    def likelihood(self, latents: Array, batch: Batch) -> Categorical:
        """Returns p(y|z) for z [B, D]."""
        *layers, last = self.decoder
        z = latents
        for layer in layers:
            z = ACTIVATIONS[self.activation](layer(z))
        return Categorical(last(z))


class BottleneckClassifier(SingleLatent, Classifier):
    """q(z|x) = N(mean(x), diag var(x)), p(z) = N(0, I), p(y|z) from layers on z.

    Alemi et al., 2017, https://arxiv.org/abs/1612.00410.
    """

    def setup(self):
        """Adds the head of the log variances."""
        super().setup()
        self.log_var_head = nn.Dense(self.latent_dim, kernel_init=_GLOROT)

    def posterior(self, batch: Batch) -> DiagGaussian:
        """Returns q(z|x), [B, D]."""
        features = self.features(batch)
        log_var = jnp.clip(self.log_var_head(features), MIN_LOG_VAR, MAX_LOG_VAR)
        return DiagGaussian(self.mean_head(features), log_var)

    def prior(self, batch: Batch) -> DiagGaussian:
        """Returns N(0, I), [B, D]."""
        return DiagGaussian.standard(batch_size(batch), self.latent_dim)


@registry.checked("model")
def mlp_classifier(
    image_shape: ImageShape = (28, 28, 1),
    num_classes: PositiveInt = 10,
    latent_dim: PositiveInt = 256,
    hidden: Widths = (1024, 1024),
    decoder_hidden: Widths = (),
    activation: Activation = "relu",
    noise: bool = True,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Classifier:
    """Returns a classifier of images whose encoder is fully connected.

    Args:
      image_shape: height, width and channels of the data.
      num_classes: labels are 0 .. num_classes - 1.
      latent_dim: dimensions of the code that the label is told from.
      hidden: widths of the encoder's layers.
      decoder_hidden: widths of the layers from the code to the logits; () for a linear
        map.
      activation: nonlinearity between layers.
      noise: whether the code is a draw of q(z|x), for the information bottleneck, or
        a number, for an ordinary classifier of the same layers.
      dtype: of the encoder's computation; parameters and reductions stay float32.

    Raises:
      ConfigError: an impossible value.
    """
    kind = BottleneckClassifier if noise else Classifier
    return kind(
        encoder=MlpEncoder(tuple(hidden), activation, compute_dtype(dtype)),
        hidden=tuple(decoder_hidden),
        activation=activation,
        latent_dim=latent_dim,
        image_shape=tuple(image_shape),
        num_classes=num_classes,
    )
