"""An evaluation: what is measured of a model, numbers and the arrays behind them."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jvae.data.sources import Source
from jvae.errors import DataError
from jvae.evaluation import clustering, disentanglement, reconstruction
from jvae.evaluation.classification import (
    Classification,
    classification_metrics,
    evaluate_classification,
)
from jvae.evaluation.latents import (
    LatentStatistics,
    collapse_verdict,
    evaluate_latents,
    lossless,
)
from jvae.evaluation.metrics import (
    Metric,
    latent_metrics,
    left_out,
    likelihood_metrics,
    scale_metrics,
    sentence_metrics,
)
from jvae.evaluation.probes import Probes, evaluate_probes, probe_metrics
from jvae.evaluation.quality import Quality
from jvae.evaluation.scales import ScaleStatistics, evaluate_scales, has_scales
from jvae.evaluation.settings import Settings
from jvae.pretrained import likelihood
from jvae.pretrained.predictions import has_clusters
from jvae.pretrained.samples import has_codes
from jvae.pretrained.trained_model import Examples, TrainedModel
from jvae.types import Key


@dataclasses.dataclass
class EvaluationResults:
    """All that was measured of a model on one split; None where it has no such thing.

    Attributes:
      num_examples: how many examples, the first of the split.
      metrics: numbers by name.
      observation: what log p(x|z) is, of a model of data.
      latents: what the latents carry, of a model that draws them.
      classification: what a classifier makes of the examples.
      clusters: those of the examples, of a model with clusters.
      probes: what labels can be told from the codes, where it was asked for.
      scales: what each scale carries, of a hierarchy on maps; else none.
      quality: samples beside real images, where it was asked for.
    """

    num_examples: int
    metrics: dict[str, Metric] = dataclasses.field(default_factory=dict)
    observation: likelihood.Observation | None = None
    latents: LatentStatistics | None = None
    classification: Classification | None = None
    clusters: clustering.Clusters | None = None
    probes: Probes | None = None
    scales: list[ScaleStatistics] = dataclasses.field(default_factory=list)
    quality: Quality | None = None


def evaluate_all(
    trained: TrainedModel, source: Source, *, key: Key, settings: Settings
) -> EvaluationResults:
    """Returns all that is measured of a model on a split.

    Args:
      trained: what is evaluated.
      source: the split.
      key: of all draws.
      settings: how much to measure.
    """
    reconstruction_key, bounds_key, latent_key = jax.random.split(key, 3)
    label_key = jax.random.fold_in(key, 3)
    num_examples = min(settings.num_examples, len(source))
    common: dict[str, Any] = {
        "trained": trained,
        "source": source,
        "batch_size": settings.batch_size,
        "num_examples": num_examples,
    }
    results, num_samples = EvaluationResults(num_examples), settings.num_samples

    if trained.is_generative:
        draws = common | {"chunk_size": settings.chunk_size, "num_samples": num_samples}
        bounds = likelihood.evaluate_bounds(key=bounds_key, **draws)
        results.observation = likelihood.observation(trained, source)
        results.metrics |= likelihood_metrics(bounds, num_samples, results.observation)
        if results.observation.is_text:
            lengths = source.read(np.arange(num_examples))["length"]
            each = likelihood.per_token(bounds["log_p"], lengths, num_samples)
            results.metrics |= sentence_metrics(each)

    if trained.makes_images and has_codes(trained):
        near = reconstruction.evaluate_reconstructions(key=reconstruction_key, **common)
        results.metrics |= reconstruction.reconstruction_metrics(near)

    if trained.is_classifier:
        draws = common | {"num_samples": num_samples}
        results.classification = evaluate_classification(key=label_key, **draws)
        results.metrics |= classification_metrics(results.classification)

    if trained.has_latents:
        results.latents = evaluate_latents(key=latent_key, **common)
        if trained.is_generative:  # one number for the KL, that of the table
            kl = np.asarray(bounds["kl"], np.float64).mean(0)
            results.latents = dataclasses.replace(results.latents, kl=kl)
        results.metrics |= latent_metrics(results.latents)
        if has_scales(trained):
            kl = results.latents.kl
            results.scales = evaluate_scales(kl=kl, key=latent_key, **common)
            results.metrics |= scale_metrics(results.scales, num_examples)
        if "factors" in source.shapes and results.latents.means is not None:
            scores = disentanglement.evaluate_disentanglement(key=latent_key, **common)
            if scores is not None:
                results.metrics |= disentanglement.disentanglement_metrics(scores)

    if has_clusters(trained):
        results.clusters = clustering.evaluate_clusters(key=label_key, **common)
        results.metrics |= clustering.cluster_metrics(results.clusters)

    return results


def probe(
    results: EvaluationResults,
    trained: TrainedModel,
    source: Source,
    train: Source,
    *,
    key: Key,
    settings: Settings,
) -> None:
    """Adds what labels can be told from the codes, if the settings ask for it.

    Args:
      results: what was measured.
      trained: what is evaluated.
      source: the split.
      train: the training split.
      key: of the transform and of the untrained encoder.
      settings: how much to measure.

    Raises:
      ConfigError: probes are asked for of a model without codes.
      DataError: they are asked for of data without labels.
    """
    count = settings.num_probed(trained)
    if not count:
        return
    if "label" not in train.shapes:
        if settings.probe_examples is None:  # nobody has asked for them
            return
        raise DataError(
            "probes need labels and the data set has none",
            fix="Set probe_examples to 0.",
        )
    size, key = settings.batch_size, jax.random.fold_in(key, 4)
    tested = Examples(batch_size=size, key=key, num_examples=results.num_examples)
    results.probes = evaluate_probes(trained, train, source, num_train=count, **tested)
    results.metrics |= probe_metrics(results.probes)


def numbers_of(results: EvaluationResults, trained: TrainedModel) -> dict[str, Any]:
    """Returns what results.json says of all that was measured.

    Args:
      results: from `evaluate_all`.
      trained: what was evaluated.
    """
    numbers: dict[str, Any] = {
        "num_examples": results.num_examples,
        "about": about(results, trained),
        "metrics": {n: dataclasses.asdict(row) for n, row in results.metrics.items()},
        "left_out": [],
    }

    if results.observation is not None:
        numbers["likelihood"] = dataclasses.asdict(results.observation)
    if results.latents is not None:
        numbers |= _numbers_of_latents(results.latents, trained)
    if results.quality is not None:
        numbers["quality"] = dataclasses.asdict(results.quality)
    if results.scales:
        numbers["scales"] = [dataclasses.asdict(scale) for scale in results.scales]

    if results.classification is not None:
        numbers["confusion"] = results.classification.confusion.tolist()
    if results.probes is not None:
        numbers["probes"] = dataclasses.asdict(results.probes)

    if results.clusters is not None:
        numbers["cluster_sizes"] = results.clusters.histogram.tolist()
        if results.clusters.labels is not None:
            labels, clusters = results.clusters.labels, results.clusters.assignments
            table = clustering.contingency(labels, clusters)
            numbers["cluster_labels"] = table.tolist()

    return numbers


def about(results: EvaluationResults, trained: TrainedModel) -> str:
    """Returns what kind of model was evaluated, in a few words."""
    if results.observation is not None:
        return f"{results.observation.name} likelihood"
    if trained.is_classifier:
        return f"classifier of {trained.model.num_classes} labels"
    return "encoder without a decoder"


def _numbers_of_latents(
    latents: LatentStatistics, trained: TrainedModel
) -> dict[str, Any]:
    if trained.model.is_lossless:
        verdict = lossless(latents.kl)
    else:
        verdict = collapse_verdict(latents.kl, latents.active)

    uniform = trained.has_uniform_prior
    numbers = {
        "verdict": dataclasses.asdict(verdict),
        "kl_per_group": latents.kl.tolist(),
        "left_out": left_out(latents, uniform, trained.is_generative),
    }

    if latents.active is not None:
        numbers["active"] = latents.active.tolist()
    if latents.draws is not None:
        mean, std = latents.draws.mean(0), latents.draws.std(0)
        numbers["aggregate"] = {"mean": mean.tolist(), "std": std.tolist()}
    if latents.information is not None:
        numbers["mutual_info_cap"] = latents.information.cap
        numbers["clamped"] = list(latents.information.clamped)
        numbers["at_most"] = list(latents.information.at_most)
        numbers["own_share"] = latents.information.own_share

    return numbers
