"""VAEs of convolutions: each encoder layer halves the image, the decoder doubles it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from flax import linen as nn

from jvae import registry
from jvae.errors import ConfigError, require
from jvae.layers import (
    ACTIVATIONS,
    Activation,
    BatchNorm,
    Conv,
    ConvTranspose,
    compute_dtype,
)
from jvae.models import latents, likelihoods
from jvae.models.cluster import autoencoder
from jvae.models.vae import VAE
from jvae.ranges import ImageShape, PositiveInt, SomeWidths, Widths
from jvae.types import Array

Pooling = Literal["flatten", "mean", "max"]
Downsampling = Literal["stride", "max_pool"]

_GLOROT = nn.initializers.glorot_uniform()
_POOLING: dict[str, Callable[[Array], Array]] = {
    "flatten": lambda x: x.reshape(x.shape[0], -1),
    "mean": lambda x: x.mean((1, 2)),
    "max": lambda x: x.max((1, 2)),
}


class ConvEncoder(nn.Module):
    """x [B, H, W, C] -> features [B, F]: convolutions that halve it, dense layers.

    Attributes:
      channels: of the levels, each of which halves the image.
      kernel_size: of the convolutions.
      hidden: widths of the dense layers after them, () for none.
      pooling: 'flatten', 'mean' or 'max', from the last feature map to a vector.
      convs_per_level: convolutions of the same width in a level.
      downsampling: what halves: the 'stride' of a level's first convolution, or
        'max_pool' after its last, which rounds down.
      top_channels: of convolutions after the levels, which keep the size.
      batch_norm: whether a BatchNorm follows every convolution.
      activation: a key of `jvae.layers.ACTIVATIONS`.
      dtype: of the computation; None for that of input and parameters.
    """

    channels: Sequence[int]
    kernel_size: int = 3
    hidden: Sequence[int] = ()
    pooling: str = "flatten"
    convs_per_level: int = 1
    downsampling: str = "stride"
    top_channels: Sequence[int] = ()
    batch_norm: bool = False
    activation: str = "relu"
    dtype: Any = None

    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        """Returns the features; `mask` [B] is for BatchNorm."""
        return self.map_and_features(x, mask)[1]

    @nn.compact
    def map_and_features(
        self, x: Array, mask: Array | None = None
    ) -> tuple[Array, Array]:
        """Returns (the feature map after the levels [B, h, w, C], the features)."""
        activation = ACTIVATIONS[self.activation]

        def convolve(x, width, stride=1):
            x = Conv(width, self.kernel_size, stride=stride, dtype=self.dtype)(x)
            if self.batch_norm:
                x = BatchNorm(dtype=self.dtype)(x, mask)
            return activation(x)

        pools = self.downsampling == "max_pool"
        for width in self.channels:
            x = convolve(x, width, stride=1 if pools else 2)
            for _ in range(self.convs_per_level - 1):
                x = convolve(x, width)
            if pools:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
        after_levels = x
        for width in self.top_channels:
            x = convolve(x, width)
        x = _POOLING[self.pooling](x)
        for width in self.hidden:
            x = activation(nn.Dense(width, dtype=self.dtype, kernel_init=_GLOROT)(x))
        return after_levels, x


class ConvDecoder(nn.Module):
    """z [B, D] -> [B, *output_shape]: dense, then stride-2 transposed convolutions.

    The last layer has no activation; it doubles the image if `channels` has one entry
    less than there are doublings, else it keeps its size.

    Attributes:
      channels: of the transposed convolutions before the last layer.
      start_shape: height, width and channels of the first feature map.
      output_shape: (H, W, outputs per pixel).
      kernel_size: of the convolutions.
      hidden: widths of dense layers before the first feature map.
      start_activation: whether an activation follows the first feature map.
      convs_per_level: convolutions of the same width in a level, all but the last of
        stride 1.
      batch_norm: whether a BatchNorm follows every convolution but the last.
      activation: a key of `jvae.layers.ACTIVATIONS`.
      dtype: of the computation; None for that of input and parameters.
    """

    channels: Sequence[int]
    start_shape: Sequence[int]
    output_shape: Sequence[int]
    kernel_size: int = 3
    hidden: Sequence[int] = ()
    start_activation: bool = True
    convs_per_level: int = 1
    batch_norm: bool = False
    activation: str = "relu"
    dtype: Any = None

    @nn.compact
    def __call__(self, z: Array, mask: Array | None = None) -> Array:
        """Returns the observation model's inputs, linear; `mask` is for BatchNorm."""
        activation = ACTIVATIONS[self.activation]
        h, w, c = self.start_shape
        x = z

        for width in self.hidden:
            x = activation(nn.Dense(width, dtype=self.dtype, kernel_init=_GLOROT)(x))
        x = nn.Dense(h * w * c, dtype=self.dtype, kernel_init=_GLOROT)(x)
        x = x.reshape(z.shape[0], h, w, c)
        if self.start_activation:
            x = activation(x)

        layers = (*(Conv,) * (self.convs_per_level - 1), ConvTranspose)
        for width, layer in itertools.product(self.channels, layers):
            x = layer(width, self.kernel_size, dtype=self.dtype)(x)
            if self.batch_norm:
                x = BatchNorm(dtype=self.dtype)(x, mask)
            x = activation(x)

        last = Conv if x.shape[1] == self.output_shape[0] else ConvTranspose
        outputs = last(
            self.output_shape[-1], self.kernel_size, dtype=self.dtype, name="output"
        )
        return outputs(x)


