"""What is evaluated, and the one loop over examples that every number comes from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Required, TypedDict

import jax
import numpy as np
from jax.sharding import Mesh

from jvae import keys
from jvae.contract import Model, as_model
from jvae.data import transforms
from jvae.data.pipeline import eval_batches
from jvae.data.sources import Source
from jvae.data.transforms import Transform
from jvae.errors import ConfigError
from jvae.runtime import mesh, xla_options
from jvae.types import Array, Batch, Key, Params, State


class Examples(TypedDict, total=False):
    """Which examples of a split are measured, as `TrainedModel.map_examples` has it.

    Args:
      batch_size: of all devices together; no result depends on it.
      key: of all draws: of the transform of the data, and of z.
      num_examples: how many, the first of the split; None, or left out, for all.

    Raises:
      ConfigError: the devices cannot share batch_size rows.
      DataError: num_examples is more than there are.
    """

    batch_size: Required[int]
    key: Required[Key]
    num_examples: int | None


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with its parameters, and what its input goes through.

    Attributes:
      model: offers `infer`, `likelihood` and `target`; for one of equal fields nothing
        is compiled twice.
      params: its parameters, on `mesh` or on no particular device.
      state: its other collections, {} if it has none.
      transform: from stored pixels to the support of the likelihood.
      mesh: the devices.
      vocabulary: of sentences, a `jvae.data.vocabulary.Vocabulary`; None of others.
      before_batch: called before each batch of a loop over a split, such as to show
        progress; what it raises ends the loop.
    """

    model: Model
    params: Params
    state: State
    transform: Transform
    mesh: Mesh
    vocabulary: Any = None
    before_batch: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        """Fills in what a model of another class lacks."""
        object.__setattr__(self, "model", as_model(self.model))

    @property
    def name(self) -> str:
        """The class of the model, for messages."""
        return type(self.model).__name__

    def require(self, fits: bool, lack: str, fix: str = "") -> None:
        """Raises ConfigError "<class of the model> <lack>." unless the model fits."""
        if not fits:
            raise ConfigError(f"{self.name} {lack}", fix=fix)

    @property
    def is_generative(self) -> bool:
        """Whether p(x|z) is over data, so that there are bounds on log p(x)."""
        return self.model.offers("likelihood") and not self.is_classifier

    @property
    def makes_images(self) -> bool:
        """Whether p(x|z) is over images."""
        return self.is_generative and self.transform.support != "tokens"

    @property
    def has_latents(self) -> bool:
        """Whether the model draws latents; a language model has none."""
        has_some = self.is_generative or self.model.offers("posterior")
        return has_some and self.model.has_latents

    @property
    def is_classifier(self) -> bool:
        """Whether what the model scores are labels."""
        return self.model.target == "label"

    @property
    def has_uniform_prior(self) -> bool:
        """Whether the prior is uniform; a temperature leaves it as it is."""
        return bool(self.model.uniform_prior)

    @property
    def variables(self) -> dict[str, Any]:
        """The parameters and all other collections, as `model.apply` takes them."""
        return {"params": self.params, **self.state}

    def call(self, method: str | Callable, *args: Any, **options: Any) -> Any:
        """Returns what a method of the model gives, computed operation by operation.

        Args:
          method: its name, or a function whose first argument is the model.
          *args: of the method.
          **options: of the method.
        """
        return self.model.apply(self.variables, *args, method=method, **options)

    def run(self, function: Callable, /, *args: Any, **options: Any) -> Any:
        """Returns `function(self, *args, **options)`, compiled.

        Once for a function, a model, options and shapes, not again for new parameters.
        The function sees a model without a vocabulary.

        Args:
          function: pure, defined once (not a lambda or partial made at each call).
          *args: pytrees of arrays.
          **options: hashable values that are part of the program.

        Returns:
          Arrays that every device, hence every process, holds whole.
        """
        static = (_Static(self.model), _Static(self.transform), self.mesh)
        program = (function, tuple(options.items()), *static)
        arguments = (program, self.params, self.state, args)
        if xla_options.is_tracing(self.params, self.state, args):
            return _run(*arguments)
        return _compiled(mesh.platform(self.mesh))(*arguments)

    def prepare(self, pixels: Any, key: Key) -> Array:
        """Returns stored pixels in the support of the likelihood, [B, H, W, C].

        Args:
          pixels: [B, H, W, C], uint8, or float32 in [0, 1] where the transform takes
            it.
          key: one key, or [B] keys, of the draws that a transform may make.
        """
        return _transformed(pixels, key, _Static(self.transform))

    def map_examples(
        self,
        function: Callable,
        source: Source,
        *,
        batch_size: int,
        key: Key,
        num_examples: int | None = None,
        **options: Any,
    ) -> Any:
        """Returns what `function` gives for each of the first examples, each once.

        What an example gets does not depend on `batch_size` or the devices: its draws
        are made with the key of its position in the source.

        Args:
          function: `(trained, keys [B], batch, **options)` -> pytree of [B, ...]; the
            batch is prepared.
          source: a split.
          batch_size: of all devices together.
          key: of the draws, of the transform and of the model.
          num_examples: how many; None for all.
          **options: hashable values passed on to `function`.

        Returns:
          A pytree of numpy arrays [num_examples, ...], in the order of the source.

        Raises:
          ConfigError: the devices cannot share batch_size rows.
          DataError: num_examples is more than there are.
        """
        options |= {"batch_size": batch_size, "key": key, "num_examples": num_examples}
        results = self._each_batch(function, source, **options)
        values, mask, index = jax.tree.map(lambda *r: np.concatenate(r), *results)
        places = np.flatnonzero(mask)[np.argsort(index[mask])]
        return jax.tree.map(lambda each: each[places], values)

    def mean_over_batches(
        self, function: Callable, source: Source, **options: Any
    ) -> Any:
        """Returns the mean of what `function` gives for batches, weighted by size.

        Of a value that is a mean over examples it is the mean over all of them. One
        that couples the examples of a batch depends on `batch_size`.

        Args:
          function: `(trained, keys [B], batch, **options)` -> pytree of scalars or
            arrays; the batch is prepared, and has a mask.
          source: a split.
          **options: batch_size, key and num_examples, as for `map_examples`; hashable
            values passed on to `function`.

        Returns:
          A pytree of floats and float64 arrays.

        Raises:
          ConfigError: the devices cannot share batch_size rows.
          DataError: num_examples is more than there are.
        """
        results = list(self._each_batch(function, source, **options))
        sizes = [mask.sum() for _, mask, _ in results]

        def mean(*values):
            total = np.average(np.asarray(values, np.float64), axis=0, weights=sizes)
            return total if total.ndim else float(total)

        return jax.tree.map(mean, *(values for values, _, _ in results))

    def _each_batch(
        self,
        function: Callable,
        source: Source,
        *,
        batch_size: int,
        key: Key,
        num_examples: int | None = None,
        **options: Any,
    ) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """Yields (what `function` gives for a batch, its mask and index), in numpy."""
        mesh.check_batch_size(batch_size, self.mesh)
        batches = eval_batches(
            source,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_examples=num_examples,
        )
        options |= {"function": function}

        running = None
        for batch in batches:
            self.before_batch()
            placed = mesh.put_batch(batch, self.mesh)
            # Every batch has the same key: an example's own is made of its index.
            started = self.run(_prepared, jax.random.clone(key), placed, **options)

            # One batch is computed while the next is read, and no more wait in memory.
            if running is not None:
                yield jax.device_get(running)
            running = started
        yield jax.device_get(running)


