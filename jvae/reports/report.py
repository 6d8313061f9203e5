"""One run of every measurement, and a page that shows them."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

import jvae
from jvae.data.sources import Source
from jvae.evaluation.features import Features
from jvae.evaluation.probes import FEATURES
from jvae.evaluation.quality import evaluate_quality
from jvae.evaluation.results import evaluate_all, numbers_of, probe
from jvae.evaluation.settings import Settings
from jvae.pretrained import interpolation
from jvae.pretrained.batch_norm import recomputed_statistics
from jvae.pretrained.image_grid import Picture
from jvae.pretrained.trained_model import TrainedModel
from jvae.reports import html, images
from jvae.reports import text as passages
from jvae.types import Key
from jvae.workdir import files
from jvae.workdir.checksums import checksums

PACKAGES = ("jax", "jaxlib", "flax", "numpy")


def evaluate(
    trained: TrainedModel,
    source: Source,
    out_dir: epath.PathLike,
    *,
    config: Mapping[str, Any],
    step: int,
    split: str,
    key: Key,
    train: Source | None = None,
    history: Sequence[Mapping[str, Any]] | None = None,
    samplers: Mapping[str, Any] | None = None,
    features: Features | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Measures a model on a split and writes results.json, PNG files and report.html.

    Args:
      trained: what is evaluated.
      source: the split.
      out_dir: the folder to write to; created if missing.
      config: the experiment's, shown as a table.
      step: updates that the parameters have seen.
      split: the split's name.
      key: of all draws.
      train: the training split, for probes and statistics; None for neither.
      history: rows of metrics.jsonl for the training curves; None for none.
      samplers: what draws codes in the prior's place, by name; None for nothing.
      features: that samples and real images are compared by; None for no comparison.
      settings: how much to measure; None for the defaults.

    Returns:
      What results.json holds: 'metrics' by name (label, value, standard_error, unit,
      kind, meaning, num_examples, num_samples), 'about', of a model with noisy latents
      'verdict', 'kl_per_group' and 'left_out' (what such latents do not have, and why),
      of a classifier 'confusion' [K, K], 'probes' where they were asked for, of a model
      with clusters 'cluster_sizes' [K] and 'cluster_labels' [K, C], and where it comes
      from. Numbers that are not finite are None.

    Raises:
      ConfigError: devices that cannot share a batch.
    """
    settings = settings or Settings()
    heat = settings.temperatures
    if train is not None and settings.statistics == "train":
        draw_key, size = jax.random.fold_in(key, 5), settings.batch_size
        trained = recomputed_statistics(trained, train, batch_size=size, key=draw_key)

    number_key, picture_key = jax.random.split(key)
    found = evaluate_all(trained, source, key=number_key, settings=settings)
    if train is not None:
        probe(found, trained, source, train, key=number_key, settings=settings)

    more: dict[str, Any] = {"history": history, "samplers": samplers}
    shown = images.make_images(trained, source, found, picture_key, settings, **more)

    if features is not None and trained.makes_images:
        found.quality = evaluate_quality(
            trained,
            features,
            source,
            key=jax.random.fold_in(picture_key, 2),
            num_examples=settings.fd_examples,
            temperatures=heat,
            samplers=samplers,
            others=None if split == "train" else train,
        )
    written = []
    if trained.vocabulary is not None:
        written = passages.make_passages(trained, source, picture_key, heat)

    results = strict_json(
        {
            **numbers_of(found, trained),
            "step": step,
            "split": split,
            "pictures": {picture.file: picture.caption for picture in shown},
            "passages": [dataclasses.asdict(passage) for passage in written],
            "settings": dataclasses.asdict(settings),
            "config": config,
            "versions": versions(),
            "checksums": _checksums(trained, config),
        }
    )
    if jax.process_index() == 0:
        write_report(out_dir, results, shown)
    return results


def _checksums(trained: TrainedModel, config: Mapping[str, Any]) -> dict[str, str]:
    """Returns digests of what was evaluated, by which results can be matched."""
    return {
        "parameters": json_digest(checksums(trained.params)),
        "state": json_digest(checksums(trained.state)),
        "config": json_digest(strict_json(config)),
    }


def write_report(
    out_dir: epath.PathLike, results: Mapping[str, Any], shown: Sequence[Picture]
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
        files.write_whole(folder / picture.file, picture.png)
    text = json.dumps(results, indent=2, allow_nan=False) + "\n"
    files.write_whole(folder / "results.json", text)
    files.write_whole(folder / "report.html", render_report(results, shown))


def render_report(results: Mapping[str, Any], shown: Sequence[Picture]) -> str:
    """Returns the page, one file without any other.

    Args:
      results: from `evaluate`.
      shown: the pictures.
    """
    kl, active = results.get("kl_per_group") or [], results.get("active") or []
    dimensions: Sequence[int] = []
    if len(kl) >= len(active):
        dimensions = interpolation.by_kl(np.asarray(kl[: len(active)]), len(active))
    return html.render_template(
        "report.html",
        results=results,
        pictures=shown,
        config=dict(flat_fields(results["config"])),
        probe_features=FEATURES,
        dimensions=dimensions,
    )


def flat_fields(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ('section.field', value) for every leaf of nested dicts."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat_fields(value, f"{prefix}{name}.")
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


def json_digest(value: Any) -> str:
    """Returns the SHA-256 of JSON, whatever the order of its fields."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions and the device behind the numbers."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    python = platform.python_version()
    return {"jvae": jvae.__version__, "python": python, **versions, "devices": device}
