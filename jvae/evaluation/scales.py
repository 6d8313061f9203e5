"""What each scale of a hierarchy carries: KL and active latents, group by group."""

from __future__ import annotations

import dataclasses
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jvae.data.sources import Source
from jvae.evaluation.latents import ACTIVE_VARIANCE
from jvae.losses.objective import masked_mean
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Array, Batch, Key


@dataclasses.dataclass(frozen=True)
class ScaleStatistics:
    """Groups of latents on maps of one size.

    Attributes:
      height: of the maps.
      width: of the maps.
      num_latents: variables of each group.
      kl: [G], mean KL of every group to its prior, in nats.
      active: [G], how many variables of every group vary with the image.
    """

    height: int
    width: int
    num_latents: int
    kl: list[float]
    active: list[int]


def has_scales(trained: TrainedModel) -> bool:
    """Returns whether the model is a hierarchy on maps."""
    return trained.model.offers("code", "latent_shapes")


def evaluate_scales(
    trained: TrainedModel,
    source: Source,
    kl: np.ndarray,
    **examples: Unpack[Examples],
) -> list[ScaleStatistics]:
    """Returns what every scale carries, the coarsest first.

    A latent is active if its place in the code, how many standard deviations of its
    prior the posterior's mean is off, has a variance over 0.01 over the examples. With
    one group and the prior N(0, I) this is the rule of Burda et al., 2016,
    https://arxiv.org/abs/1509.00519.

    Args:
      trained: a model with `code` and `latent_shapes`.
      source: the split.
      kl: mean KL of all groups in nats, those of the coarsest scale first.
      **examples: see `Examples`; the key is that of the transform.
    """
    moments = trained.mean_over_batches(code_moments, source, **examples)
    statistics, begin = [], 0
    for shape, mean, square in zip(trained.model.latent_shapes, *moments, strict=True):
        groups, height, width, depth = shape
        active = (square - np.square(mean) > ACTIVE_VARIANCE).reshape(groups, -1)
        numbers = kl[begin : begin + groups].tolist(), active.sum(1).tolist()
        size = height, width, height * width * depth
        statistics.append(ScaleStatistics(*size, *numbers))
        begin += groups
    return statistics


def code_moments(
    trained: TrainedModel, key: Key, batch: Batch
) -> tuple[list[Array], list[Array]]:
    """Returns the batch's mean code and mean squared code, arrays of every scale.

    Args:
      trained: a model with `code`.
      key: not used.
      batch: prepared images, with a mask.
    """
    arrays = jax.tree.leaves(trained.call("code", batch))

    def mean(a):
        columns = a.reshape(len(a), -1)
        means = jax.vmap(lambda column: masked_mean(column, batch), 1)(columns)
        return means.reshape(a.shape[1:])

    return [mean(a) for a in arrays], [mean(jnp.square(a)) for a in arrays]
