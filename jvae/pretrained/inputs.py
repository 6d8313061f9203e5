"""What a person gives a model, checked: images, sentences, labels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jvae.data.checks import ROUNDING
from jvae.errors import ConfigError, require
from jvae.pretrained.trained_model import TrainedModel
from jvae.types import Array

RANGES = {"binary": (0, 1), "unit": (0, 1), "signed": (-1, 1), "levels": (0, 255)}
"""Of images by the support of a transform; others are any real numbers."""


def checked_input(trained: TrainedModel, x: Array) -> Array:
    """Returns x, zeros and ones without rounding; refuses values that no image has.

    Values that a caller traces are not looked at.

    Args:
      trained: the model that is given them.
      x: images [B, H, W, C], or tokens [B, T].

    Raises:
      ConfigError: values far outside the support of the likelihood, or no tokens.
    """
    support = trained.transform.support
    if isinstance(x, jax.core.Tracer):
        return x
    low, high = RANGES.get(support, (-np.inf, np.inf))
    if trained.vocabulary is not None:
        low, high = 0, trained.model.vocabulary_size - 1
    # The mean of a Gaussian, decoded and encoded again, may lie a little outside.
    slack = high - low if support in ("unit", "signed") else ROUNDING
    least, most = float(np.min(x)), float(np.max(x))
    if not (low - slack <= least and most <= high + slack):  # nor is nan inside
        raise ConfigError(
            f"{'images' if trained.vocabulary is None else 'tokens'} must be within "
            f"[{low:g}, {high:g}], got {least:.9g} to {most:.9g}",
            fix="Use `prepare` for stored pixels, `tokenize` for sentences.",
        )
    is_rounding = support == "binary" and (least < low or most > high)
    return jnp.clip(x, low, high) if is_rounding else x


def checked_label(label: Any, n: int, classes: int | None) -> np.ndarray:
    """Returns [n] classes, or their one-hots [n, K], for a model with K classes.

    Args:
      label: one class, [n] classes or [n, K] one-hots.
      n: how many.
      classes: K, None of a model without.

    Raises:
      ConfigError: a model without classes, another number of labels, or a label that
        is no class; out of its range a one-hot would be zero, without a word.
    """
    if classes is None:
        raise ConfigError(
            f"label must be None for a model without classes, got {label}"
        )
    array = np.asarray(label)
    if array.ndim == 0:
        array = np.broadcast_to(array, (n,))
    shapes = ((n,), (n, classes))
    if array.shape not in shapes:
        raise ConfigError(f"label must hold {n} classes, got shape {list(array.shape)}")
    if array.ndim == 1:
        whole = np.issubdtype(array.dtype, np.integer)
        good = whole and bool(np.all((array >= 0) & (array < classes)))
        rule = f"hold integers in 0..{classes - 1}"
        require(good, "label", rule, array.tolist()[:10])
    return array
