"""What a model offers: to objectives, to training, to evaluation and to sampling.

The one place where a model is asked for something by name. Losses and models meet here,
so that neither imports the other.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import inspect
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import jax
from flax import linen as nn

from jvae.errors import ConfigError
from jvae.types import Array, Batch, Coefficients, Inference, Key

TRAINING = "jvae_training"
"""Collection of what reaches a model in training alone: the coefficients it declares,
scalars, and 'dropout', [B] keys. Read-only; `losses.build` fills it in."""

_reads: contextvars.ContextVar[set[str] | None] = contextvars.ContextVar("reads")


class ModelDefaults:
    """What `Model` declares, without being a module: the last base of any model."""

    # Plain attributes and no properties, as a module may have fields of these names;
    # not annotated, as they would be fields of all.
    target = image_shape = num_classes = num_clusters = cast(Any, None)
    coefficients = cast(Any, types.MappingProxyType({}))
    num_init_examples = cast(Any, 0)
    latent_shapes = cast(Any, ())
    uniform_prior = has_dropout = is_lossless = cast(Any, False)
    has_latents = cast(Any, True)

    if TYPE_CHECKING:
        scope: Any

    def offers(self, *methods: str) -> bool:
        """Returns whether the model has all of these methods, and not by default."""
        fields = {field.name for field in dataclasses.fields(cast(Any, self))}
        return all(
            name in fields
            or getattr(type(self), name, None) is not getattr(ModelDefaults, name, None)
            for name in methods
        )

    # What reaches a model in training, from the collection `TRAINING`

    def annealed(self) -> Coefficients:
        """Returns the values of `coefficients` in training; {} outside of it."""
        values = ((name, self._given(name)) for name in self.coefficients)
        return {name: value for name, value in values if value is not None}

    def dropout_keys(self) -> Key | None:
        """Returns [B] keys, one for each example; None outside of training."""
        return self._given("dropout")

    def _given(self, name: str) -> Any:
        # Of the root: a model may be a part of another module.
        value = self.scope.root.get_variable(TRAINING, name)
        reads = _reads.get(None)
        if value is not None and reads is not None:
            reads.add(name)
        return value

    def __call__(self, batch: Batch, key: Key) -> Any:
        """Returns p(x|z) at one draw of z; what `init` traces."""
        return self.likelihood(self.infer(batch, key).latents, batch)

    # What objectives call

    def infer(self, batch: Batch, key: Key) -> Inference:
        """Returns one draw of the latents for each example, and what it costs.

        Args:
          batch: what the model reads.
          key: one key, or [B] keys, one per example.
        """
        raise _lacking(self, "infer")

    def likelihood(self, latents: Any, batch: Batch) -> Any:
        """Returns p(x|z), a distribution over `batch[target]`.

        Args:
          latents: those of `infer`.
          batch: what a likelihood reads beside them: tokens, mask.
        """
        raise _lacking(self, "likelihood")

    def posterior(self, batch: Batch) -> Any:
        """Returns q(z|x), a distribution over [B, ...], of one group of latents."""
        raise _lacking(self, "posterior")

    def prior(self, batch: Batch) -> Any:
        """Returns p(z), or p(z|y) of the labels of the batch."""
        raise _lacking(self, "prior")

    def cluster_log_probs(self, z: Array) -> Array:
        """Returns log q(y|z), [B, K], of a model with clusters."""
        raise _lacking(self, "cluster_log_probs")

    # What training calls

    def data_dependent_init(self, batch: Batch, key: Key) -> None:
        """Sets parameters by examples, once before the first step."""
        raise _lacking(self, "data_dependent_init")

    # What samples and reports call

    def as_batch(self, x: Array) -> dict[str, Array]:
        """Returns data as a person gives it as a batch that the model reads."""
        return {"image": x}

    def encode(self, x: Array) -> Any:
        """Returns q(z|x) of data as a person gives it."""
        return self.posterior(self.as_batch(x))

    def code(self, batch: Batch) -> Any:
        """Returns what stands for the mean of q(z|x) where there is no posterior."""
        raise _lacking(self, "code")

    def decode(self, z: Any) -> Array:
        """Returns the mean of p(x|z)."""
        raise _lacking(self, "decode")

    def interpolate(self, start: Any, end: Any, fraction: Array) -> Any:
        """Returns codes on the way from one to another; here the straight line."""
        return jax.tree.map(
            lambda a, b: (1.0 - fraction) * a + fraction * b, start, end
        )

    def generate(
        self, key: Key, n: int, temperature: float = 1.0, label: Array | None = None
    ) -> Array:
        """Returns n samples: means of p(x|z), or sentences that the model writes.

        Args:
          key: one key, or [n] keys.
          n: how many.
          temperature: factor on the prior's standard deviation.
          label: [n] classes of a conditional model; None takes them in turn.
        """
        raise _lacking(self, "generate")

    def sample_prior(self, key: Key, n: int, temperature: float = 1.0) -> Any:
        """Returns n draws of all latents, as of `generate`."""
        raise _lacking(self, "sample_prior")

    def resample(
        self, latents: Any, key: Key, num_kept: Array | int, temperature: float = 1.0
    ) -> Any:
        """Returns latents whose `num_kept` coarsest scales stay; others are drawn."""
        raise _lacking(self, "resample")


class Model(nn.Module, ModelDefaults):
    """A model: attributes with their defaults, and the methods that it may have.

    A model overrides what it has; `offers` tells which methods these are. Every
    objective needs `infer` and `likelihood` (or says what else), where a model with one
    group of latents writes `posterior` and `prior`, see `jvae.models.SingleLatent`.

    A module that is no subclass will do as well: `as_model` fills in what it lacks.

    Attributes:
      target: the entry of the batch that is scored, 'image', 'tokens', 'label', ...;
        None of an encoder.
      image_shape: (H, W, C) of a model of images.
      num_classes: how many classes labels have; None of a model that reads none.
      num_clusters: how many clusters it finds; None for none.
      coefficients: what a trainer may anneal in it, {name: default}; see `annealed`.
      uniform_prior: whether p(z) is uniform, and has no temperature.
      has_dropout: whether it drops units in training; see `dropout_keys`.
      has_latents: whether it draws latents.
      is_lossless: whether z holds the whole of x, as the code of a flow does.
      num_init_examples: how many examples `data_dependent_init` is to see; 0 for none.
      latent_shapes: (groups, h, w, d) of every scale of a hierarchy, the coarsest
        first.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Leaves a field without a default required, whatever default is here."""
        for name in inspect.get_annotations(cls):
            if name in vars(ModelDefaults) and name not in vars(cls):
                setattr(cls, name, dataclasses.field())
        super().__init_subclass__(**options)


@contextlib.contextmanager
def reading() -> Iterator[set[str]]:
    """A context that collects what models read of the collection `TRAINING`."""
    reads: set[str] = set()
    token = _reads.set(reads)
    try:
        yield reads
    finally:
        _reads.reset(token)


def _lacking(model: Any, method: str) -> ConfigError:
    """Returns the error of a model that was asked for what it does not have."""
    return ConfigError(
        f"{type(model).__name__} has no method {method!r}",
        fix="See docs/architecture.md for what a model offers.",
    )


def as_model(model: nn.Module) -> Model:
    """Returns a model with all that `Model` declares, see `with_defaults`."""
    return with_defaults(model, ModelDefaults, "model")


def with_defaults(module: nn.Module, defaults: type, what: str) -> Any:
    """Returns a module with all that a class of defaults declares.

    One that does not derive from `defaults` gets what it lacks from them: its class is
    derived from its own and, last, from these, with the same fields and parameters.

    Raises:
      ConfigError: what is no Flax module.
    """
    if isinstance(module, defaults):
        return module
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{what} must be a Flax module, got {module!r}")
    kind: Any = type(module)
    return _built(kind, defaults, _fields(module, kind))


def _fields(module: Any, kind: Any) -> dict[str, Any]:
    return {f.name: getattr(module, f.name) for f in dataclasses.fields(kind) if f.init}


def _built(kind: Any, defaults: type, fields: dict[str, Any]) -> Any:
    return _derived(kind, cast(Any, defaults))(**fields)


@functools.cache
def _derived(kind: Any, defaults: Any) -> Any:
    """Returns the class of a user's module with defaults."""

    def __reduce__(self):  # noqa: N807, so that it can be pickled
        return _built, (kind, defaults, _fields(self, kind))

    own = {"__module__": kind.__module__, "__reduce__": __reduce__}
    return type(kind.__name__, (kind, defaults), own)
