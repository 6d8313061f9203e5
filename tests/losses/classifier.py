"""A model that scores labels, not images."""

import jax.numpy as jnp
from flax import linen as nn

from jvae import models
from jvae.distributions import Categorical, DiagGaussian
from jvae.layers import BatchNorm


class Classifier(models.SingleLatent, nn.Module):
    """Two latents that are linear in x, logits that are linear in z."""

    num_classes: int = 3
    has_norm: bool = False
    target = "label"

    def setup(self):
        self.encoder, self.decoder = nn.Dense(4), nn.Dense(self.num_classes)
        self.norm = BatchNorm()

    def posterior(self, batch):
        x = batch["image"]
        features = self.encoder(x.reshape(x.shape[0], -1))
        if self.has_norm:
            features = self.norm(features, batch.get("mask"))
        return DiagGaussian(*jnp.split(features, 2, axis=-1))

    def prior(self, batch):
        return DiagGaussian.standard(len(batch["image"]), 2)

    def likelihood(self, z, batch):
        return Categorical(self.decoder(z))

    def __call__(self, batch, key):
        return self.likelihood(self.infer(batch, key).latents, batch)
