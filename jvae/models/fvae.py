"""f-VAEs: a VAE whose codes are as large as the image, with a flow as their prior.

    v = E(x) + s1 u,  u ~ N(0, I)        the posterior, one s1 for all dimensions
    p(v) = N(F(v); 0, I) |det F'(v)|     the prior, a flow F
    p(x|v) = N(x; G(v), s2^2)            the decoder, one s2

With E = G = id and s1 = s2 the negative ELBO is, draw by draw, the flow's -log p(x + s1
u): a flow of noisy images. With F = id it is a VAE. In the place of z = F(v) the
decoder reads v, so that F is inverted for samples alone.

Su & Wu, 2018, https://arxiv.org/abs/1809.05861.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jvae import keys, registry
from jvae.distributions import DiagGaussian
from jvae.errors import require
from jvae.flows import FlowPrior, Glow
from jvae.flows.coupling import Kind
from jvae.flows.glow import Mixing
from jvae.flows.squeeze import check_squeezes
from jvae.flows.steps import Remat
from jvae.layers import BatchNorm, Conv, Dense, depth_to_space, space_to_depth
from jvae.models import likelihoods
from jvae.models.vae import VAE, check_image, check_scaled
from jvae.ranges import ImageShape, PositiveFloat, PositiveInt
from jvae.types import Array, Batch, Key, batch_size

LIKELIHOOD = MappingProxyType(
    {"name": "gaussian", "variance": "shared", "std": 0.1, "min_std": 1e-3}
)
"""The post's, its s2 starting at a tenth of the range of the pixels.

Its floor is a quarter of a level of 8 bits, as uniform noise has 0.29: it binds only
where pixels are known to less than a level.
"""


class ResidualStep(nn.Module):
    """x + a 3x3 and a 1x1 convolution of it, the last of which begins at zero.

    Attributes:
      hidden: channels between them; None for as many as x has.
      batch_norm: whether a BatchNorm follows the first.
    """

    hidden: int | None
    batch_norm: bool = True

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Returns [B, H, W, C]; `mask` [B] is for BatchNorm."""
        width, start = self.hidden or x.shape[-1], nn.initializers.he_normal()
        y = Conv(width, 3, kernel_init=start)(x)
        if self.batch_norm:
            y = BatchNorm()(y, mask)
        last = Dense(x.shape[-1], kernel_init=nn.initializers.zeros)
        return x + last(nn.relu(y))