class _Static:
    """A model or transform as a static argument: equal ones run the same programs.

    Models are hashable only if all their fields are, and a field from a JSON file may
    be a list; a field may also be an array, whose comparison is no truth value.
    """

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return hash(type(self.value))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static):
            return False
        if self.value is other.value:
            return True
        try:
            same_type = type(self.value) is type(other.value)
            return same_type and bool(self.value == other.value)
        except (TypeError, ValueError):
            return False


@functools.partial(jax.jit, static_argnames="transform")
def _transformed(image: Any, key: Key, transform: _Static) -> Array:
    return transforms.prepare({"image": image}, key, transform.value)["image"]


@functools.cache
def _compiled(platform: str) -> Callable:
    """Returns `_run`, compiled for a platform."""
    options = xla_options.for_repeated_runs(platform)
    return jax.jit(_run, static_argnums=0, compiler_options=options)


def _run(program: tuple, params: Params, state: State, args: tuple) -> Any:
    function, options, model, transform, devices = program
    params, state = mesh.all_gathered((params, state), devices)
    trained = TrainedModel(model.value, params, state, transform.value, devices)
    return mesh.all_gathered(function(trained, *args, **dict(options)), devices)


def _prepared(
    trained: TrainedModel, key: Key, batch: Batch, *, function: Callable, **options: Any
) -> tuple[Any, Array, Array]:
    """Returns (function of the prepared batch, its mask, its index)."""
    data_key, latent_key = jax.random.split(key)
    index = batch["index"]
    transform, data_keys = trained.transform, keys.at_indices(data_key, index)
    ready = transforms.prepare(batch, data_keys, transform)
    values = function(trained, keys.at_indices(latent_key, index), ready, **options)
    return values, batch["mask"], index
