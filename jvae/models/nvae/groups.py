"""Groups of latents: the prior of each given those above, and what x says of it."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from jvae import layers
from jvae.distributions import DiagGaussian
from jvae.distributions.events import sum_events
from jvae.models.nvae.cells import BottomUpCell, Style, TopDownCell
from jvae.models.nvae.flows import VolumePreservingFlow
from jvae.types import Array, Key, float_dtype

Remat = Literal["none", "cells"]

BOUND = 5.0
"""Means and log standard deviations are within -5 and 5."""
MIN_STD = 0.01
"""Added to standard deviations, so that they are within 0.0167 and 148.4."""


def gaussian(mean: Array, log_std: Array) -> DiagGaussian:
    """Returns N(soft(mean), (exp(soft(log_std)) + 0.01)^2), soft(x) = 5 tanh(x / 5).

    The bounds keep a KL of float32 finite. N(0, 1) so becomes N(0, 1.01^2).
    """
    std = jnp.exp(_soft(log_std)) + MIN_STD
    return DiagGaussian(_soft(mean), 2.0 * jnp.log(std))


def _soft(x: Array) -> Array:
    return BOUND * jnp.tanh(x / BOUND)


class GroupSizes(NamedTuple):
    """What all groups of a model have in common.

    Attributes:
      latents: variables at every place.
      cells: residual cells before each group.
      flow_pairs: pairs of autoregressive steps behind each posterior.
      remat: activations that the gradient recomputes, 'none' or those of 'cells'.
    """

    latents: int
    cells: int
    flow_pairs: int
    remat: Remat


@flax.struct.dataclass
class Latents:
    """Latents of all groups, coarse scales first.

    Attributes:
      z: one array for each scale, [B, groups, h, w, d].
      features: [B, h, w, C], the last of the top-down pass, which are decoded; None to
        compute them from z, so where z is replaced it must be None.
    """

    z: tuple[Array, ...]
    features: Any = None


@flax.struct.dataclass
class Noise:
    """Latents by what is random in them under the prior, N(0, I) whatever is above.

    z = mean + std u, with the mean and the standard deviation that the prior has for
    what is above z.

    Attributes:
      u: an array, or one for each scale.
    """

    u: Any


class GroupSample(NamedTuple):
    """A draw of one group, or of many stacked.

    Attributes:
      z: [B, h, w, d].
      kl: [B], in nats, closed form where there is one; None for a draw of the prior.
      log_ratio: [B], log q - log p at the draw; None for a draw of the prior.
      u: [B, h, w, d], (z - mean) / std of the prior; None for a draw of the prior.
    """

    z: Array
    kl: Any = None
    log_ratio: Any = None
    u: Any = None


class SamplingContext(NamedTuple):
    """What all groups of a pass read.

    Attributes:
      keys: [B], one per example; None where every z is given, or is to be the mean of
        its posterior.
      temperature: factor on standard deviations of the prior.
      mask: [B] for BatchNorm, or None.
      num_kept: where z is given, of how many groups it is taken, one number or [B], and
        drawn of the others; None for all.
    """

    keys: Key | None
    temperature: Array | float
    mask: Array | None
    num_kept: Array | int | None = None


def cell_type(kind: type[nn.Module], remat: Remat, in_loop: bool = True) -> Any:
    """Returns the class of a cell, which remembers its input alone if it is to.

    Args:
      kind: of cells.
      remat: 'cells', or 'none' for the class as it is.
      in_loop: whether they are cells of groups, which are scanned.
    """
    return layers.remat(kind, in_loop) if remat == "cells" else kind


class BottomUpGroup(nn.Module):
    """The cells of one group on the bottom-up pass.

    Attributes:
      style: of the model.
      sizes: of its groups.
    """

    style: Style
    sizes: GroupSizes

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> tuple[Array, Array]:
        """Returns the features [B, h, w, C] twice: for the next group, and to keep."""
        kind = cell_type(BottomUpCell, self.sizes.remat)
        with layers.loop_body():
            for i in range(self.sizes.cells):
                x = kind(self.style, name=f"cells_{i}")(x, mask)
        return x, x


class LatentGroup(nn.Module):
    """z_l ~ N(mean, std) of what is above, and its posterior as a change of that.

    The posterior has mean + d_mean and log std + d_log_std before the bounds, so that
    with d = 0 it is the prior, and a group that knows nothing of x costs nothing
    (Vahdat & Kautz, 2020, https://arxiv.org/abs/2007.03898).

    Attributes:
      style: of the model.
      sizes: of its groups.
      channels: of the features.
      is_first: whether nothing is above; its prior is N(0, 1.01^2).
    """

    style: Style
    sizes: GroupSizes
    channels: int
    is_first: bool = False

    def setup(self):
        """Adds cells and heads."""
        style, sizes = self.style, self.sizes
        if not self.is_first:
            kind = cell_type(TopDownCell, sizes.remat)
            self.cells = [kind(style) for _ in range(sizes.cells)]
            self.prior_head = style.head(2 * sizes.latents, 1)
            self.combine = style.convolution(self.channels, 1)
        self.posterior_head = style.head(2 * sizes.latents, 3)
        self.flow = VolumePreservingFlow(sizes.flow_pairs, style.dtype)
        self.merge = style.convolution(self.channels, 1)

    def __call__(
        self,
        state: Array,
        inputs: tuple[Array, Array | None, Array | Noise | None],
        context: SamplingContext,
    ) -> tuple[Array, GroupSample]:
        """Returns (features after the group [B, h, w, C], its draw).

        Args:
          state: features [B, h, w, C] of all that is above.
          inputs: the group's number, for its keys; bottom-up features [B, h, w, C],
            None to draw from the prior; z [B, h, w, d], or its noise, if it is given.
          context: keys, temperature and mask.
        """
        index, features, z = inputs
        with layers.loop_body():
            state, numbers = self._prior(state, context.mask)

            prior = gaussian(*numbers)
            if isinstance(z, Noise):
                sample = GroupSample(prior.mean + prior.std * z.u)
            elif z is not None and context.num_kept is None:
                sample = GroupSample(z)
            elif features is None:
                key = _group_key(context.keys, index)
                new = prior.tempered(context.temperature).sample(key)
                if z is not None and context.num_kept is not None:
                    num_kept = jnp.reshape(context.num_kept, (-1, 1, 1, 1))
                    new = jnp.where(index < num_kept, z, new)
                sample = GroupSample(new)
            else:
                joint = features if self.is_first else features + self.combine(state)
                q = gaussian(*_add(numbers, _two(self.posterior_head(joint))))
                sample = self._draw(q, prior, context.keys, index)

            both = jnp.concatenate([state, sample.z.astype(state.dtype)], axis=-1)
            return self.merge(both), sample

    def _prior(self, state: Array, mask: Array | None) -> tuple[Array, tuple]:
        """Returns (features after the cells, mean and log std of the prior)."""
        if self.is_first:
            shape = (*state.shape[:-1], self.sizes.latents)
            zeros = jnp.zeros(shape, float_dtype(state))
            return state, (zeros, zeros)
        for cell in self.cells:
            state = cell(state, mask)
        return state, _two(self.prior_head(nn.elu(state)))

    def _draw(
        self, q: DiagGaussian, prior: DiagGaussian, keys: Key | None, index: Array
    ) -> GroupSample:
        """Returns a draw of the posterior, or without keys its mean; what it costs."""
        start = q.mean if keys is None else q.sample(_group_key(keys, index))
        z = self.flow(start)
        # Latent by latent: the difference of two large sums would be a rounded one.
        log_ratio = sum_events(q.log_prob_per_dim(start) - prior.log_prob_per_dim(z))
        kl = q.kl_to(prior) if self.sizes.flow_pairs == 0 else log_ratio
        return GroupSample(z, kl, log_ratio, (z - prior.mean) / prior.std)


def _two(outputs: Array) -> tuple[Array, Array]:
    """Returns (means, log standard deviations), both [B, h, w, d] in float32."""
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return mean, log_std


def _add(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    return a[0] + b[0], a[1] + b[1]


def _group_key(keys: Key | None, index: Array) -> Key:
    """Returns [B] keys of the group with this number."""
    return jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)


def stacked_bottom_up(style: Style, sizes: GroupSizes, count: int) -> nn.Module:
    """Returns `count` groups on the bottom-up pass as one, scanned.

    Called with (x, mask) it returns (x, features of every group [count, B, h, w, C]);
    the last group on the bottom-up pass comes first, as the top-down pass takes them.
    """
    return _stacked(BottomUpGroup, count, nn.broadcast, reverse=True)(style, sizes)


def stacked_groups(
    style: Style, sizes: GroupSizes, channels: int, count: int
) -> nn.Module:
    """Returns `count` groups of latents as one, (state, inputs, context) -> same.

    What a group sees and draws has a leading axis [count].
    """
    return _stacked(LatentGroup, count, (0, nn.broadcast))(style, sizes, channels)


def _stacked(kind: Any, count: int, in_axes: Any, reverse: bool = False) -> Any:
    """Returns the class of `count` modules as one, scanned, parameters stacked."""
    axes: dict[Any, int] = {"params": 0, "batch_stats": 0}
    options: dict[str, Any] = {"split_rngs": {"params": True}, "reverse": reverse}
    return nn.scan(kind, axes, in_axes=in_axes, length=count, **options)