class SqueezeEncoder(nn.Module):
    """x [B, H, W, C] -> E(x) [B, D], D = H W C: squeezes and residual steps.

    It begins as the squeezes alone.

    Attributes:
      levels: squeezes.
      blocks: residual steps after each.
      hidden: channels within them; None for the map's.
      batch_norm: whether they have a BatchNorm.
    """

    levels: int
    blocks: int
    hidden: int | None = None
    batch_norm: bool = True

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Returns E(x), row by row of the last map."""
        for _ in range(self.levels):
            x = space_to_depth(x)
            for _ in range(self.blocks):
                x = ResidualStep(self.hidden, self.batch_norm)(x, mask)
        return x.reshape(x.shape[0], -1)


class SqueezeDecoder(nn.Module):
    """v [B, D] -> G(v) [B, H, W, outputs]: the encoder's mirror image.

    Attributes:
      shape: (h, w, c) of v as a map.
      levels: times that the map is unfolded.
      blocks: residual steps before each.
      hidden: channels within them; None for the map's.
      batch_norm: whether they have a BatchNorm.
    """

    shape: tuple[int, int, int]
    levels: int
    blocks: int
    hidden: int | None = None
    batch_norm: bool = True

    @nn.compact
    def __call__(self, z: Array, mask: Array | None = None) -> Array:
        """Returns G(v)."""
        x = z.reshape(z.shape[0], *self.shape)
        for _ in range(self.levels):
            for _ in range(self.blocks):
                x = ResidualStep(self.hidden, self.batch_norm)(x, mask)
            x = depth_to_space(x)
        return x


class FlowVAE(VAE, kw_only=True):
    """q(v|x) = N(E(x), s1^2 I), p(v) a flow, p(x|v) from a decoder; see above.

    Attributes:
      flow: a bijection of maps [B, h, w, c] and codes [B, D].
      flow_shape: (h, w, c) of v as a map.
      posterior_std: s1 at the start; it is learned.
    """

    flow: Glow
    flow_shape: tuple[int, int, int]
    posterior_std: float = 0.1

    num_init_examples = 256

    def setup(self):
        """Adds log s1."""
        start = nn.initializers.constant(math.log(self.posterior_std))
        self.log_std = self.param("log_std", start, (), jnp.float32)

    def posterior(self, batch: Batch) -> DiagGaussian:
        """Returns q(v|x), [B, D]."""
        x = check_scaled(check_image(batch["image"], self.image_shape))
        mean = self.encoder(x, batch.get("mask"))
        return DiagGaussian(mean, jnp.full_like(mean, 2.0 * self.log_std))

    def prior(self, batch: Batch) -> FlowPrior:
        """Returns p(v), one for each row of the batch."""
        return FlowPrior.of(self.flow, batch_size(batch), self.flow_shape)

    def interpolate(self, start: Array, end: Array, fraction: Array) -> Array:
        """Returns codes v on the line between F(start) and F(end)."""
        prior = FlowPrior.of(self.flow, 1, self.flow_shape)
        return prior.interpolate(start, end, fraction)

    def data_dependent_init(self, batch: Batch, key: Key) -> None:
        """Sets the flow's actnorms by draws of v.

        Args:
          batch: what `posterior` reads.
          key: one key.
        """
        v = self.posterior(batch).sample(keys.per_example(key, batch_size(batch)))
        self.flow.data_dependent_init(v.reshape(-1, *self.flow_shape))


@registry.checked("model")
def fvae(
    image_shape: ImageShape,
    levels: PositiveInt = 2,
    blocks: PositiveInt = 2,
    block_hidden: PositiveInt | None = None,
    batch_norm: bool = True,
    flow_levels: PositiveInt = 3,
    depth: PositiveInt = 8,
    hidden: PositiveInt = 64,
    coupling: Kind = "additive",
    mixing: Mixing = "permutation",
    remat: Remat = "couplings",
    posterior_std: PositiveFloat = 0.1,
    likelihood: str | Mapping[str, Any] = LIKELIHOOD,
) -> FlowVAE:
    """Returns an f-VAE, its flow a Glow without the first squeeze (Su & Wu, 2018).

    Args:
      image_shape: (H, W, C); H and W multiples of 2^(levels + flow_levels - 1).
      levels: squeezes of the encoder, and of the decoder back.
      blocks: residual steps after each.
      block_hidden: channels within them; None for the map's, as in the post.
      batch_norm: whether they have a BatchNorm.
      flow_levels: levels of the flow; the first does not squeeze.
      depth: steps of each.
      hidden: channels within the couplings' networks.
      coupling: 'additive' or 'affine'.
      mixing: of channels, a fixed 'permutation' or an invertible 1x1 'convolution'.
      remat: activations that the gradient recomputes, as of `glow`.
      posterior_std: of q(v|x) at the start, in units of the pixels.
      likelihood: observation model p(x|v) with one output a pixel: a name, or
        {'name': ..., its fields}; by default the post's.

    Raises:
      ConfigError: a number out of range, an image that cannot be squeezed so often, or
        a likelihood that needs more outputs.
    """
    height, width, channels = image_shape
    check_squeezes((height, width), levels + flow_levels - 1)

    observation = likelihoods.build(likelihood)
    outputs = observation.num_outputs(channels)
    rule = f"need the {channels} outputs a pixel that the decoder has"
    require(outputs == channels, "model.likelihood", rule, outputs)

    fold = 2**levels
    shape = (height // fold, width // fold, channels * fold**2)

    return FlowVAE(
        encoder=SqueezeEncoder(levels, blocks, block_hidden, batch_norm),
        decoder=SqueezeDecoder(shape, levels, blocks, block_hidden, batch_norm),
        observation=observation,
        latent_dim=math.prod(image_shape),
        image_shape=tuple(image_shape),
        flow=Glow(
            shape,
            flow_levels,
            depth,
            hidden,
            coupling,
            mixing,
            squeeze_first=False,
            remat=remat,
        ),
        flow_shape=shape,
        posterior_std=posterior_std,
    )
