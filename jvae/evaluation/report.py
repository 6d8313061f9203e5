"""One run of every measurement, and a page that shows them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.resources
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from etils import epath

import jvae
from jvae.data.sources import Source
from jvae.errors import require
from jvae.evaluation import gallery
from jvae.evaluation.clustering import (
    Clusters,
    cluster_measures,
    contingency,
    evaluate_clusters,
    has_clusters,
)
from jvae.evaluation.latents import Latents, collapse_verdict, evaluate_latents
from jvae.evaluation.likelihood import (
    evaluate_elbo,
    evaluate_log_likelihood,
    observation,
)
from jvae.evaluation.measures import (
    format_value,
    latent_measures,
    left_out,
    likelihood_measures,
)
from jvae.evaluation.subject import Subject
from jvae.types import Key

PACKAGES = ("jax", "jaxlib", "flax", "numpy")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much an evaluation measures and shows.

    Args:
      num_examples: at most this many examples, the first of the split.
      batch_size: examples at once, a multiple of the devices; no number depends on it.
      num_samples: importance-weighted draws of z per example for the NLL.
      chunk_size: how many of these draws are in memory at once.
      temperatures: factors on the prior's standard deviation, a picture of samples at
        each.
      num_images: samples in a picture.
      reach: how far traversals go from 0, in standard deviations of the prior.

    Raises:
      ConfigError: a number out of range.
    """

    num_examples: int = 10_000
    batch_size: int = 256
    num_samples: int = 100
    chunk_size: int = 10
    temperatures: Sequence[float] = (0.7, 1.0)
    num_images: int = 100
    reach: float = 2.5

    def __post_init__(self) -> None:
        """Checks the ranges."""
        counts = ("num_examples", "batch_size", "num_samples", "chunk_size")
        for name in (*counts, "num_images"):
            value = getattr(self, name)
            require(value >= 1, name, "be at least 1", value)
        lowest = min(self.temperatures, default=0.0)
        require(lowest >= 0.0, "temperatures", "be at least 0", self.temperatures)
        require(self.reach > 0.0, "reach", "be positive", self.reach)


