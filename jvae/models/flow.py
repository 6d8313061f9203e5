"""Flows of images: exact densities of pixel levels with noise, as VAEs without loss.

The code z = f(x + u) holds the whole image, so p(x|z) = 1 and all of the bound is the
rate: with u uniform over a level, log q(z|x) - log p(z) = -log p(x + u), where
p(y) = N(f(y); 0, I) |det df/dy|. Its mean over u is at least -log P(x), and importance
weights over draws of u come nearer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from jvae import keys, registry
from jvae.contract import Model
from jvae.distributions import DiagGaussian, Distribution
from jvae.distributions.events import draws
from jvae.errors import require
from jvae.flows import Bijection, Glow, Nice
from jvae.flows.coupling import Kind
from jvae.flows.density import taken
from jvae.flows.glow import Mixing
from jvae.flows.squeeze import check_squeezes
from jvae.flows.steps import Remat
from jvae.models.vae import SingleLatent, check_image
from jvae.ranges import Bits, ImageShape, PositiveInt, Widths
from jvae.runtime import random_bits
from jvae.types import (
    Array,
    Batch,
    Key,
    Params,
    at_least_float32,
    batch_size,
    float_dtype,
)


@flax.struct.dataclass
class Deterministic(Distribution):
    """p(x|z) of a code that holds x: 1 for the image that it was made of.

    Attributes:
      mean: [B, H, W, C], that image.
      num_levels: of a pixel.
    """

    mean: Array
    num_levels: int = flax.struct.field(pytree_node=False)

    support = "levels"
    is_discrete = True

    def log_prob(self, x: Array) -> Array:
        """Returns zeros [B], of the images x that the codes were made of."""
        return jnp.zeros(x.shape[0], float_dtype(self.mean))

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns the images, [B, H, W, C] or [n, B, H, W, C]."""
        return self.mean if n is None else jnp.stack([self.mean] * n)


@flax.struct.dataclass
class DequantizedFlow(Distribution):
    """q(z|x): codes z = f(x + u) of images with noise u within their pixel levels.

    Known at its own draws only: there is no `log_prob`.

    Attributes:
      x: [B, H, W, C], levels.
      params: of the flow.
      flow: a bijection of images in [-1, 1] and codes [B, D].
      num_bits: of a pixel.
    """

    x: Array
    params: Params
    flow: Bijection = flax.struct.field(pytree_node=False)
    num_bits: int = flax.struct.field(pytree_node=False)

    has_density = False

    @property
    def mean(self) -> Array:
        """The codes of the middles of the levels, [B, D]; in general not the mean."""
        return self._coded(0.5)[0]

    def sample(self, key: Key, n: int | None = None) -> Array:
        """Returns codes of draws of u, [B, D] or [n, B, D]."""
        return draws(
            lambda each: self.sample_and_log_prob(each)[0], key, n, len(self.x)
        )

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        """Returns one draw [B, D] and its log density [B]; `key` is one or [B] keys."""
        z, log_det = self._coded(noise(keys.per_example(key, len(self.x)), self.x))
        return z, -log_det

    def _coded(self, u: Array | float) -> tuple[Array, Array]:
        """Returns (z, log |det dz/dx|) at levels x + u."""
        y = scaled(self.x, u, self.num_bits)
        z, log_det = self.flow.apply({"params": self.params}, y)
        return z, log_det - (self.num_bits - 1) * math.log(2.0) * z.shape[-1]


