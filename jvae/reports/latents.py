"""What a report shows of latents: their KL, where the codes are, which are near."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jvae.data.sources import Source
from jvae.evaluation import neighbors
from jvae.evaluation.latents import LatentStatistics
from jvae.evaluation.metrics import Metric
from jvae.evaluation.projection import Plane, Projection, apart, tsne
from jvae.evaluation.results import EvaluationResults
from jvae.evaluation.scales import ScaleStatistics
from jvae.pretrained import interpolation
from jvae.pretrained.image_grid import COLUMNS, Picture, sheet
from jvae.pretrained.trained_model import TrainedModel
from jvae.reports import latent_plots, plots
from jvae.types import Key

MAX_ON_MAP = 2000
"""Codes on the map."""


def make_latent_images(
    trained: TrainedModel,
    source: Source,
    results: EvaluationResults,
    key: Key,
    projection: Projection,
) -> list[Picture]:
    """Returns the pictures of what the latents carry and of where the codes are.

    Args:
      trained: what is evaluated.
      source: the split.
      results: what was measured of it, the latents among it.
      key: of the transform.
      projection: of the map.
    """
    latents: Any = results.latents
    shown = []
    if latents.means is not None and not trained.is_generative:
        shown += _neighbors(trained, source, latents.means, key)
    shown.append(_scales(results.scales) if results.scales else _kl_bars(latents))
    if "log_likelihood" in results.metrics:
        shown += _rate_distortion(results.metrics)
    if latents.draws is not None and latents.kl_per_dim is not None:
        shown.append(_aggregate(latents))
    if latents.means is not None and len(latents.means) > 1:
        shown.append(_map(trained, source, results, key, projection))
    return shown


def _kl_bars(latents: LatentStatistics) -> Picture:
    kl, active = latents.kl_per_dim, latents.active
    if kl is None or active is None:
        kl, active = latents.kl, None
    count = len(kl)
    text = f"Mean KL to the prior of {count} groups of latents, sorted."
    if active is not None:
        used = int(active.sum())
        text = f"Mean KL to the prior of {count} dimensions, sorted; {used} active."
        if used < count:
            text += " The others are hollow, with a cross."
    png = latent_plots.kl_bars(kl, active)
    return Picture("kl_per_dimension.png", "KL of each dimension", text, png)


def _scales(scales: Sequence[ScaleStatistics]) -> Picture:
    parts = []
    for scale in scales:
        active, total = sum(scale.active), len(scale.kl) * scale.num_latents
        parts.append(
            f"{scale.height}x{scale.width}: {sum(scale.kl):.1f} nats, {active:,} of "
            f"{total:,} latents active"
        )
    text = f"Groups from the top, which is drawn first. {'; '.join(parts)}."
    png = latent_plots.scale_bars(scales)
    return Picture("scales.png", "KL and active latents of each group", text, png)


def _rate_distortion(metrics: Mapping[str, Metric]) -> list[Picture]:
    """Returns the model's place between rate and distortion, if both are finite."""
    rows = {name: dataclasses.asdict(metric) for name, metric in metrics.items()}
    point = plots.Point.of("this model", rows)
    if point is None:
        return []
    text = (
        f"{point.rate:.4g} nats per example through the latents, "
        f"{point.distortion:.4g} nats lost by the decoder. Models on one line have the "
        "same ELBO."
    )
    png = plots.rate_distortion([point])
    return [Picture("rate_distortion.png", "Rate and distortion", text, png)]


def _aggregate(latents: LatentStatistics) -> Picture:
    """Returns the codes of all examples beside the prior, dimension by dimension."""
    draws: Any = latents.draws
    kl: Any = latents.kl_per_dim
    order = interpolation.by_kl(kl, len(kl))
    deviation = draws.std(0)
    text = (
        f"One code of each of {len(draws):,} examples. Above: mean and deviation of "
        "every dimension, most KL first, beside the prior's 0 ± 1; deviations are from "
        f"{deviation.min():.2f} to {deviation.max():.2f}, means up to "
        f"{np.abs(draws.mean(0)).max():.2f} from 0. Below: the first dimensions, and "
        "the density of N(0, 1) as a dashed line."
    )
    png = latent_plots.aggregate(draws, order)
    return Picture("aggregate.png", "Codes of all data and the prior", text, png)


def _map(
    trained: TrainedModel,
    source: Source,
    results: EvaluationResults,
    key: Key,
    projection: Projection,
) -> Picture:
    """Returns the codes in two dimensions, with labels or clusters and some images."""
    latents: Any = results.latents
    means = latents.means[:MAX_ON_MAP]
    examples = source.read(np.arange(len(means)))

    signs, are = examples.get("label"), "labels"
    if signs is None and results.clusters is not None:
        signs, are = results.clusters.assignments[: len(means)], "clusters"
    places, names = _places(means, projection)

    thumbnails = []
    if "image" in examples:
        indices = apart(places)
        x = trained.prepare(examples["image"][indices], jax.random.clone(key))
        unit = np.clip(np.asarray(trained.transform.to_unit(x)), 0.0, 1.0)
        thumbnails = list(zip(indices, unit, strict=True))

    text = f"Means of q(z|x) of {len(means):,} examples."
    if signs is not None and len(np.unique(signs)) <= latent_plots.MAX_SIGNS:
        text += f" Their numbers are {are}."
    if thumbnails:
        text += f" {len(thumbnails)} of them are shown as they are."
    png = latent_plots.latent_map(places, signs, names, thumbnails)
    return Picture("map.png", "Map of the codes", text, png)


def _places(
    means: np.ndarray, projection: Projection
) -> tuple[np.ndarray, tuple[str, str]]:
    """Returns (where codes [N, D] are on the map [N, 2], what its axes are)."""
    if projection == "tsne":
        return tsne(means), ("t-SNE, first axis", "t-SNE, second axis")
    plane = Plane.of(means)
    first, second = (f"{100.0 * s:.0f}% of the variance" for s in plane.explained)
    names = f"first principal component, {first}", f"second, {second}"
    return plane.place(means), names


def _neighbors(
    trained: TrainedModel, source: Source, codes: np.ndarray, key: Key
) -> list[Picture]:
    """Returns a picture of nearest neighbours for each way to measure nearness."""
    columns = min(COLUMNS, len(codes))
    queries = np.arange(columns)
    if columns < 2:
        return []
    shown = []
    for metric, title in neighbors.MEASURES.items():
        indices = neighbors.nearest(codes, queries, columns - 1, metric)
        places = np.concatenate([queries[:, None], indices], axis=1).reshape(-1)
        pixels = source.read(places)["image"]
        x = np.asarray(trained.prepare(pixels, jax.random.clone(key)))
        text = (
            "Left column: the first examples. Beside each: those of the "
            f"{len(codes) - 1:,} others with the nearest codes by {title}, in order."
        )
        name, heading = f"neighbours_{metric}.png", f"Nearest codes by {title}"
        shown.append(Picture(name, heading, text, sheet(trained, x, columns)))
    return shown
