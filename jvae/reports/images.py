"""The pictures of a report: what each shows, in words too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from jvae.data.sources import Source
from jvae.evaluation.classification import Classification
from jvae.evaluation.clustering import Clusters
from jvae.evaluation.results import EvaluationResults
from jvae.evaluation.settings import Settings
from jvae.pretrained import interpolation, samples
from jvae.pretrained.image_grid import COLUMNS, Picture, sheet
from jvae.pretrained.trained_model import TrainedModel
from jvae.reports import latents, plots
from jvae.reports.text import said_of_prior
from jvae.types import Key

CLUSTER_ROWS = 2
"""Rows of members on the page of a cluster, and of samples."""
VARIED_ROWS = 5
"""Samples whose fine scales are drawn again."""
MAX_CLUSTER_PAGES = 20
"""Pages of clusters, the largest first."""


def make_images(
    trained: TrainedModel,
    source: Source,
    results: EvaluationResults,
    key: Key,
    settings: Settings,
    *,
    history: Sequence[Mapping[str, Any]] | None = None,
    samplers: Mapping[str, Any] | None = None,
) -> list[Picture]:
    """Returns the pictures that the model has methods for.

    Args:
      trained: what is evaluated.
      source: the split, whose first examples are shown.
      results: what was measured of the split.
      key: of all draws.
      settings: how much is shown.
      history: rows of metrics.jsonl; None for no curves.
      samplers: what draws codes in the prior's place, by name.
    """
    shown: list[Picture] = []
    measured = (trained, source, results)
    if trained.makes_images:
        shown += _images(*measured, jax.random.clone(key), settings)
        for name, sampler in (samplers or {}).items():
            shown.append(_drawn_by(trained, key, settings.num_images, name, sampler))
    if results.classification is not None:
        shown.append(_confusion(results.classification))
    if results.latents is not None:
        shown += latents.make_latent_images(*measured, key, settings.projection)
    if results.clusters is not None:
        place = jax.random.fold_in(key, 1)
        shown += cluster_pages(trained, source, results.clusters, place)
    curves = plots.curves(history or ())
    if curves is not None:
        caption = "Metrics over training; axes are fitted to all but the first tenth."
        shown.append(Picture("curves.png", "Training", caption, curves))
    return shown


def _images(
    trained: TrainedModel,
    source: Source,
    results: EvaluationResults,
    key: Key,
    settings: Settings,
) -> list[Picture]:
    """Returns the pictures of images that a model of images makes."""
    temperatures = (1.0,) if trained.has_uniform_prior else settings.temperatures
    data_key, draw_key, sample_key = jax.random.split(key, 3)

    examples = source.read(np.arange(min(len(source), 2 * COLUMNS)))
    x = np.asarray(trained.prepare(examples["image"], data_key))

    shown = [_reconstructions(trained, x, draw_key)]
    if samples.has_codes(trained) and len(x) > 1:
        shown.append(_interpolations(trained, x))
        if results.latents is not None and results.latents.draws is not None:
            shown.append(_interpolations(trained, x, spherical=True))
    if samples.has_codes(trained) and len(x) >= 4:
        shown.append(_corners(trained, x))

    if trained.model.offers("generate"):
        n = settings.num_images
        shown += [_samples(trained, sample_key, n, t) for t in temperatures]
    if trained.model.offers("resample"):
        shown += _variations(trained, jax.random.fold_in(sample_key, 1), temperatures)

    kl = None if results.latents is None else results.latents.kl_per_dim
    if samples.has_codes(trained) and kl is not None:
        shown.append(_traversals(trained, x, kl, settings.reach))
    return shown


def _reconstructions(trained: TrainedModel, x: np.ndarray, key: Key) -> Picture:
    mode: Literal["mean", "sample"] = "mean" if samples.has_codes(trained) else "sample"
    code = {"mean": "the mode", "sample": "a draw"}[mode] + " of q(z|x)"
    reconstructions = samples.reconstructions(trained, x, key, mode)
    columns = min(COLUMNS, len(x))
    whole = len(x) // columns * columns
    pairs = np.stack([x[:whole], np.asarray(reconstructions)[:whole]])
    rows = pairs.reshape(2, -1, columns, *x.shape[1:]).swapaxes(0, 1)
    text = f"Rows in pairs: what the model is given, and the mean of p(x|z) at {code}."
    png = sheet(trained, rows, columns)
    return Picture("reconstructions.png", "Reconstructions", text, png)


def _samples(trained: TrainedModel, key: Key, n: int, temperature: float) -> Picture:
    images = samples.prior_samples(trained, key, n, temperature)
    title, prior = said_of_prior(trained, temperature)
    text = f"Means of p(x|z), z drawn from {prior}"
    if trained.model.num_classes is not None:
        text += " Classes take turns along a row."
    png = sheet(trained, images, COLUMNS)
    return Picture(f"samples_t{float(temperature)}.png", title, text, png)


def _drawn_by(
    trained: TrainedModel, key: Key, n: int, name: str, sampler: Any
) -> Picture:
    images = samples.prior_samples(trained, key, n, sampler=sampler)
    drawn = f"z drawn by the sampler '{name}', fitted to training codes"
    text = f"Means of p(x|z), {drawn}."
    png = sheet(trained, images, COLUMNS)
    return Picture(f"samples_{name}.png", f"Samples by {name}", text, png)


def _variations(
    trained: TrainedModel, key: Key, temperatures: Sequence[float]
) -> list[Picture]:
    """Returns for every scale but the finest what is free once all above it is kept."""
    shown, shapes = [], trained.model.latent_shapes
    temperature = max(temperatures, default=1.0)
    for num_kept, (_, height, width, _) in enumerate(shapes[:-1], start=1):
        images = samples.resample_fine_scales(
            trained, key, VARIED_ROWS, COLUMNS, num_kept, temperature
        )
        size, png = f"{height}x{width}", sheet(trained, images, COLUMNS)
        text = (
            f"The latents on maps up to {size} are those of the left column, the finer "
            f"ones are drawn anew at temperature {temperature:g}."
        )
        title = f"Kept up to {size}, varied below"
        shown.append(Picture(f"kept_{num_kept}.png", title, text, png))
    return shown


def _interpolations(
    trained: TrainedModel, x: np.ndarray, spherical: bool = False
) -> Picture:
    num_rows = min(len(x) // 2, 6)
    ends = x[:num_rows], x[num_rows : 2 * num_rows]
    images = interpolation.interpolate(trained, *ends, COLUMNS, spherical)
    text = "Each row decodes points on the path between the codes of two examples."
    name, title = "interpolations.png", "Interpolations"
    if spherical:
        name, title = "interpolations_arc.png", "Interpolations along an arc"
        more = "The path keeps the distance to 0, where the straight line comes nearer."
        text = f"{text} {more}"
    return Picture(name, title, text, sheet(trained, images, COLUMNS))


def _corners(trained: TrainedModel, x: np.ndarray) -> Picture:
    images = interpolation.interpolation_grid(trained, x[:4], COLUMNS)
    text = "Points between the codes of the four examples whose images are the corners."
    png = sheet(trained, images, COLUMNS)
    return Picture("corners.png", "Between four examples", text, png)


def _traversals(
    trained: TrainedModel, x: np.ndarray, kl: np.ndarray, reach: float
) -> Picture:
    dims = interpolation.by_kl(kl, COLUMNS)
    images = interpolation.traversals(trained, x[:1], dims, COLUMNS + 1, reach)
    text = (
        f"Each row moves one dimension of the first example's code from {-reach:g} to "
        f"{reach:g}. Dimensions from the top, most KL first: "
        f"{', '.join(map(str, dims))}."
    )
    png = sheet(trained, images, COLUMNS + 1)
    return Picture("traversals.png", "Traversals", text, png)


def _confusion(classification: Classification) -> Picture:
    table = classification.confusion
    text = (
        f"Examples by true label (rows) and by the label they are given (columns); "
        f"{table.sum() - np.trace(table):,} of {table.sum():,} are off the diagonal."
    )
    return Picture("confusion.png", "Confusion", text, plots.confusion(table))


def cluster_pages(
    trained: TrainedModel, source: Source, clusters: Clusters, key: Key
) -> list[Picture]:
    """Returns the histogram of clusters, and for the largest ones a page each.

    Args:
      trained: a model with clusters.
      source: the split that they are of.
      clusters: its first examples'.
      key: of the transform and of the samples.
    """
    sizes = clusters.histogram
    text = f"Examples of each cluster; {int((sizes > 0).sum())} of {len(sizes)} used."
    png = plots.cluster_bars(sizes)
    bars = Picture("cluster_sizes.png", "Sizes of the clusters", text, png)
    largest = np.argsort(-sizes, kind="stable")[:MAX_CLUSTER_PAGES]
    return [bars, *(_cluster(trained, source, clusters, int(y), key) for y in largest)]


def _cluster(
    trained: TrainedModel, source: Source, clusters: Clusters, cluster: int, key: Key
) -> Picture:
    """Returns a page of one cluster: its first members, and samples of p(x|y)."""
    data_key, sample_key = jax.random.split(jax.random.fold_in(key, cluster))
    (places,) = np.nonzero(clusters.assignments == cluster)
    count = CLUSTER_ROWS * COLUMNS

    draws = samples.prior_samples(trained, sample_key, count, 1.0, cluster)
    images = draws
    text = f"No members. Rows: means of p(x|z), z from p(z|{cluster})."

    if len(places):
        # Repeated, then blanked: one shape, so that nothing is compiled anew.
        shown = np.resize(places[:count], count)
        pixels = source.read(shown)["image"]
        members = np.asarray(trained.prepare(pixels, data_key))
        blank = np.full_like(members, members.min())
        is_tile = (np.arange(count) < len(places)).reshape(-1, 1, 1, 1)
        images = np.concatenate([np.where(is_tile, members, blank), draws])
        text = (
            f"{len(places):,} members. Upper {CLUSTER_ROWS} rows: the first of them; "
            f"lower: means of p(x|z), z from p(z|{cluster})."
        )

    png = sheet(trained, images, COLUMNS)
    return Picture(f"cluster_{cluster:03d}.png", f"Cluster {cluster}", text, png)
