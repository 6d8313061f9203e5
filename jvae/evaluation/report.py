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
from jvae.errors import DataError, require
from jvae.evaluation import gallery
from jvae.evaluation.classification import (
    classification_measures,
    evaluate_classification,
)
from jvae.evaluation.clustering import (
    cluster_measures,
    contingency,
    evaluate_clusters,
    has_clusters,
)
from jvae.evaluation.findings import Findings
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
from jvae.evaluation.probes import FEATURES, evaluate_probes, probe_measures
from jvae.evaluation.subject import Subject
from jvae.types import Key

NUM_PROBED = 10_000
PACKAGES = ("jax", "jaxlib", "flax", "numpy")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much an evaluation measures and shows.

    Args:
      num_examples: at most this many examples, the first of the split.
      batch_size: examples at once, a multiple of the devices; no number depends on it.
      num_samples: draws of z per example, importance-weighted for the NLL, averaged
        over for the accuracy of a classifier.
      chunk_size: how many of these draws are in memory at once.
      temperatures: factors on the prior's standard deviation, a picture of samples at
        each.
      num_images: samples in a picture.
      reach: how far traversals go from 0, in standard deviations of the prior.
      probe_examples: labelled training examples for nearest neighbours and a linear
        probe on the codes; None for 10,000 of an encoder without a decoder and none of
        others.

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
    probe_examples: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        counts = ("num_examples", "batch_size", "num_samples", "chunk_size")
        for name in (*counts, "num_images"):
            value = getattr(self, name)
            require(value >= 1, name, "be at least 1", value)
        lowest = min(self.temperatures, default=0.0)
        require(lowest >= 0.0, "temperatures", "be at least 0", self.temperatures)
        require(self.reach > 0.0, "reach", "be positive", self.reach)
        probe = self.probe_examples
        rule = "be None or at least 0"
        require(probe is None or probe >= 0, "probe_examples", rule, probe)

    def num_probed(self, subject: Subject) -> int:
        """Returns how many training examples probes see, 0 for no probes."""
        if self.probe_examples is not None:
            return self.probe_examples
        has_codes_alone = not (subject.is_generative or subject.is_classifier)
        return NUM_PROBED if has_codes_alone else 0


def evaluate(
    subject: Subject,
    source: Source,
    out_dir: epath.PathLike,
    *,
    config: Mapping[str, Any],
    step: int,
    split: str,
    key: Key,
    train: Source | None = None,
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
      train: the training split, whose labels probes see; None for no probes.
      history: rows of metrics.jsonl for the training curves; None for none.
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
    number_key, picture_key = jax.random.split(key)
    found = measure(subject, source, key=number_key, settings=settings)
    if train is not None:
        probe(found, subject, source, train, key=number_key, settings=settings)
    shown = gallery.make(
        subject,
        source,
        found,
        picture_key,
        temperatures=settings.temperatures,
        num_images=settings.num_images,
        reach=settings.reach,
        history=history,
    )
    numbers = numbers_of(found, subject)
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
) -> Findings:
    """Returns all that is measured of a model on a split.

    Args:
      subject: what is evaluated.
      source: the split.
      key: of all draws.
      settings: how much to measure.
    """
    elbo_key, weights_key, latent_key, label_key = (
        *jax.random.split(key, 3),
        jax.random.fold_in(key, 3),
    )
    common: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "num_examples": min(settings.num_examples, len(source)),
    }
    found = Findings(common["num_examples"])
    if subject.is_generative:
        draws = {"num_samples": settings.num_samples, "chunk_size": settings.chunk_size}
        elbo = evaluate_elbo(subject, source, key=elbo_key, **common)
        weighted = evaluate_log_likelihood(
            subject, source, key=weights_key, **draws, **common
        )
        found.observation = observation(subject, source)
        num_dims = math.prod(source.shapes[subject.model.target])
        found.measures |= likelihood_measures(
            elbo, weighted, found.observation, num_dims
        )
    if subject.is_classifier:
        found.classification = evaluate_classification(
            subject,
            source,
            key=label_key,
            num_samples=settings.num_samples,
            **common,
        )
        found.measures |= classification_measures(found.classification)
    if subject.is_generative or hasattr(subject.model, "posterior"):
        found.latents = evaluate_latents(subject, source, key=latent_key, **common)
        found.measures |= latent_measures(found.latents)
    if has_clusters(subject):
        found.clusters = evaluate_clusters(subject, source, key=label_key, **common)
        found.measures |= cluster_measures(found.clusters)
    return found


def probe(
    found: Findings,
    subject: Subject,
    source: Source,
    train: Source,
    *,
    key: Key,
    settings: Settings,
) -> None:
    """Adds what labels can be told from the codes, if the settings ask for it.

    Args:
      found: what was measured.
      subject: what is evaluated.
      source: the split.
      train: the training split.
      key: of the transform and of the untrained encoder.
      settings: how much to measure.

    Raises:
      ConfigError: probes are asked for of a model without codes.
      DataError: they are asked for of data without labels.
    """
    count = settings.num_probed(subject)
    if not count:
        return
    is_asked_for = settings.probe_examples is not None
    if "label" not in train.shapes:
        if is_asked_for:
            fix = "Set probe_examples to 0."
            raise DataError("probes need labels and the data set has none", fix=fix)
        return
    found.probes = evaluate_probes(
        subject,
        train,
        source,
        batch_size=settings.batch_size,
        key=jax.random.fold_in(key, 4),
        num_train=count,
        num_test=found.num_examples,
    )
    found.measures |= probe_measures(found.probes)


def numbers_of(found: Findings, subject: Subject) -> dict[str, Any]:
    """Returns what results.json says of all that was measured.

    Args:
      found: from `measure`.
      subject: what was evaluated.
    """
    numbers: dict[str, Any] = {
        "num_examples": found.num_examples,
        "about": about(found, subject),
        "metrics": {n: dataclasses.asdict(row) for n, row in found.measures.items()},
        "left_out": [],
    }
    if found.observation is not None:
        numbers["likelihood"] = dataclasses.asdict(found.observation)
    if found.latents is not None:
        numbers |= _numbers_of_latents(found.latents, subject)
    if found.classification is not None:
        numbers["confusion"] = found.classification.confusion.tolist()
    if found.probes is not None:
        numbers["probes"] = dataclasses.asdict(found.probes)
    if found.clusters is not None:
        numbers["cluster_sizes"] = found.clusters.histogram.tolist()
        if found.clusters.labels is not None:
            table = contingency(found.clusters.labels, found.clusters.assignments)
            numbers["cluster_labels"] = table.tolist()
    return numbers


def about(found: Findings, subject: Subject) -> str:
    """Returns what kind of model was evaluated, in a few words."""
    if found.observation is not None:
        return f"{found.observation.name} likelihood"
    if subject.is_classifier:
        return f"classifier of {subject.model.num_classes} labels"
    return "encoder without a decoder"


def _numbers_of_latents(latents: Latents, subject: Subject) -> dict[str, Any]:
    uniform = gallery.has_uniform_prior(subject.model)
    numbers = {
        "verdict": dataclasses.asdict(collapse_verdict(latents.kl, latents.active)),
        "kl_per_group": latents.kl.tolist(),
        "left_out": left_out(latents, uniform, subject.is_generative),
    }
    if latents.active is not None:
        numbers["active"] = latents.active.tolist()
    if latents.information is not None:
        numbers["mutual_info_cap"] = latents.information.cap
        numbers["clamped"] = list(latents.information.clamped)
    return numbers


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
        results=results,
        pictures=shown,
        config=dict(flat(results["config"])),
        probe_features=FEATURES,
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
