"""VAEs of fully connected layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from flax import linen as nn

from jvae import registry
from jvae.layers import ACTIVATIONS, Activation, compute_dtype
from jvae.models import latents, likelihoods
from jvae.models.cluster import autoencoder
from jvae.models.vae import VAE
from jvae.ranges import ImageShape, PositiveInt, Widths
from jvae.types import Array

_GLOROT = nn.initializers.glorot_uniform()


class MlpEncoder(nn.Module):
    """x [B, ...] -> features [B, hidden[-1]].

    Attributes:
      hidden: widths of the layers.
      activation: a key of `jvae.layers.ACTIVATIONS`.
      dtype: of the computation; None for that of input and parameters.
    """

    hidden: Sequence[int]
    activation: str = "relu"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Returns the last layer's activations; `mask` is not read."""
        x = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            x = nn.Dense(width, dtype=self.dtype, kernel_init=_GLOROT)(x)
            x = ACTIVATIONS[self.activation](x)
        return x


class MlpDecoder(nn.Module):
    """z [B, D] -> [B, *output_shape].

    Attributes:
      hidden: widths of the layers.
      output_shape: (H, W, outputs per pixel).
      activation: a key of `jvae.layers.ACTIVATIONS`.
      dtype: of the computation; None for that of input and parameters.
    """

    hidden: Sequence[int]
    output_shape: Sequence[int]
    activation: str = "relu"
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array, mask: Array | None = None) -> Array:
        """Returns the observation model's inputs, linear; `mask` is not read."""
        h = MlpEncoder(self.hidden, self.activation, self.dtype, name="layers")(z)
        size = math.prod(self.output_shape)
        outputs = nn.Dense(size, dtype=self.dtype, kernel_init=_GLOROT, name="output")
        return outputs(h).reshape(z.shape[0], *self.output_shape)


@registry.checked("model")
def mlp(
    image_shape: ImageShape = (28, 28, 1),
    latent_dim: PositiveInt = 16,
    hidden: Widths = (512,),
    activation: Activation = "relu",
    likelihood: str | Mapping[str, Any] = "bernoulli",
    num_classes: PositiveInt | None = None,
    latent: str | Mapping[str, Any] = "gaussian",
    clusters: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> VAE:
    """Returns a VAE whose encoder and decoder are fully connected.

    Args:
      image_shape: height, width and channels of the data.
      latent_dim: number of latent dimensions, or of categorical variables.
      hidden: widths of the encoder's layers; the decoder's are the same, reversed.
      activation: nonlinearity between layers.
      likelihood: observation model p(x|z): a name, or {'name': ..., its fields}.
      num_classes: classes of a conditional VAE with learned class-mean priors; None
        for a prior N(0, I).
      latent: kind of latents, 'gaussian', 'gumbel_softmax' or 'von_mises_fisher': a
        name, or {'name': ..., its fields}.
      clusters: {'num_clusters': K, ...}, fields of `jvae.models.cluster.clusters`, for
        a VAE that clusters; None for none.
      dtype: of the layers' computation; parameters and reductions stay float32.

    Raises:
      ConfigError: an impossible value.
    """
    observation = likelihoods.build(likelihood)
    *size, channels = image_shape
    outputs = (*size, observation.num_outputs(channels))
    compute = compute_dtype(dtype)
    return autoencoder(
        clusters,
        encoder=MlpEncoder(tuple(hidden), activation, compute),
        decoder=MlpDecoder(tuple(hidden)[::-1], outputs, activation, compute),
        observation=observation,
        latent_dim=latent_dim,
        image_shape=tuple(image_shape),
        num_classes=num_classes,
        latent=latents.build(latent, latent_dim, num_classes),
    )
