"""How near reconstructions are to what the model was given, in intensities."""

from __future__ import annotations

import dataclasses
from typing import Unpack

import jax.numpy as jnp
import numpy as np

from jvae.data.sources import Source
from jvae.evaluation.metrics import Metric
from jvae.pretrained.likelihood import Estimate
from jvae.pretrained.samples import code_of
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Array, Batch, Key

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def squared_error(x: Array, y: Array) -> Array:
    """Returns [B], the mean of (x - y)^2 over pixels and channels of [B, H, W, C]."""
    return jnp.square(x - y).reshape(len(x), -1).mean(-1)


def psnr(squared_error: Array | float) -> Array:
    """Returns 10 log10(1 / squared error), in dB; inf where nothing is lost."""
    return -10.0 * jnp.log10(jnp.asarray(squared_error))


def ssim(x: Array, y: Array) -> Array:
    """Returns [B], the structural similarity of images, 1 of equal ones.

    A Gaussian window of 11 pixels (deviation 1.5), where it fits whole, each channel by
    itself; of images that are smaller the largest odd window that fits. Wang et al.,
    2004, https://doi.org/10.1109/TIP.2003.819861.

    Args:
      x: [B, H, W, C] within [0, 1].
      y: the same.
    """
    mean_x, mean_y = _blurred(x), _blurred(y)
    # Of values around 0: little is lost where squares are subtracted.
    x, y = (a - a.mean((1, 2), keepdims=True) for a in (x, y))
    near_x, near_y = _blurred(x), _blurred(y)
    var_x = _blurred(x * x) - near_x**2
    var_y = _blurred(y * y) - near_y**2
    covariance = _blurred(x * y) - near_x * near_y
    c1, c2 = K1**2, K2**2
    light = (2.0 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2.0 * covariance + c2) / (var_x + var_y + c2)
    return (light * structure).reshape(len(x), -1).mean(-1)


def _blurred(x: Array) -> Array:
    """Returns weighted means over the window, [B, H', W', C], in full precision."""
    size = min(WINDOW, *(n - (n % 2 == 0) for n in x.shape[1:3]))
    offsets = np.arange(size) - size // 2
    heights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights = (heights / heights.sum()).tolist()
    for axis in (1, 2):
        count = x.shape[axis] - size + 1
        parts = [
            w * jnp.take(x, jnp.arange(i, i + count), axis=axis)
            for i, w in enumerate(weights)
        ]
        x = jnp.sum(jnp.stack(parts), axis=0)
    return x


def evaluate_reconstructions(
    trained: TrainedModel, source: Source, **examples: Unpack[Examples]
) -> dict[str, np.ndarray]:
    """Returns 'squared_error' and 'ssim' [N] of the first examples.

    Of the mean of p(x|z), z the mode of q(z|x), and x as the model was given it.

    Args:
      trained: a model of images that has `samples.has_codes`.
      source: the split.
      **examples: see `Examples`; the key is that of the transform.
    """
    return trained.map_examples(_nearness, source, **examples)


def _nearness(trained: TrainedModel, key: Key, batch: Batch) -> dict[str, Array]:
    x, unit = batch["image"], trained.transform.to_unit
    decoded = trained.call("decode", code_of(trained, x))
    x, y = (jnp.clip(unit(a), 0.0, 1.0) for a in (x, decoded))
    return {"squared_error": squared_error(x, y), "ssim": ssim(x, y)}


def reconstruction_metrics(errors: dict[str, np.ndarray]) -> dict[str, Metric]:
    """Returns squared error, PSNR and SSIM; no PSNR where nothing is lost.

    Args:
      errors: from `evaluate_reconstructions`.
    """
    error, similar = (Estimate.of(errors[n]) for n in ("squared_error", "ssim"))
    text = "of intensities, between x and the mean of p(x|z) at the mode of q(z|x)"
    rows = {"mse": Metric.of("Squared error", error, "per pixel", "metric", text)}
    if error.mean > 0.0:
        value, count = float(psnr(jnp.float32(error.mean))), error.num_examples
        text = "10 log10(1 / squared error), of the mean over all examples"
        rows["psnr"] = Metric.score("PSNR", value, text, count, "dB")
    text = "structural similarity of x and its reconstruction, 1 if they are equal"
    rows["ssim"] = Metric.of("SSIM", similar, "of 1", "metric", text)
    return {n: dataclasses.replace(row, num_samples=None) for n, row in rows.items()}
