"""What was measured of a model: numbers, and the arrays behind them for pictures."""

from __future__ import annotations

import dataclasses

from jvae.evaluation.classification import Classification
from jvae.evaluation.clustering import Clusters
from jvae.evaluation.latents import Latents
from jvae.evaluation.likelihood import Observation
from jvae.evaluation.measures import Measure
from jvae.evaluation.probes import Probes


@dataclasses.dataclass
class Findings:
    """All that was measured of a model on one split; None where it has no such thing.

    Attributes:
      num_examples: how many examples, the first of the split.
      measures: numbers by name.
      observation: what log p(x|z) is, of a model of data.
      latents: what the latents carry, of a model that draws them.
      classification: what a classifier makes of the examples.
      clusters: those of the examples, of a model with clusters.
      probes: what labels can be told from the codes, where it was asked for.
    """

    num_examples: int
    measures: dict[str, Measure] = dataclasses.field(default_factory=dict)
    observation: Observation | None = None
    latents: Latents | None = None
    classification: Classification | None = None
    clusters: Clusters | None = None
    probes: Probes | None = None
