"""Encoders without a decoder, and the critics that tell true pairs from false ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn

from jvae import keys, registry
from jvae.contract import Model
from jvae.distributions import DiagGaussian
from jvae.errors import require
from jvae.layers import Activation, compute_dtype
from jvae.models.conv import ConvEncoder, Downsampling, Pooling
from jvae.models.latents import GaussianLatent
from jvae.models.vae import SingleLatent, check_image, check_scaled, sample_and_kl
from jvae.ranges import ImageShape, PositiveInt, SomeWidths, Widths
from jvae.types import Array, Batch, Key, Views, at_least_float32, batch_size

GlobalView = Literal["features", "code"]
CriticKind = Literal["joint", "dot"]

_GLOROT = nn.initializers.glorot_uniform()


class JointCritic(nn.Module):
    """(a [..., F], b [..., D]) -> scores [...]: layers on the two side by side.

    Attributes:
      hidden: widths of the layers, relu after each; at least one.
    """

    hidden: Sequence[int]

    @nn.compact
    def __call__(self, a: Array, b: Array) -> Array:
        """Returns the logits that a and b belong together; they broadcast."""
        width, *others = self.hidden
        # The first layer on [a, b] in two parts: what each gives is computed once.
        of_a = nn.Dense(width, kernel_init=_GLOROT)(a)
        of_b = nn.Dense(width, use_bias=False, kernel_init=_GLOROT)(b)
        shape = jnp.broadcast_shapes(of_a.shape, of_b.shape)
        x = nn.relu(jnp.broadcast_to(of_a, shape) + jnp.broadcast_to(of_b, shape))
        for width in others:
            x = nn.relu(nn.Dense(width, kernel_init=_GLOROT)(x))
        return nn.Dense(1, kernel_init=_GLOROT)(x)[..., 0]


class DotCritic(nn.Module):
    """(a [..., F], b [..., D]) -> scores [...]: f(a) . g(b) / sqrt(width).

    Attributes:
      hidden: widths of the layers of f and of g, relu between them; at least one.
    """

    hidden: Sequence[int]

    @nn.compact
    def __call__(self, a: Array, b: Array) -> Array:
        """Returns the logits that a and b belong together; they broadcast."""
        *others, last = self.hidden
        ends = []
        for x in (a, b):
            for width in others:
                x = nn.relu(nn.Dense(width, kernel_init=_GLOROT)(x))
            ends.append(nn.Dense(last, kernel_init=_GLOROT)(x))
        return jnp.einsum("...f,...f->...", *ends) / math.sqrt(last)


CRITICS = {"joint": JointCritic, "dot": DotCritic}


class InfoMaxEncoder(SingleLatent, Model):
    """q(z|x) = N(mean(x), diag var(x)), p(z) = N(0, I), and critics of pairs.

    Hjelm et al., 2019, https://arxiv.org/abs/1808.06670; Su, 2018,
    https://kexue.fm/archives/6024.

    Attributes:
      encoder: a module with `map_and_features(x [B, H, W, C], mask) ->
        (map [B, h, w, C], features [B, F])`.
      critic: a key of `CRITICS`.
      critic_hidden: widths of both critics' layers.
      global_view: what the global critic sees of x: its 'features', or the drawn
        'code' itself, of which a true pair is two copies.
      latent_dim: D.
      image_shape: (H, W, C).
    """

    encoder: nn.Module
    critic: str
    critic_hidden: Sequence[int]
    global_view: GlobalView
    latent_dim: int
    image_shape: Sequence[int]

    def setup(self):
        """Adds the heads of q(z|x) and the critics."""
        self.posterior_head = nn.Dense(2 * self.latent_dim, kernel_init=_GLOROT)
        critic = CRITICS[self.critic]
        self.global_critic = critic(tuple(self.critic_hidden))
        self.local_critic = critic(tuple(self.critic_hidden))

    def _map_and_features(self, batch: Batch) -> tuple[Array, Array]:
        x = check_scaled(check_image(batch["image"], self.image_shape))
        outputs = self.encoder.map_and_features(x, batch.get("mask"))
        local, features = map(at_least_float32, outputs)
        return local, features

    def _posterior(self, features: Array, batch: Batch) -> DiagGaussian:
        return GaussianLatent().posterior(self.posterior_head(features), batch)

    def posterior(self, batch: Batch) -> DiagGaussian:
        """Returns q(z|x), [B, D]."""
        return self._posterior(self._map_and_features(batch)[1], batch)

    def prior(self, batch: Batch) -> DiagGaussian:
        """Returns N(0, I), [B, D]."""
        return DiagGaussian.standard(batch_size(batch), self.latent_dim)

    def views(self, batch: Batch, key: Key) -> Views:
        """Returns a draw of each code, and what the critics see of each x.

        Args:
          batch: 'image' [B, H, W, C].
          key: one key, or [B] keys, one per example.
        """
        local, features = self._map_and_features(batch)
        each = keys.per_example(key, batch_size(batch))
        q, p = self._posterior(features, batch), self.prior(batch)
        inference = sample_and_kl(q, p, each)
        vector = inference.latents if self.global_view == "code" else features
        return Views(inference, vector, local)

    def global_scores(self, vector: Array, z: Array) -> Array:
        """Returns logits that a view of the whole is of the x of z, [N, B] or [B].

        Args:
          vector: [B, F], or [1, B, F] for N codes of each.
          z: [B, D] or [N, B, D].
        """
        return self.global_critic(vector, z)

    def local_scores(self, local: Array, z: Array) -> Array:
        """Returns logits that places are of the x of z, [N, B, h, w] or [B, h, w].

        Args:
          local: [B, h, w, C], or [1, B, h, w, C] for N codes of each.
          z: [B, D] or [N, B, D].
        """
        return self.local_critic(local, z[..., None, None, :])

    def __call__(self, batch: Batch, key: Key) -> tuple[Array, Array]:
        """Returns the scores of true pairs; what `init` traces."""
        views = self.views(batch, key)
        z = views.inference.latents
        return self.global_scores(views.vector, z), self.local_scores(views.map, z)


@registry.checked("model")
def infomax(
    image_shape: ImageShape = (32, 32, 3),
    latent_dim: PositiveInt = 256,
    channels: SomeWidths = (64, 128, 256),
    top_channels: Widths = (256, 256),
    kernel_size: PositiveInt = 3,
    convs_per_level: PositiveInt = 1,
    downsampling: Downsampling = "max_pool",
    pooling: Pooling = "max",
    batch_norm: bool = True,
    activation: Activation = "leaky_relu",
    critic: CriticKind = "joint",
    critic_hidden: SomeWidths = (256, 256, 256),
    global_view: GlobalView = "features",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> InfoMaxEncoder:
    """Returns a convolutional encoder without a decoder, for the objective 'infomax'.

    Args:
      image_shape: height, width and channels of the data.
      latent_dim: dimensions of the code.
      channels: of the levels, each of which halves the image; the local critic sees
        what the last one gives.
      top_channels: of convolutions after them, which keep the size.
      kernel_size: height and width of every kernel.
      convs_per_level: convolutions at every size.
      downsampling: what halves the image, the 'stride' of a level's first convolution
        or 'max_pool' after its last, which rounds down.
      pooling: 'flatten', 'mean' or 'max', how the last feature map becomes a vector.
      batch_norm: whether a BatchNorm follows every convolution.
      activation: nonlinearity of the encoder.
      critic: 'joint', layers on a view and a code side by side (Su), or 'dot', the dot
        product of what layers make of each (Hjelm et al.).
      critic_hidden: widths of the critics' layers.
      global_view: what the global critic sees of x: its 'features', or 'code', the
        drawn z itself, as the reference does (docs/infomax.md says why not).
      dtype: of the encoder's computation; parameters and reductions stay float32.

    Raises:
      ConfigError: an impossible value, or an image too small for its levels.
    """
    smallest = min(image_shape[:2]) // 2 ** len(channels)
    rule = f"be at least {2 ** len(channels)} high and wide for its levels"
    require(smallest >= 1, "model.image_shape", rule, tuple(image_shape))

    encoder = ConvEncoder(
        channels=tuple(channels),
        top_channels=tuple(top_channels),
        kernel_size=kernel_size,
        convs_per_level=convs_per_level,
        downsampling=downsampling,
        pooling=pooling,
        batch_norm=batch_norm,
        activation=activation,
        dtype=compute_dtype(dtype),
    )

    return InfoMaxEncoder(
        encoder,
        critic,
        tuple(critic_hidden),
        global_view,
        latent_dim,
        tuple(image_shape),
    )
