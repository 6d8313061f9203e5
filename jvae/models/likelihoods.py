"""Observation models: from a decoder's outputs to p(x|z).

Each is a `Head`, or any module with `num_outputs(channels)`, how many numbers per pixel
the decoder must give, and a call that turns [B, H, W, num_outputs] into a distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import distributions, registry
from jvae.contract import with_defaults
from jvae.distributions.discretized_logistic import LOOSE_EDGE
from jvae.layers import bounded
from jvae.ranges import Bits, PositiveFloat, PositiveInt
from jvae.types import Array, float_dtype


class HeadDefaults:
    """What `Head` declares, without being a module."""

    pixels: ClassVar[Literal["unit", "signed"]] = "unit"
    """Whether `scaled` data are within [0, 1], or within [-1, 1] or without bounds."""

    def num_outputs(self, channels: int) -> int:
        """Returns how many numbers the decoder gives for a pixel."""
        raise NotImplementedError

    def scaled(self, x: Array) -> Array:
        """Returns what an encoder sees of data x: x itself, if it is of order 1."""
        return x


class Head(nn.Module, HeadDefaults):
    """The base of observation models: a call makes p(x|z) of [B, H, W, num_outputs]."""


def encoder_input(observation: nn.Module, x: Array) -> Array:
    """Returns what an encoder sees of data x."""
    return observation.scaled(x) if isinstance(observation, HeadDefaults) else x


def is_signed(observation: nn.Module) -> bool:
    """Returns whether `scaled` data are within [-1, 1], or without bounds."""
    is_head = isinstance(observation, HeadDefaults)
    return is_head and observation.pixels == "signed"


class BernoulliHead(Head):
    """Binary pixels from one logit each."""

    def num_outputs(self, channels: int) -> int:
        """Returns one per channel."""
        return channels

    def __call__(self, outputs: Array) -> distributions.Bernoulli:
        """Returns p(x|z) with logits `outputs`."""
        return distributions.Bernoulli(outputs)


class GaussianHead(Head):
    """Continuous pixels with a fixed, a learned shared, or a per-pixel variance.

    Attributes:
      variance: 'fixed' at std^2, 'shared', one learned scalar that starts there, or
        'pixel', an output of the decoder.
      std: the fixed standard deviation, or the shared one's start.
      min_std: floor of a learned standard deviation; on data with few levels the
        density grows without bound as it goes to zero.
      mean: what bounds the mean: 'linear', nothing; 'sigmoid', to [0, 1]; 'tanh', to
        [-1, 1].
    """

    pixels = "signed"

    variance: Literal["fixed", "shared", "pixel"] = "fixed"
    std: float = 1.0
    min_std: float = 1e-2
    mean: Literal["linear", "sigmoid", "tanh"] = "linear"

    def num_outputs(self, channels: int) -> int:
        """Returns one per channel, two with a per-pixel variance."""
        return 2 * channels if self.variance == "pixel" else channels

    @nn.compact
    def __call__(self, outputs: Array) -> distributions.Gaussian:
        """Returns p(x|z) around the bounded outputs."""
        start = 2.0 * math.log(self.std)
        log_var = jnp.full((1,) * outputs.ndim, start, float_dtype(outputs))
        if self.variance == "shared":
            constant = nn.initializers.constant(start)
            log_var = self.param("log_var", constant, log_var.shape, jnp.float32)
        elif self.variance == "pixel":
            outputs, log_var = jnp.split(outputs, 2, axis=-1)
        if self.variance != "fixed":
            log_var = bounded(log_var, 2.0 * math.log(self.min_std), 10.0)
        bound = {"linear": lambda x: x, "sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}
        return distributions.Gaussian(bound[self.mean](outputs), log_var)


class DiscretizedLogisticHead(Head):
    """Pixels of 2^num_bits levels in [-1, 1], one logistic each.

    Attributes:
      num_bits: bits per pixel, as the data's.
    """

    pixels = "signed"

    num_bits: int = 8

    def num_outputs(self, channels: int) -> int:
        """Returns two per channel."""
        return 2 * channels

    def __call__(self, outputs: Array) -> distributions.DiscretizedLogistic:
        """Returns p(x|z); scales start at e^-2 of the range."""
        loc, log_scale = jnp.split(outputs, 2, axis=-1)
        log_scale = jnp.clip(log_scale - 2.0, -7.0, 7.0)
        return distributions.DiscretizedLogistic(loc, log_scale, self.num_bits)


class DiscretizedLogisticMixtureHead(Head):
    """Pixels of 2^num_bits levels in [-1, 1], a mixture of logistics each.

    Attributes:
      num_components: logistics per pixel.
      num_bits: bits per channel, as the data's.
      edge: levels above take the whole upper tail; None for the last one alone.
    """

    pixels = "signed"

    num_components: int = 5
    num_bits: int = 8
    edge: float | None = None

    def num_outputs(self, channels: int) -> int:
        """Returns K (1 + 2 C), and 3 K more for the colours of C = 3."""
        extra = 3 if channels == 3 else 0
        return self.num_components * (1 + 2 * channels + extra)

    def __call__(self, outputs: Array) -> distributions.DiscretizedLogisticMixture:
        """Returns p(x|z); centres start spread over the range."""
        k = self.num_components

        # Outputs per component: the logit, then C centres, C scales, C couplings.
        num_parts = outputs.shape[-1] // k
        channels = 3 if num_parts == 10 else (num_parts - 1) // 2
        parts = outputs.reshape(*outputs.shape[:-1], num_parts, k)
        logits = parts[..., 0, :]
        loc = parts[..., 1 : 1 + channels, :]
        log_scale = parts[..., 1 + channels : 1 + 2 * channels, :]
        coefficients = jnp.tanh(parts[..., 7:10, :]) if channels == 3 else None

        spread = jnp.zeros(1, float_dtype(loc))
        if k > 1:
            spread = jnp.linspace(-1.0, 1.0, k, dtype=float_dtype(loc))

        return distributions.DiscretizedLogisticMixture(
            logits,
            loc + spread.reshape((1,) * (loc.ndim - 1) + (k,)),
            jnp.clip(log_scale - 2.0, -7.0, 7.0),
            coefficients,
            self.num_bits,
            self.edge,
        )


class CategoricalHead(Head):
    """Pixels of 2^num_bits levels 0, 1, ..., a free probability each.

    Attributes:
      num_bits: bits per pixel, as the data's.
    """

    num_bits: int = 8

    def num_outputs(self, channels: int) -> int:
        """Returns 2^num_bits per channel."""
        return channels * 2**self.num_bits

    def scaled(self, x: Array) -> Array:
        """Returns the levels as intensities, x / (2^num_bits - 1), in [0, 1]."""
        return x.astype(jnp.float32) / (2**self.num_bits - 1)

    def __call__(self, outputs: Array) -> distributions.Categorical:
        """Returns p(x|z) with these logits."""
        levels = 2**self.num_bits
        return distributions.Categorical(
            outputs.reshape(*outputs.shape[:-1], -1, levels)
        )


@registry.checked("model.likelihood")
def gaussian(
    variance: Literal["fixed", "shared", "pixel"] = "fixed",
    std: PositiveFloat = 1.0,
    min_std: PositiveFloat = 1e-2,
    mean: Literal["linear", "sigmoid", "tanh"] = "linear",
) -> GaussianHead:
    """Returns a Gaussian observation model.

    Args:
      variance: 'fixed', 'shared' (one learned scalar) or 'pixel' (by the decoder).
      std: the fixed standard deviation, or the shared one's start.
      min_std: floor of a learned standard deviation.
      mean: bound of the mean: 'linear' (none), 'sigmoid' [0, 1] or 'tanh' [-1, 1].
    """
    return GaussianHead(variance, std, min_std, mean)


@registry.checked("model.likelihood")
def discretized_logistic(num_bits: Bits = 8) -> DiscretizedLogisticHead:
    """Returns a discretised logistic observation model.

    Args:
      num_bits: bits per pixel, 1 to 8, as the data's.
    """
    return DiscretizedLogisticHead(num_bits)


@registry.checked("model.likelihood")
def discretized_logistic_mixture(
    num_components: PositiveInt = 5, num_bits: Bits = 8
) -> DiscretizedLogisticMixtureHead:
    """Returns a mixture of discretised logistics as observation model.

    Args:
      num_components: logistics per pixel.
      num_bits: bits per channel, 1 to 8, as the data's.
    """
    return DiscretizedLogisticMixtureHead(num_components, num_bits)


@registry.checked("model.likelihood")
def nvae_logistic_mixture(
    num_components: PositiveInt = 10, num_bits: Bits = 8
) -> DiscretizedLogisticMixtureHead:
    """Returns the mixture as NVAE scores it, for comparisons: no probability.

    Its code takes level 254 of 8 bits for the last one too, so the probabilities of a
    pixel add up to more than 1, and bits are too low. With 5 bits there is no
    difference.

    Args:
      num_components: logistics per pixel.
      num_bits: bits per channel, 1 to 8, as the data's.
    """
    head = discretized_logistic_mixture(num_components, num_bits)
    return head.clone(edge=LOOSE_EDGE)


@registry.checked("model.likelihood")
def categorical(num_bits: Bits = 8) -> CategoricalHead:
    """Returns a categorical observation model.

    Args:
      num_bits: bits per pixel, 1 to 8, as the data's.
    """
    return CategoricalHead(num_bits)


def bernoulli() -> BernoulliHead:
    """Returns a Bernoulli observation model, for binary images."""
    return BernoulliHead()


LIKELIHOODS: dict[str, Callable[..., Head]] = {
    "bernoulli": bernoulli,
    "gaussian": gaussian,
    "discretized_logistic": discretized_logistic,
    "discretized_logistic_mixture": discretized_logistic_mixture,
    "nvae_logistic_mixture": nvae_logistic_mixture,
    "categorical": categorical,
}


def build(likelihood: str | Mapping[str, Any]) -> Head:
    """Returns an observation model from its name, or from {'name': ..., fields}.

    Raises:
      ConfigError: an unknown name or field.
    """
    built = registry.build_part(LIKELIHOODS, "model.likelihood", likelihood)
    return with_defaults(built, HeadDefaults, "model.likelihood")
