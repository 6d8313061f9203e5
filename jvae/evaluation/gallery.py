"""The pictures of a report: what each shows, in words too."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jvae.data.sources import Source
from jvae.evaluation import pictures, samples
from jvae.evaluation.latents import Latents
from jvae.evaluation.subject import Subject
from jvae.types import Array, Key

COLUMNS = 10
"""Images in a row."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG file of a report.

    Attributes:
      file: its name.
      title: a few words.
      caption: what is seen, for those who see it and those who do not.
      png: its bytes.
    """

    file: str
    title: str
    caption: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI, so that a page needs no other file."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def make(
    subject: Subject,
    source: Source,
    latents: Latents,
    key: Key,
    *,
    temperatures: Sequence[float],
    num_images: int,
    reach: float,
    history: Sequence[Mapping[str, Any]] | None = None,
) -> list[Picture]:
    """Returns the pictures that the model has methods for.

    Args:
      subject: what is evaluated.
      source: the split, whose first examples are shown.
      latents: of the split.
      key: of all draws.
      temperatures: of the samples, one picture for each.
      num_images: samples in a picture.
      reach: of traversals.
      history: rows of metrics.jsonl; None for no curves.
    """
    data_key, draw_key, sample_key = jax.random.split(key, 3)
    examples = source.read(np.arange(min(len(source), 2 * COLUMNS)))
    x = np.asarray(subject.prepare(examples["image"], data_key))
    shown = [_reconstructions(subject, x, draw_key)]
    if samples.has_codes(subject) and len(x) > 1:
        shown.append(_interpolations(subject, x))
    if hasattr(subject.model, "generate"):
        if has_uniform_prior(subject.model):
            temperatures = (1.0,)
        shown += [_samples(subject, sample_key, num_images, t) for t in temperatures]
    if samples.has_codes(subject) and latents.has_dimensions:
        shown.append(_traversals(subject, x, latents.kl, reach))
    shown.append(_kl_bars(latents))
    curves = pictures.curves(history or ())
    if curves is not None:
        caption = "Metrics over training; axes are fitted to all but the first tenth."
        shown.append(Picture("curves.png", "Training", caption, curves))
    return shown


def has_uniform_prior(model: Any) -> bool:
    """Returns whether the prior is uniform; a temperature leaves it as it is."""
    return bool(getattr(model, "uniform_prior", False))


def _grid(subject: Subject, images: Array | np.ndarray, columns: int) -> bytes:
    """Returns the PNG of images [..., H, W, C] in the support of the likelihood."""
    unit = np.asarray(subject.transform.to_unit(jnp.asarray(images)))
    flat = unit.reshape(-1, *unit.shape[-3:])
    return pictures.encode_png(pictures.grid(flat, columns))


def _reconstructions(subject: Subject, x: np.ndarray, key: Key) -> Picture:
    mode: Literal["mean", "sample"] = "mean" if samples.has_codes(subject) else "sample"
    code = {"mean": "the mode", "sample": "a draw"}[mode] + " of q(z|x)"
    again = samples.reconstructions(subject, x, key, mode)
    columns = min(COLUMNS, len(x))
    whole = len(x) // columns * columns
    pairs = np.stack([x[:whole], np.asarray(again)[:whole]])
    rows = pairs.reshape(2, -1, columns, *x.shape[1:]).swapaxes(0, 1)
    text = f"Rows in pairs: what the model is given, and the mean of p(x|z) at {code}."
    png = _grid(subject, rows, columns)
    return Picture("reconstructions.png", "Reconstructions", text, png)


def _samples(subject: Subject, key: Key, n: int, temperature: float) -> Picture:
    images = samples.prior_samples(subject, key, n, temperature)
    title = f"Samples at temperature {float(temperature)}"
    text = "Means of p(x|z), z drawn from the prior"
    if has_uniform_prior(subject.model):
        title, text = "Samples", f"{text}, which is uniform."
    else:
        text += f" with its standard deviation times {temperature:g}."
    if getattr(subject.model, "num_classes", None) is not None:
        text += " Classes take turns along a row."
    png = _grid(subject, images, COLUMNS)
    return Picture(f"samples_t{float(temperature)}.png", title, text, png)


def _interpolations(subject: Subject, x: np.ndarray) -> Picture:
    num_rows = min(len(x) // 2, 6)
    ends = x[:num_rows], x[num_rows : 2 * num_rows]
    images = samples.interpolations(subject, *ends, COLUMNS)
    text = "Each row decodes points on the path between the codes of two examples."
    png = _grid(subject, images, COLUMNS)
    return Picture("interpolations.png", "Interpolations", text, png)


def _traversals(
    subject: Subject, x: np.ndarray, kl: np.ndarray, reach: float
) -> Picture:
    dims = samples.by_kl(kl, COLUMNS)
    images = samples.traversals(subject, x[:1], dims, COLUMNS + 1, reach)
    text = (
        f"Each row moves one dimension of the first example's code from {-reach:g} to "
        f"{reach:g}. Dimensions from the top, most KL first: "
        f"{', '.join(map(str, dims))}."
    )
    png = _grid(subject, images, COLUMNS + 1)
    return Picture("traversals.png", "Traversals", text, png)


def _kl_bars(latents: Latents) -> Picture:
    count = len(latents.kl)
    text = f"Mean KL to the prior of {count} groups of latents, sorted."
    active = latents.active if latents.has_dimensions else None
    if active is not None:
        used = int(active.sum())
        text = f"Mean KL to the prior of {count} dimensions, sorted; {used} active."
        if used < count:
            text += " The others are hollow, with a cross."
    png = pictures.kl_bars(latents.kl, active)
    return Picture("kl_per_dimension.png", "KL of each dimension", text, png)
