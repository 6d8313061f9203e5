"""What the page can ask of a model: pictures or sentences at points of its latents."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jvae.commands.explore.chart import Chart
from jvae.data.sources import Source
from jvae.data.vocabulary import split_sentence
from jvae.errors import ConfigError, require
from jvae.evaluation.latents import LatentStatistics, evaluate_latents
from jvae.evaluation.scales import has_scales
from jvae.pretrained import image_grid, interpolation, samplers, samples
from jvae.pretrained.predictions import has_clusters
from jvae.pretrained.restore import Pretrained
from jvae.pretrained.trained_model import Examples
from jvae.types import Array

MAX_DIMS = 8
"""Dimensions that have a slider."""
COLUMNS = 8
"""Images in a row of samples and paths."""
ROWS = 4
"""Rows of samples, and of variations."""
MAX_TEMPERATURE = 2.0
MAX_SEED = 2**31 - 1
LARGE_TILE = 256
"""Pixels of the one picture that a point is decoded to."""
NAMED = 3
"""Dimensions whose values are said in words."""
NUMBERS = (int, float, np.integer, np.floating)
MOST = 1e6
"""What a number of a code cannot be beyond."""
Point = Sequence[float] | np.ndarray


@dataclasses.dataclass(frozen=True)
class Shown:
    """An answer: a picture or sentences, and what they are in words.

    Attributes:
      words: what is seen, for those who see it and those who do not.
      sheet: uint8 [height, width, 1 or 3]; None of sentences.
      sentences: in order; none of pictures.
    """

    words: str
    sheet: np.ndarray | None = None
    sentences: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Explorer:
    """A restored model beside the first examples of a split.

    Its methods may be called from several threads. They raise ConfigError for a
    request that cannot be answered, whatever it holds.

    Attributes:
      model: from `jvae.restore`.
      x: [N, ...], examples as the model reads them.
      labels: [N]; None where the data has none.
      latents: what the examples put into the latents; None of a hierarchy or a model
        without latents.
    """

    model: Pretrained
    x: np.ndarray
    labels: np.ndarray | None = None
    latents: LatentStatistics | None = None

    @classmethod
    def of(cls, model: Pretrained, source: Source, num_examples: int) -> Explorer:
        """Returns the explorer of a model beside the first examples of a split.

        Args:
          model: from `jvae.restore`.
          source: the split.
          num_examples: how many, or all if there are fewer.
        """
        require(num_examples >= 2, "num_examples", "be at least 2", num_examples)
        count = min(num_examples, len(source))
        batch = source.read(np.arange(count))
        key = jax.random.key(0)
        if model.vocabulary is None:
            x = np.asarray(model.prepare(jnp.asarray(batch["image"]), key))
        else:
            x = np.asarray(batch["tokens"])
        latents = None
        if model.has_latents and not has_scales(model):
            size = 16 * model.mesh.size
            shown = Examples(batch_size=size, key=key, num_examples=count)
            latents = evaluate_latents(model, source, **shown)
        return cls(model, x, batch.get("label"), latents)

    @property
    def decodes(self) -> bool:
        """Whether the model makes images or sentences."""
        return self.model.is_generative

    @property
    def is_text(self) -> bool:
        """Whether the examples are sentences."""
        return self.model.vocabulary is not None

    @functools.cached_property
    def chart(self) -> Chart | None:
        """The map of the examples' codes; None of a model without posterior means."""
        means = None if self.latents is None else self.latents.means
        return None if means is None else Chart.of(means, self.signs)

    @functools.cached_property
    def signs(self) -> np.ndarray | None:
        """[N], what marks an example: its label, else its cluster; None of neither."""
        if self.labels is None and has_clusters(self.model):
            return np.asarray(self.model.cluster(jnp.asarray(self.x)))
        return self.labels

    @functools.cached_property
    def dims(self) -> tuple[int, ...]:
        """The dimensions that have a slider, most KL first.

        There are none where a code is no vector that may be anywhere: one-hot, on a
        sphere, of a hierarchy or a flow.
        """
        latents = self.latents
        if not self.decodes or latents is None or latents.kl_per_dim is None:
            return ()
        active = 0 if latents.active is None else int(latents.active.sum())
        count = min(MAX_DIMS, max(active, 1))
        return tuple(interpolation.by_kl(latents.kl_per_dim, count))

    def kl(self, dim: int) -> float:
        """Returns the mean KL of one of `dims`, in nats."""
        kl = None if self.latents is None else self.latents.kl_per_dim
        return math.nan if kl is None else float(kl[dim])

    @property
    def reach(self) -> float:
        """How far from 0 a slider goes: to all codes, and to three at least."""
        if self.latents is None or self.latents.means is None:
            return 3.0
        return max(3.0, math.ceil(float(np.abs(self.latents.means).max())))

    @property
    def has_paths(self) -> bool:
        """Whether two examples can be interpolated."""
        return self.decodes and samples.has_codes(self.model)

    @property
    def has_samples(self) -> bool:
        """Whether the model draws images or sentences."""
        return self.decodes and self.model.model.offers("generate")

    @property
    def num_scales(self) -> int:
        """Scales that can be kept while finer ones are drawn; 0 of no hierarchy."""
        is_hierarchy = self.model.model.offers("resample")
        return len(self.model.model.groups) if is_hierarchy else 0

    @property
    def choices(self) -> tuple[str, int]:
        """('class' or 'cluster', how many there are), ('', 0) of other models."""
        if self.model.model.num_classes is not None:
            return "class", self.model.model.num_classes
        if has_clusters(self.model):
            return "cluster", self.model.model.num_clusters
        return "", 0

    @property
    def samplers(self) -> list[str]:
        """The names of what was fitted to draw in the prior's place."""
        folder = self.model.samplers
        return [] if folder is None else samplers.names(folder)

    def code(self, index: Any) -> np.ndarray:
        """Returns z [D], the mode of q(z|x) of an example."""
        return self._code(self._example(index))

    def moved(self, z: Point, values: Sequence[Any]) -> np.ndarray:
        """Returns z [D] with the values of `dims` in place of its own."""
        require(len(values) == len(self.dims), "values", f"be {len(self.dims)}", values)
        point = self._point(z).copy()
        point[list(self.dims)] = [_number("a slider", v, self.reach) for v in values]
        return point

    def point_at(self, place: np.ndarray) -> np.ndarray:
        """Returns z [D], the point of the map's plane at a place [2].

        Raises:
          ConfigError: a model whose codes cannot be moved.
        """
        if self.chart is None or not self.dims:
            raise ConfigError("the codes of this model cannot be moved")
        point = np.asarray(self.chart.plane.point(place), np.float32)
        return np.clip(point, -self.reach, self.reach)  # where sliders can follow

    def decoded(self, z: Point) -> Shown:
        """Returns the mean of p(x|z), or the likeliest sentence, at z [D]."""
        point = self._point(z)
        images = samples.decoded(self.model, point[None])
        what = "The likeliest sentence" if self.is_text else "The mean of p(x|z)"
        some = ", ".join(f"z_{d} = {point[d]:.2f}" for d in self.dims[:NAMED])
        more = ", ..." if len(self.dims) > NAMED else ""
        return self._shown(images, f"{what} at {some}{more}", LARGE_TILE)

    def beside(self, index: Any) -> Shown:
        """Returns an example, beside its reconstruction if the model decodes."""
        x, words = self._example(index), f"Example {self._name(index)}"
        if not self.has_paths:
            return self._shown(x, f"{words}.", LARGE_TILE)
        reconstructions = samples.reconstructions(self.model, x, jax.random.key(0))
        both = jnp.concatenate([x, self._wide(reconstructions)])
        return self._shown(both, f"{words}, and its reconstruction.", LARGE_TILE)

    def interpolate(self, first: Any, second: Any) -> Shown:
        """Returns the path between the codes of two examples, decoded."""
        text = f"From example {self._name(first)} to {self._name(second)}."
        return self._path(self._example(first), self._example(second), text)

    def between_sentences(self, first: str, second: str) -> Shown:
        """Returns the sentences on the path between two that a person has typed."""
        text = "From the first sentence to the second."
        return self._path(self._read(first), self._read(second), text)

    def code_of_sentence(self, sentence: str) -> np.ndarray:
        """Returns z [D], the mode of q(z|x) of a typed sentence."""
        return self._code(self._read(sentence))

    def drawn(
        self, seed: Any, temperature: Any, choice: Any = None, sampler: Any = None
    ) -> Shown:
        """Returns samples.

        Args:
          seed: of the draws.
          temperature: factor on the prior's standard deviations.
          choice: a class or cluster; None for all.
          sampler: one of `samplers`; None for the prior.
        """
        key, heat = _key(seed), _number("temperature", temperature, MAX_TEMPERATURE, 0)
        kind, count = self.choices
        label, of = None, ""
        if choice is not None:
            label = _whole(kind or "class", choice, 0, count - 1)
            of = f" of {kind} {label}"
        is_known = sampler is None or sampler in self.samplers
        require(is_known, "sampler", f"be one of {self.samplers}", sampler)
        n = COLUMNS * (1 if self.is_text else ROWS)
        images = self.model.sample(key, n, heat, label=label, sampler=sampler)
        return self._shown(images, f"{n} samples{of} at temperature {heat:g}.")

    def varied(self, seed: Any, temperature: Any, num_kept: Any) -> Shown:
        """Returns samples of a hierarchy whose coarse scales stay along a row."""
        key, heat = _key(seed), _number("temperature", temperature, MAX_TEMPERATURE, 0)
        count = _whole("kept", num_kept, 0, self.num_scales)
        images = self.model.resample_fine_scales(key, ROWS, COLUMNS, count, heat)
        text = f"Along a row {count} of {self.num_scales} scales stay, the coarsest."
        return self._shown(images.reshape(-1, *images.shape[2:]), text)

    def thumbnails(self, count: int) -> Shown:
        """Returns the first examples, `count` at most."""
        return self._shown(self.x[:count], f"The first {count} examples.")

    def _example(self, index: Any) -> Array:
        """Returns the example [1, ...] of a number, whatever was sent for it."""
        place = _whole("example", index, 0, len(self.x) - 1)
        return jnp.asarray(self.x[place : place + 1])

    def _name(self, index: Any) -> str:
        place = _whole("example", index, 0, len(self.x) - 1)
        label = "" if self.labels is None else f" (label {int(self.labels[place])})"
        return f"{place}{label}"

    def _code(self, x: Array) -> np.ndarray:
        return np.asarray(samples.codes(self.model, x))[0]

    def _point(self, z: Point) -> np.ndarray:
        if not self.dims or self.latents is None or self.latents.means is None:
            raise ConfigError("the codes of this model cannot be moved")
        size = self.latents.means.shape[1]
        require(len(z) == size, "z", f"have {size} numbers", z)
        return np.asarray([_number("z", v, MOST) for v in z], np.float32)

    def _path(self, a: Array, b: Array, words: str) -> Shown:
        if not self.has_paths:
            raise ConfigError("this model has no paths")
        return self._shown(self.model.interpolate(a, b, COLUMNS)[0], words)

    def _read(self, sentence: str) -> Array:
        if not self.is_text:
            raise ConfigError("this model reads no sentences")
        unit = self.model.vocabulary.unit
        length, most = len(split_sentence(str(sentence), unit)), self.x.shape[1] - 1
        rule = f"have from 1 to {most} {unit}s"
        require(1 <= length <= most, "a sentence", rule, length)
        return self._wide(self.model.tokenize([str(sentence)]))

    def _wide(self, x: Array) -> Array:
        """Returns sentences as wide as the examples, so that little is compiled."""
        missing = self.x.shape[1] - x.shape[1] if self.is_text else 0
        return jnp.pad(x, ((0, 0), (0, missing))) if missing > 0 else x

    def _shown(self, output: Any, words: str, tile: int = image_grid.MIN_TILE) -> Shown:
        if self.is_text:
            return Shown(words, sentences=tuple(self.model.detokenize(output)))
        unit = np.asarray(self.model.transform.to_unit(jnp.asarray(output)))
        edge = 0 if len(unit) == 1 else 4
        return Shown(words, image_grid.grid(unit, COLUMNS, edge, tile))


def _key(seed: Any) -> jax.Array:
    return jax.random.key(_whole("seed", seed, 0, MAX_SEED))


def _whole(name: str, value: Any, low: int, high: int) -> int:
    """Returns a whole number of a range, whatever was sent for it."""
    inside = isinstance(value, NUMBERS) and low <= value <= high
    rule = f"be a whole number within {low} and {high}"
    require(bool(inside) and int(value) == value, name, rule, value)
    return int(value)


def _number(name: str, value: Any, most: float, least: float | None = None) -> float:
    """Returns a finite number from `least`, else -`most`, to `most`."""
    least = -most if least is None else least
    inside = isinstance(value, NUMBERS) and least <= value <= most
    rule = f"be a number within {least:g} and {most:g}"
    require(bool(inside), name, rule, value)
    return float(value)
