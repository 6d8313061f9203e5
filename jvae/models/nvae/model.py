"""NVAE: a deep hierarchy of latents on maps, from coarse to fine.

    x -> stem -> halvings -> bottom-up pass: features of every group, fine to coarse
    z_1 ~ N(0, 1.01^2), then for each group top-down  z_l ~ p(z_l | z_<l)
    q(z_l | z_<l, x): the prior of the group, changed by its bottom-up features
    the top-down pass -> doublings -> p(x | z)

Vahdat & Kautz, 2020, https://arxiv.org/abs/2007.03898. Groups of one scale have equal
shapes and are scanned, so that the time to compile does not grow with their number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from jvae import keys
from jvae.contract import Model
from jvae.distributions import Distribution, arc
from jvae.errors import ConfigError, require
from jvae.layers.spectral import power_iteration, power_start
from jvae.models import likelihoods
from jvae.models.nvae.cells import BottomUpCell, Style, TopDownCell
from jvae.models.nvae.convolutions import conv_kernels, norm_scales
from jvae.models.nvae.groups import (
    GroupSample,
    GroupSizes,
    Latents,
    Noise,
    SamplingContext,
    cell_type,
)
from jvae.models.nvae.scale import Features, Scale
from jvae.models.vae import check_image, check_scaled
from jvae.types import Array, Batch, Inference, Key, batch_size

SPECTRAL = "spectral"
"""Collection of the vectors of power iterations."""
FIRST_ITERATIONS = 40
"""Of the vectors, when the model is made."""


class NVAE(Model):
    """A hierarchical VAE of residual cells.

    Attributes:
      observation: a module of `jvae.models.likelihoods`.
      image_shape: (H, W, C).
      channels: of the stem; doubled at every halving.
      groups: groups of latents of each scale, the coarsest first.
      sizes: what the groups have in common.
      style: what the cells have in common.
      blocks: halvings before the first scale.
      block_cells: cells of each, the last of which halves.
      padding: rows and columns of zeros that the model adds on each side; p(x|z) is
        that of the image without them.
      features: whether the features of the bottom-up pass are kept, or computed anew.
    """

    observation: nn.Module
    image_shape: tuple[int, int, int]
    channels: int
    groups: tuple[int, ...]
    sizes: GroupSizes
    style: Style
    blocks: int
    block_cells: int
    padding: int = 0
    features: Features = "keep"

    target = "image"

    @property
    def group_weights(self) -> tuple[float, ...]:
        """For every group, coarse first: 4^scale / groups of its scale, at least 1.

        What the balance of KL terms divides by.
        """
        weights = np.array([4.0**i / count for i, count in enumerate(self.groups)])
        return tuple(np.repeat(weights / weights.min(), self.groups).tolist())

    @property
    def latent_shapes(self) -> list[tuple[int, int, int, int]]:
        """(groups, h, w, d) of each scale, the coarsest first."""
        height, width = (n + 2 * self.padding for n in self.image_shape[:2])
        last = self.blocks + len(self.groups) - 1
        return [
            (count, height >> (last - i), width >> (last - i), self.sizes.latents)
            for i, count in enumerate(self.groups)
        ]

    def setup(self):
        """Adds all parts, those of the top-down pass from the top."""
        style, remat = self.style, self.sizes.remat
        cell_up = cell_type(BottomUpCell, remat, in_loop=False)
        cell_down = cell_type(TopDownCell, remat, in_loop=False)
        same = ("none",) * (self.block_cells - 1)

        self.stem = style.convolution(self.channels, 3)
        self.before = [cell_up(style, size) for size in (*same, "down") * self.blocks]

        num_scales = len(self.groups)
        width = self.channels * 2 ** (self.blocks + num_scales - 1)
        self.halvings = [cell_up(style, "down") for _ in range(num_scales - 1)]
        kind: Any = Scale
        if self.features == "recompute":  # the gradient keeps a scale's input alone
            kind = nn.remat(Scale, methods=["top_down"], static_argnums=(6,))

        self.scales = [
            kind(style, self.sizes, width >> i, count, i == 0, self.features)
            for i, count in enumerate(self.groups)
        ]
        self.doublings = [cell_down(style, 6, "up") for _ in range(num_scales - 1)]

        self.top = style.convolution(width, 1)
        shape = (*self.latent_shapes[0][1:3], width)
        uniform = nn.initializers.uniform(1.0)
        self.start_state = self.param("start", uniform, shape, jnp.float32)

        self.after = [cell_down(style, 3, size) for size in ("up", *same) * self.blocks]
        outputs = self.observation.num_outputs(self.image_shape[-1])
        self.head = style.head(outputs, 3)

    def _bottom_up(self, batch: Batch) -> tuple[list[Array], Array]:
        """Returns (what every scale knows of x, coarse first; what the top sees)."""
        y, mask = self.stem(self._scaled(batch["image"])), batch.get("mask")
        for cell in self.before:
            y = cell(y, mask)
        bottom_up_features = []
        for i in reversed(range(len(self.groups))):
            y, features = self.scales[i].bottom_up(y, mask)
            bottom_up_features.append(features)
            if i > 0:
                y = self.halvings[i - 1](y, mask)
        return bottom_up_features[::-1], nn.elu(self.top(nn.elu(y)))

    def _top_down(
        self,
        rows: int,
        context: SamplingContext,
        bottom_up: tuple[Sequence[Array], Array] | None = None,
        z: Any = None,
    ) -> tuple[Latents, list[GroupSample]]:
        """Returns (latents with features, what every scale drew, [groups, B, ...]).

        Args:
          rows: B.
          context: what all groups read.
          bottom_up: what `_bottom_up` returns; None to draw from the prior.
          z: an array, or noise, for each scale, if they are given.
        """
        missing = (None,) * len(self.groups)
        bottom_up_features, top = bottom_up or (missing, None)

        (start,) = promote_dtype(self.start_state, dtype=self.style.dtype)
        state = jnp.broadcast_to(start, (rows, *start.shape))
        samples: list[GroupSample] = []
        begin = 0

        for i, count in enumerate(self.groups):
            if i > 0:
                state = self.doublings[i - 1](state, context.mask)
            z_of_scale = jax.tree.map(lambda a: a.swapaxes(0, 1), (z or missing)[i])
            state, more = self.scales[i].top_down(
                state,
                bottom_up_features[i],
                top if i == 0 else None,
                z_of_scale,
                context,
                begin,
            )
            samples.append(more)
            begin += count

        return Latents(tuple(d.z.swapaxes(0, 1) for d in samples), state), samples

    def infer(self, batch: Batch, key: Key) -> Inference:
        """Returns one draw of all groups per example, and what each costs.

        Args:
          batch: 'image' [B, H, W, C] in the support of the likelihood; 'mask' [B].
          key: one key, or [B] keys, one per example.
        """
        each = keys.per_example(key, batch_size(batch))
        context = SamplingContext(each, 1.0, batch.get("mask"))
        latents, samples = self._top_down(len(each), context, self._bottom_up(batch))
        kl = jnp.concatenate([of_scale.kl for of_scale in samples])
        log_ratio = jnp.concatenate([of_scale.log_ratio for of_scale in samples])
        return Inference(latents, kl.T, log_ratio.sum(0))

    def code(self, batch: Batch) -> Noise:
        """Returns [B, groups, h, w, d] of every scale: the posteriors' means as noise.

        Of posteriors with flows, what the flows make of the means. From the top, each
        given the means above it. Under the prior it is N(0, I), so that how much of it
        varies over images is how much of it is used.

        Args:
          batch: as for `infer`.
        """
        context = SamplingContext(None, 1.0, batch.get("mask"))
        bottom_up = self._bottom_up(batch)
        samples = self._top_down(batch_size(batch), context, bottom_up)[1]
        return Noise(tuple(of_scale.u.swapaxes(0, 1) for of_scale in samples))

    def interpolate(self, start: Noise, end: Noise, fraction: Array) -> Noise:
        """Returns codes on the arcs between two, group by group.

        Their directions turn at an even speed and their lengths change evenly, so that
        what is between two draws of N(0, I) is as long as one.

        Args:
          start: [..., groups, h, w, d] of every scale.
          end: as many codes.
          fraction: from 0 to 1; broadcasts against an array of `start`.
        """
        return jax.tree.map(lambda a, b: _arc(a, b, fraction), start, end)

    def _scaled(self, image: Array) -> Array:
        """Returns images as the stem sees them: padded, within [-1, 1]."""
        image = check_image(image, self.image_shape)
        x = check_scaled(likelihoods.encoder_input(self.observation, image))
        sides = ((0, 0), (self.padding,) * 2, (self.padding,) * 2, (0, 0))
        x = jnp.pad(x, sides)
        return x if likelihoods.is_signed(self.observation) else 2.0 * x - 1.0

    def likelihood(
        self, latents: Latents | Noise | Sequence[Array], batch: Batch
    ) -> Any:
        """Returns p(x|z), of `Latents`, of one array for each scale, or of a code.

        Args:
          latents: as `infer` or `sample_prior` has.
          batch: the mask is read.
        """
        mask = batch.get("mask")
        y = latents.features if isinstance(latents, Latents) else None
        if y is None:
            z, context = _scale_by_scale(latents), SamplingContext(None, 1.0, mask)
            rows = jax.tree.leaves(z)[0].shape[0]
            y = self._top_down(rows, context, z=z)[0].features
        for cell in self.after:
            y = cell(y, mask)
        outputs = self.head(nn.elu(y))
        edge, (height, width) = self.padding, self.image_shape[:2]
        inside = outputs[:, edge : edge + height, edge : edge + width]
        return self.observation(inside)

    def __call__(self, batch: Batch, key: Key) -> Distribution:
        """Returns p(x|z) at one draw; what `init` traces."""
        likelihood = super().__call__(batch, key)
        if self.is_initializing():
            kernels = self.conv_kernels()
            first = jax.random.clone(keys.typed(key).reshape(-1)[0])  # it has drawn z
            start = power_start(first, kernels)
            left = power_iteration(kernels, start, FIRST_ITERATIONS)[1]
            self.put_variable(SPECTRAL, "left", left)
        return likelihood

    def conv_kernels(self) -> dict[str, Array]:
        """Returns {path: [K, O, I h w]}, the kernels of all convolutions as used."""
        return conv_kernels(self.variables["params"])

    def norm_scales(self) -> dict[str, Array]:
        """Returns {path: [K, C]}, the scales of all BatchNorm layers."""
        return norm_scales(self.variables["params"])

    def decode(self, z: Latents | Noise | Sequence[Array]) -> Array:
        """Returns the mean of p(x|z), [B, H, W, C]."""
        return self.likelihood(z, {}).mean

    def sample_prior(
        self, key: Key, n: int, temperature: float | Array = 1.0
    ) -> Latents:
        """Returns n draws of all groups, their standard deviations times `temperature`.

        Args:
          key: one key, or [n] keys.
          n: how many.
          temperature: of every group, the first included; 0 takes the means.
        """
        context = SamplingContext(keys.per_example(key, n), temperature, None)
        return self._top_down(n, context)[0]

    def resample(
        self,
        latents: Latents | Sequence[Array],
        key: Key,
        num_kept: Array | int,
        temperature: float = 1.0,
    ) -> Latents:
        """Returns latents whose `num_kept` coarsest scales stay; the others are drawn.

        Args:
          latents: of n images, or one array for each scale; not a code.
          key: one key, or [n] keys.
          num_kept: scales that stay, from 0 to all; one number, or [n].
          temperature: of the others.

        Raises:
          ConfigError: `num_kept` out of range, or a code.
        """
        if isinstance(latents, Noise):
            raise ConfigError("latents must be arrays of z, got a code")
        if isinstance(num_kept, int | np.integer):
            rule = f"be within 0 and {len(self.groups)}"
            require(0 <= num_kept <= len(self.groups), "num_kept", rule, num_kept)
        z = _scale_by_scale(latents)
        counts = jnp.asarray((0, *itertools.accumulate(self.groups)))
        rows = jax.tree.leaves(z)[0].shape[0]
        each = keys.per_example(key, rows)
        context = SamplingContext(each, temperature, None, counts[num_kept])
        return self._top_down(rows, context, z=z)[0]

    def generate(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns the means of p(x|z) for n draws of the prior, [n, H, W, C].

        Args:
          key: one key, or [n] keys.
          n: number of images.
          temperature: factor on the prior's standard deviations in all groups.
          label: None.
        """
        if label is not None:
            raise ConfigError("NVAE has no classes to choose a label of")
        return self.decode(self.sample_prior(key, n, temperature))


def _scale_by_scale(latents: Latents | Noise | Sequence[Array]) -> list[Array | Noise]:
    """Returns what is given of every scale, coarse first."""
    if isinstance(latents, Noise):
        return [Noise(u) for u in latents.u]
    return list(latents.z if isinstance(latents, Latents) else latents)


def _arc(start: Array, end: Array, fraction: Array) -> Array:
    """Returns `interpolate` of one scale."""
    first, last = (a.reshape(*a.shape[:-3], -1) for a in (start, end))
    points = arc(first, last, fraction.reshape(fraction.shape[:-2]))
    return points.reshape(*points.shape[:-1], *start.shape[-3:])
