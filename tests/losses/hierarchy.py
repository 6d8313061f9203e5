"""A hierarchy of two groups."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import keys, layers
from jvae.distributions import Bernoulli, DiagGaussian
from jvae.layers.spectral import power_iteration, power_start
from jvae.types import Inference


class TwoGroups(nn.Module):
    """The least that the objective reads: two groups, a convolution, a BatchNorm."""

    side: int = 4
    has_norm: bool = True
    target = "image"
    group_weights = (1.0, 2.0)

    def setup(self):
        self.conv, self.norm = layers.Conv(3), layers.BatchNorm()
        self.heads = [nn.Dense(4), nn.Dense(4)]
        self.decoder = nn.Dense(self.side**2)

    def infer(self, batch, key):
        x = self.conv(batch["image"])
        if self.has_norm:
            x = self.norm(x, batch.get("mask"))
        x = x.reshape(len(x), -1)
        each = keys.split_each(keys.per_example(key, len(x)), 2)
        prior = DiagGaussian.standard(len(x), 2)
        halves = [jnp.split(head(x), 2, axis=-1) for head in self.heads]
        q = [DiagGaussian(mean, jnp.tanh(log_var)) for mean, log_var in halves]
        z = [one.sample(k) for one, k in zip(q, each, strict=True)]
        kl = jnp.stack([one.kl_to(prior) for one in q], axis=-1)
        ratios = [a.log_prob(b) - prior.log_prob(b) for a, b in zip(q, z, strict=True)]
        return Inference(jnp.concatenate(z, -1), kl, ratios[0] + ratios[1])

    def likelihood(self, latents, batch):
        return Bernoulli(self.decoder(latents).reshape(-1, self.side, self.side, 1))

    def __call__(self, batch, key):
        likelihood = self.likelihood(self.infer(batch, key).latents, batch)
        if self.is_initializing():
            kernels = self.conv_kernels()
            start = power_start(jax.random.key(3), kernels)
            left = power_iteration(kernels, start, 20)[1]
            self.put_variable("spectral", "left", left)
        return likelihood

    def conv_kernels(self):
        kernel = self.variables["params"]["conv"]["kernel"]
        return {"conv": kernel.reshape(1, -1, 3).swapaxes(1, 2)}

    def norm_scales(self):
        if not self.has_norm:
            return {}
        scale = self.variables["params"]["norm"]["BatchNorm_0"]["scale"]
        return {"norm": scale[None] * jnp.float32([[1.0, -3.0, 2.0]])}
