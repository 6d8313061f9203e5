"""The sentences of a report: what a model of sentences writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from jvae import keys
from jvae.data.sources import Source
from jvae.pretrained import interpolation, samples
from jvae.pretrained.trained_model import TrainedModel
from jvae.types import Array, Key

NUM_SENTENCES = 10
"""Sentences in a passage."""
NUM_POINTS = 6
"""Codes on the way from one sentence to another, ends included."""
NUCLEUS = 0.9


@dataclasses.dataclass(frozen=True)
class Passage:
    """A table of sentences.

    Attributes:
      title: a few words.
      caption: what is read.
      columns: their names.
      rows: a sentence for each column.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def make_passages(
    trained: TrainedModel, source: Source, key: Key, temperatures: Sequence[float]
) -> list[Passage]:
    """Returns the passages that the model has methods for.

    Args:
      trained: a model of sentences.
      source: the split, whose first sentences are read.
      key: of all draws.
      temperatures: of the prior, a passage of samples for each.
    """
    sample_key, word_key = jax.random.split(key)
    shown: list[Passage] = []
    if samples.has_codes(trained):
        tokens = source.read(np.arange(min(len(source), NUM_SENTENCES)))["tokens"]
        shown.append(_reconstructions(trained, tokens, word_key))
        if len(tokens) > 1:
            shown.append(_between(trained, tokens))
    if not trained.has_latents or trained.has_uniform_prior:
        temperatures = (1.0,)
    return shown + [_samples(trained, sample_key, t) for t in temperatures]


def said_of_prior(trained: TrainedModel, temperature: float) -> tuple[str, str]:
    """Returns (the title of samples, the end of the sentence on their prior)."""
    if trained.has_uniform_prior:
        return "Samples", "the prior, which is uniform."
    title = f"Samples at temperature {float(temperature)}"
    return title, f"the prior with its standard deviation times {temperature:g}."


def _reconstructions(trained: TrainedModel, tokens: np.ndarray, key: Key) -> Passage:
    spell = trained.vocabulary.decode
    greedy = spell(np.asarray(samples.reconstructions(trained, tokens, key)))
    each = keys.per_example(key, len(tokens))
    rewritten = spell(np.asarray(trained.run(_rewrite, tokens, each)))
    text = (
        "What is read, and what is written at the mode of q(z|x): the likeliest token "
        f"each time, and draws from the likeliest that have {NUCLEUS:.0%} together."
    )
    rows = list(zip(spell(tokens), greedy, rewritten, strict=True))
    columns = ("read", "written, likeliest", "written, drawn")
    return Passage("Reconstructions", text, columns, rows)


def _rewrite(trained: TrainedModel, tokens: Array, key: Key) -> Array:
    z = samples.code_of(trained, tokens)
    return trained.call("write", z, key, NUCLEUS)


def _between(trained: TrainedModel, tokens: np.ndarray) -> Passage:
    ends = tokens[:1], tokens[1:2]
    points = np.asarray(interpolation.interpolate(trained, *ends, NUM_POINTS))[0]
    text = (
        f"The likeliest tokens at {NUM_POINTS} codes on the way from that of the "
        "first sentence to that of the second."
    )
    rows = [(sentence,) for sentence in trained.vocabulary.decode(points)]
    return Passage("From one sentence to another", text, ("written",), rows)


def _samples(trained: TrainedModel, key: Key, temperature: float) -> Passage:
    tokens = samples.prior_samples(trained, key, NUM_SENTENCES, temperature)
    title, text = "Samples", "Draws of the model, token by token."
    if trained.has_latents:
        title, prior = said_of_prior(trained, temperature)
        text = f"Draws of p(x|z), z drawn from {prior}"
    rows = [(sentence,) for sentence in trained.vocabulary.decode(tokens)]
    return Passage(title, text, ("written",), rows)
