"""From stored pixels to what a likelihood is defined on; jax only, inside the step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jvae import registry
from jvae.errors import ConfigError
from jvae.keys import per_example
from jvae.ranges import Bits, NonNegativeInt
from jvae.runtime import random_bits
from jvae.types import Array, Batch, Key


@dataclasses.dataclass(frozen=True)
class Transform:
    """What stored pixels become.

    Attributes:
      apply: (image [B, H, W, C], keys [B]) -> [B, H, W, C] in `support`.
      support: 'binary' {0, 1}, 'unit' [0, 1], 'signed' [-1, 1], 'levels' integers
        0..2^b-1, 'real', where a density is a likelihood, or 'tokens' of sentences.
      to_unit: from `support` to intensities in [0, 1], for pictures.
      bin_bits: b where `apply` spreads levels evenly over bins of width 2^-b: that many
        bits a density lacks to bound the probability of a level. None elsewhere.
      padding: rows and columns of zeros around the stored pixels, on every side.
    """

    apply: Callable[[Array, Key], Array]
    support: str
    to_unit: Callable[[Array], Array]
    bin_bits: int | None = None
    padding: int = 0


@registry.checked("data")
def build(name: str, num_bits: Bits = 8, padding: NonNegativeInt = 0) -> Transform:
    """Returns the transform `name` at `num_bits` bits a pixel.

    Args:
      name: a key of `TRANSFORMS`, or 'package.module:Name' of a function of num_bits
        that returns a `Transform`.
      num_bits: pixels 0..255 are reduced to floor(k / 2^(8 - num_bits)); 1 to 8.
      padding: rows and columns of zeros around every image, on each side.

    Raises:
      ConfigError: unknown name, or a number out of range.
    """
    transform = registry.resolve(TRANSFORMS, name, "data.transform")(num_bits)
    return dataclasses.replace(transform, padding=padding)


def prepare(batch: Batch, key: Key, transform: Transform) -> dict[str, Array]:
    """Returns `batch` with batch['image'] transformed, the rest as it is.

    Args:
      batch: 'image' uint8 [B, H, W, C], or float32 in [0, 1] where that makes sense;
        batches without images stay as they are.
      key: one key, or [B] keys, one per example.
      transform: what to do.

    Raises:
      ConfigError: the transform does not take images of this dtype.
    """
    if "image" not in batch:
        return dict(batch)
    image, pad = batch["image"], (transform.padding, transform.padding)
    image = jnp.pad(image, ((0, 0), pad, pad, (0, 0)))
    keys = per_example(key, image.shape[0])
    return {**batch, "image": transform.apply(image, keys)}


def mirrored(batch: Batch, key: Key) -> dict[str, Array]:
    """Returns `batch` with every other image, by chance, mirrored left to right.

    Args:
      batch: 'image' [B, H, W, C]; batches without images stay as they are.
      key: one key, or [B] keys, one per example.
    """
    if "image" not in batch:
        return dict(batch)
    image = batch["image"]

    def is_turned(key):
        return jax.random.bernoulli(key, jnp.float32(0.5))

    turn = jax.vmap(is_turned)(per_example(key, image.shape[0]))
    image = jnp.where(turn[:, None, None, None], image[:, :, ::-1], image)
    return {**batch, "image": image}


@registry.checked("data")
def unit(num_bits: Bits = 8) -> Transform:
    """Returns k / (2^b - 1), in [0, 1]."""
    return Transform(lambda image, keys: _intensity(image, num_bits), "unit", _clip)


@registry.checked("data")
def signed(num_bits: Bits = 8) -> Transform:
    """Returns 2 k / (2^b - 1) - 1: the levels of a discretised logistic."""

    def apply(image: Array, keys: Key) -> Array:
        return 2.0 * _intensity(image, num_bits) - 1.0

    return Transform(apply, "signed", lambda x: _clip((x + 1.0) / 2.0))


@registry.checked("data")
def binarize(num_bits: Bits = 8) -> Transform:
    """Returns draws in {0, 1} with the intensity as probability of 1, new each time.

    Salakhutdinov & Murray, 2008, https://doi.org/10.1145/1390156.1390266.
    """

    def apply(image: Array, keys: Key) -> Array:
        return _bernoulli(keys, _intensity(image, num_bits))

    return Transform(apply, "binary", _clip)


@registry.checked("data")
def threshold(num_bits: Bits = 8) -> Transform:
    """Returns 1 where the intensity is at least 1/2, else 0."""

    def apply(image: Array, keys: Key) -> Array:
        return (_intensity(image, num_bits) >= 0.5).astype(jnp.float32)

    return Transform(apply, "binary", _clip)


@registry.checked("data")
def dequantize(num_bits: Bits = 8) -> Transform:
    """Returns (k + u) / 2^b with u uniform on [0, 1), in [0, 1).

    The log density of x, averaged over u, is at most log P(k) + b log 2 a pixel.
    u has 16 bits, so that k + u is exact in float32 and floor(2^b x) is always k.

    Uria, Murray & Larochelle, 2013, https://arxiv.org/abs/1306.0186; Theis, van den
    Oord & Bethge, 2016, https://arxiv.org/abs/1511.01844.
    """

    def apply(image: Array, keys: Key) -> Array:
        level = _levels(image, num_bits).astype(jnp.float32)
        noise = jax.vmap(lambda key: random_bits.uniform16(key, image.shape[1:]))(keys)
        return (level + noise) / 2.0**num_bits

    return Transform(apply, "real", _clip, bin_bits=num_bits)


@registry.checked("data")
def levels(num_bits: Bits = 8) -> Transform:
    """Returns the level itself, int32 0..2^b-1, for a categorical."""

    def to_unit(x: Array) -> Array:
        return _clip(x.astype(jnp.float32) / (2**num_bits - 1))

    return Transform(lambda image, keys: _levels(image, num_bits), "levels", to_unit)


@registry.checked("data")
def tokens(num_bits: Bits = 8) -> Transform:
    """Returns sentences as they are; tokens have no bits for `num_bits` to drop."""
    return Transform(lambda image, keys: image, "tokens", lambda x: x)


# One object for each, so that programs that a transform is part of are shared.
TRANSFORMS: dict[str, Callable[[int], Transform]] = {
    function.__name__: functools.cache(function)
    for function in (binarize, dequantize, levels, signed, threshold, tokens, unit)
}


def _clip(x: Array) -> Array:
    """Returns x cut to [0, 1]: means of a decoder may leave it."""
    return jnp.clip(x, 0.0, 1.0)


def _levels(image: Array, num_bits: int) -> Array:
    """Returns floor(k / 2^(8 - b)), int32."""
    if image.dtype != jnp.uint8:
        what = f"pixels must be uint8 to have {num_bits}-bit levels"
        raise ConfigError(f"{what}, got {image.dtype}")
    return image.astype(jnp.int32) >> (8 - num_bits)


def _intensity(image: Array, num_bits: int) -> Array:
    """Returns the level over the largest level, float32 in [0, 1]."""
    if image.dtype == jnp.float32 and num_bits == 8:
        return image
    return _levels(image, num_bits).astype(jnp.float32) / (2**num_bits - 1)


def _bernoulli(key: Key, probability: Array) -> Array:
    """Returns draws in {0, 1}, float32, at probabilities [B, ...] and [B] keys.

    Compared as vectors: as images of one channel XLA:CPU turns bits into floats one by
    one, 0.4 ms of a training step of 4.5 ms (128x28x28).
    """
    flat = probability.reshape(probability.shape[0], -1)
    uniform = jax.vmap(lambda k: random_bits.uniform(k, flat.shape[1:]))(key)
    return (uniform < flat).astype(jnp.float32).reshape(probability.shape)