def evaluate(
    subject: Subject,
    source: Source,
    out_dir: epath.PathLike,
    *,
    config: Mapping[str, Any],
    step: int,
    split: str,
    key: Key,
    history: Sequence[Mapping[str, Any]] | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Measures a model on a split and writes results.json, PNG files and report.html.

    Args:
      subject: what is evaluated.
      source: the split.
      out_dir: the folder to write to; created if missing.
      config: the experiment's, shown as a table.
      step: updates that the parameters have seen.
      split: the split's name.
      key: of all draws.
      history: rows of metrics.jsonl for the training curves; None for none.
      settings: how much to measure; None for the defaults.

    Returns:
      What results.json holds: 'metrics' by name (label, value, standard_error, unit,
      kind, meaning, num_examples, num_samples), 'verdict', 'kl_per_group', 'left_out'
      (what such latents do not have, and why), of a model with clusters 'cluster_sizes'
      [K] and 'cluster_labels' [K, C], and where it comes from. Numbers that are not
      finite are None.

    Raises:
      ConfigError: devices that cannot share a batch.
    """
    settings = settings or Settings()
    number_key, picture_key = jax.random.split(key)
    numbers, latents = measure(subject, source, key=number_key, settings=settings)
    clusters = _clusters(subject, source, number_key, settings)
    if clusters is not None:
        numbers = with_clusters(numbers, clusters)
    shown = gallery.make(
        subject,
        source,
        latents,
        picture_key,
        temperatures=settings.temperatures,
        num_images=settings.num_images,
        reach=settings.reach,
        history=history,
        clusters=clusters,
    )
    origin = {
        "step": step,
        "split": split,
        "pictures": {picture.file: picture.caption for picture in shown},
        "settings": dataclasses.asdict(settings),
        "config": config,
        "versions": versions(),
    }
    results = strict_json({**numbers, **origin})
    if jax.process_index() == 0:
        write(out_dir, results, shown)
    return results


def measure(
    subject: Subject, source: Source, *, key: Key, settings: Settings
) -> tuple[dict[str, Any], Latents]:
    """Returns the numbers of a report, and the latents that some of them are about.

    Args:
      subject: what is evaluated.
      source: the split.
      key: of all draws.
      settings: how much to measure.
    """
    elbo_key, weights_key, latent_key = jax.random.split(key, 3)
    common: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "num_examples": min(settings.num_examples, len(source)),
    }
    draws = {"num_samples": settings.num_samples, "chunk_size": settings.chunk_size}
    elbo = evaluate_elbo(subject, source, key=elbo_key, **common)
    weighted = evaluate_log_likelihood(
        subject, source, key=weights_key, **draws, **common
    )
    latents = evaluate_latents(subject, source, key=latent_key, **common)
    seen = observation(subject, source)
    num_dims = math.prod(source.shapes[subject.model.target])
    rows = likelihood_measures(elbo, weighted, seen, num_dims) | latent_measures(
        latents
    )
    numbers = {
        "num_examples": common["num_examples"],
        "likelihood": dataclasses.asdict(seen),
        "metrics": {name: dataclasses.asdict(row) for name, row in rows.items()},
        "verdict": dataclasses.asdict(collapse_verdict(latents.kl, latents.active)),
        "kl_per_group": latents.kl.tolist(),
    }
    numbers["left_out"] = left_out(latents, gallery.has_uniform_prior(subject.model))
    if latents.active is not None:
        numbers["active"] = latents.active.tolist()
    if latents.information is not None:
        numbers["mutual_info_cap"] = latents.information.cap
        numbers["clamped"] = list(latents.information.clamped)
    return numbers, latents


def _clusters(
    subject: Subject, source: Source, key: Key, settings: Settings
) -> Clusters | None:
    """Returns the clusters of a split; None for a model without."""
    if not has_clusters(subject):
        return None
    return evaluate_clusters(
        subject,
        source,
        batch_size=settings.batch_size,
        key=jax.random.fold_in(key, 3),
        num_examples=min(settings.num_examples, len(source)),
    )


def with_clusters(numbers: Mapping[str, Any], clusters: Clusters) -> dict[str, Any]:
    """Returns the numbers of a report with those of its clusters.

    Args:
      numbers: from `measure`.
      clusters: of the same examples.
    """
    rows = cluster_measures(clusters)
    metrics = {name: dataclasses.asdict(row) for name, row in rows.items()}
    found = {"cluster_sizes": clusters.histogram.tolist()}
    if clusters.labels is not None:
        table = contingency(clusters.labels, clusters.assignments)
        found["cluster_labels"] = table.tolist()
    return {**numbers, "metrics": {**numbers["metrics"], **metrics}, **found}


def write(
    out_dir: epath.PathLike,
    results: Mapping[str, Any],
    shown: Sequence[gallery.Picture],
) -> None:
    """Writes results.json, the pictures and report.html into a folder.

    Args:
      out_dir: the folder; created if missing.
      results: from `evaluate`.
      shown: the pictures.
    """
    folder = epath.Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for picture in shown:
        (folder / picture.file).write_bytes(picture.png)
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    (folder / "results.json").write_text(text)
    (folder / "report.html").write_text(render(results, shown))


def render(results: Mapping[str, Any], shown: Sequence[gallery.Picture]) -> str:
    """Returns the page, one file without any other.

    Args:
      results: from `evaluate`.
      shown: the pictures.
    """
    import jinja2

    template = importlib.resources.files("jvae.evaluation") / "report.html"
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = format_value
    return environment.from_string(template.read_text()).render(
        results=results, pictures=shown, config=dict(flat(results["config"]))
    )


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ('section.field', value) for every leaf of nested dicts."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def strict_json(value: Any) -> Any:
    """Returns `value` in JSON's types: None for nan and inf, text for other objects."""
    if isinstance(value, Mapping):
        return {str(name): strict_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)


def versions() -> dict[str, str]:
    """Returns the versions and the device behind the numbers."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    python = platform.python_version()
    return {"jvae": jvae.__version__, "python": python, **found, "devices": device}