class FlowModel(SingleLatent, Model):
    """An image with noise within its levels <-> a standard Gaussian code.

    Attributes:
      flow: a bijection of images [B, H, W, C] in [-1, 1] and codes [B, H W C].
      image_shape: (H, W, C).
      num_bits: of a pixel: it has 2^num_bits levels.
    """

    flow: Bijection
    image_shape: Sequence[int]
    num_bits: int = 8

    target = "image"
    num_init_examples = 256
    is_lossless = True

    def posterior(self, batch: Batch) -> DequantizedFlow:
        """Returns q(z|x) of levels batch['image'], 0 to 2^num_bits - 1."""
        x = check_image(batch["image"], self.image_shape)
        params, unbound = taken(self.flow, scaled(x, 0.5, self.num_bits))
        return DequantizedFlow(x, params, unbound, self.num_bits)

    def prior(self, batch: Batch) -> DiagGaussian:
        """Returns N(0, I) over [B, H W C]."""
        return DiagGaussian.standard(batch_size(batch), math.prod(self.image_shape))

    def likelihood(self, latents: Array, batch: Batch) -> Deterministic:
        """Returns p(x|z), of codes [B, H W C]."""
        return Deterministic(self.decode(latents), 2**self.num_bits)

    def decode(self, z: Array) -> Array:
        """Returns the levels [B, H, W, C] of codes [B, H W C], as float32."""
        y = (self.flow.inverse(z) + 1.0) * 2.0 ** (self.num_bits - 1)
        return jnp.clip(jnp.floor(y), 0.0, 2.0**self.num_bits - 1.0)

    def generate(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns n images [n, H, W, C], levels.

        Args:
          key: one key, or [n] keys.
          n: how many.
          temperature: factor on the standard deviation of the codes.
          label: must be None.
        """
        require(label is None, "label", "be None for a model without classes", label)
        prior = self.prior({"mask": jnp.ones((n,), bool)}).tempered(temperature)
        return self.decode(prior.sample(keys.per_example(key, n)))

    def data_dependent_init(self, batch: Batch, key: Key) -> None:
        """Sets the actnorms by examples.

        Args:
          batch: 'image'.
          key: one key.
        """
        x = batch["image"]
        u = noise(keys.per_example(key, batch_size(batch)), x)
        self.flow.data_dependent_init(scaled(x, u, self.num_bits))


def scaled(x: Array, u: Array | float, num_bits: int) -> Array:
    """Returns levels x, u of [0, 1) added, in [-1, 1)."""
    return (at_least_float32(x) + u) / 2.0 ** (num_bits - 1) - 1.0


def noise(key: Key, x: Array) -> Array:
    """Returns noise of the shape of x, uniform in [0, 1), of 16 bits and [B] keys.

    So level and noise are added exactly in float32, and floor gives the level back.
    """
    return jax.vmap(lambda k: random_bits.uniform16(k, x.shape[1:]))(key)


@registry.checked("model")
def glow(
    image_shape: ImageShape,
    levels: PositiveInt = 3,
    depth: PositiveInt = 8,
    hidden: PositiveInt = 64,
    coupling: Kind = "affine",
    mixing: Mixing = "convolution",
    num_bits: Bits = 8,
    remat: Remat = "couplings",
) -> FlowModel:
    """Returns Glow, a flow of squeezed maps (Kingma & Dhariwal, 2018).

    Args:
      image_shape: (H, W, C); H and W multiples of 2^levels.
      levels: each squeezes; after all but the last half of the channels leaves.
      depth: steps of actnorm, mixing and coupling in each level.
      hidden: channels within the couplings' networks.
      coupling: 'additive' or 'affine'.
      mixing: of channels, an invertible 1x1 'convolution' or a fixed 'permutation'.
      num_bits: of a pixel, as the data's.
      remat: activations that the gradient recomputes: 'none', those within the
        'couplings' (on two CPU cores a quarter faster), all within the 'steps' from
        their inputs, or 'invert', all by the inverses from the output.

    Raises:
      ConfigError: a number out of range, or an image that cannot be squeezed.
    """
    height, width, channels = image_shape
    check_squeezes((height, width), levels)
    shape = (height, width, channels)
    flow = Glow(shape, levels, depth, hidden, coupling, mixing, remat=remat)
    return FlowModel(flow, shape, num_bits)


@registry.checked("model")
def nice(
    image_shape: ImageShape,
    depth: PositiveInt = 4,
    hidden: Widths = (1000,) * 5,
    num_bits: Bits = 8,
) -> FlowModel:
    """Returns NICE, additive couplings of all pixels (Dinh et al., 2014).

    Args:
      image_shape: (H, W, C).
      depth: couplings.
      hidden: widths of the layers within their networks.
      num_bits: of a pixel, as the data's.

    Raises:
      ConfigError: a number out of range.
    """
    shape = tuple(image_shape)
    return FlowModel(Nice(shape, depth, tuple(hidden)), shape, num_bits)