@registry.checked("model")
def conv(
    image_shape: ImageShape = (28, 28, 1),
    latent_dim: PositiveInt = 16,
    channels: SomeWidths = (32, 64),
    decoder_channels: Widths | None = None,
    kernel_size: PositiveInt = 3,
    hidden: Widths = (),
    decoder_hidden: Widths = (),
    pooling: Pooling = "flatten",
    convs_per_level: PositiveInt = 1,
    downsampling: Downsampling = "stride",
    top_channels: Widths = (),
    batch_norm: bool = False,
    activation: Activation = "relu",
    decoder_activation: Activation | None = None,
    start_activation: bool = True,
    likelihood: str | Mapping[str, Any] = "bernoulli",
    num_classes: PositiveInt | None = None,
    latent: str | Mapping[str, Any] = "gaussian",
    clusters: Mapping[str, Any] | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> VAE:
    """Returns a VAE whose encoder and decoder are convolutional.

    Args:
      image_shape: height, width and channels of the data.
      latent_dim: number of latent dimensions, or of categorical variables.
      channels: of the encoder's convolutions, each of which halves the image.
      decoder_channels: of the decoder's transposed convolutions; None for `channels`
        reversed. One entry less lets the output layer do the last doubling.
      kernel_size: height and width of every kernel.
      hidden: widths of dense layers after the encoder's convolutions.
      decoder_hidden: widths of dense layers before the decoder's first feature map.
      pooling: 'flatten', 'mean' or 'max', how the encoder's last feature map becomes a
        vector.
      convs_per_level: convolutions at every size of the encoder and the decoder; those
        beyond the first keep the size.
      downsampling: what halves the image in the encoder: the 'stride' of a level's
        first convolution, or 'max_pool' after its last.
      top_channels: of further convolutions of the encoder, which keep the size.
      batch_norm: whether a BatchNorm follows every convolution but the output layer.
      activation: nonlinearity of the encoder.
      decoder_activation: nonlinearity of the decoder; None for the encoder's.
      start_activation: whether it is applied to the decoder's first feature map.
      likelihood: observation model p(x|z): a name, or {'name': ..., its fields}.
      num_classes: classes of a conditional VAE with learned class-mean priors; None
        for a prior N(0, I).
      latent: kind of latents, 'gaussian', 'gumbel_softmax' or 'von_mises_fisher': a
        name, or {'name': ..., its fields}.
      clusters: {'num_clusters': K, ...}, fields of `jvae.models.cluster.clusters`, for
        a VAE that clusters; None for none.
      dtype: of the layers' computation; parameters and reductions stay float32.

    Raises:
      ConfigError: an impossible value, or an image that cannot be halved that often.
    """
    if decoder_channels is None:
        decoder_channels = tuple(channels)[::-1]
    start = _start_shape(image_shape, channels, decoder_channels)

    observation = likelihoods.build(likelihood)
    *size, depth = image_shape
    common: dict[str, Any] = {"kernel_size": kernel_size, "batch_norm": batch_norm}
    common |= {"dtype": compute_dtype(dtype), "convs_per_level": convs_per_level}

    encoder = ConvEncoder(
        channels=tuple(channels),
        hidden=tuple(hidden),
        pooling=pooling,
        downsampling=downsampling,
        top_channels=tuple(top_channels),
        activation=activation,
        **common,
    )
    decoder = ConvDecoder(
        channels=tuple(decoder_channels),
        start_shape=start,
        output_shape=(*size, observation.num_outputs(depth)),
        hidden=tuple(decoder_hidden),
        start_activation=start_activation,
        activation=decoder_activation or activation,
        **common,
    )

    return autoencoder(
        clusters,
        encoder=encoder,
        decoder=decoder,
        observation=observation,
        latent_dim=latent_dim,
        image_shape=tuple(image_shape),
        num_classes=num_classes,
        latent=latents.build(latent, latent_dim, num_classes),
    )


def _start_shape(
    image_shape: Sequence[int], channels: Sequence[int], decoder_channels: Sequence[int]
) -> tuple[int, int, int]:
    """Returns the decoder's first feature map: the encoder's last."""
    height, width, _ = image_shape
    halvings = len(channels)
    if height % 2**halvings or width % 2**halvings:
        raise ConfigError(
            f"model.image_shape {tuple(image_shape)} cannot be halved {halvings} times",
            fix="Resize or pad the images, or give model.channels fewer entries.",
        )
    entries = len(decoder_channels)
    rule = f"have {halvings - 1} or {halvings} entries"
    require(
        entries in (halvings - 1, halvings), "model.decoder_channels", rule, entries
    )
    return height // 2**halvings, width // 2**halvings, channels[-1]
