"""What objectives share: how one is marked, one application of a model, padding."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jvae import keys, ranges, registry
from jvae.contract import TRAINING, Model, as_model
from jvae.errors import ConfigError, nearest, require
from jvae.ranges import Ge
from jvae.types import Array, Batch, Coefficients, Key, Params, State, batch_size

PASSED = ("params", "state", "key", "batch", "coefficients", "model", "train")
"""Arguments of an objective that its callers pass; the others are its options."""


@dataclasses.dataclass(frozen=True)
class Requirements:
    """What an objective reads and asks for, see `objective`."""

    coefficients: Mapping[str, float] = dataclasses.field(default_factory=dict)
    needs: Sequence[str] = ()
    check: Callable[..., None] | None = None
    body: Callable | None = None

    def with_defaults(self, coefficients: Coefficients) -> dict[str, Any]:
        """Returns the coefficients, defaults filled in.

        Raises:
          ConfigError: one that the objective does not read.
        """
        for name in coefficients:
            if name not in self.coefficients:
                hint = nearest(name, self.coefficients)
                raise ConfigError(f"coefficient {name!r} is unknown", fix=hint)
        return {**self.coefficients, **coefficients}


def requirements_of(function: Callable) -> Requirements:
    """Returns those of an objective; a function that is not marked as one has none."""
    return getattr(function, "requirements", Requirements())


@functools.cache
def option_fields(function: Callable) -> dict[str, registry.Field]:
    """Returns the options of an objective by name."""
    return registry.of(function, skip=PASSED)


def config_fields(function: Callable) -> dict[str, registry.Field]:
    """Returns what a config may hold for an objective: coefficients and options."""
    texts = registry.meanings(function)
    coefficients = {
        name: registry.Field(name, Annotated[float, Ge(0)], value, texts.get(name, ""))
        for name, value in requirements_of(function).coefficients.items()
    }
    return {**coefficients, **option_fields(function)}


def objective(
    *,
    coefficients: Mapping[str, float] | None = None,
    needs: Sequence[str] = (),
    check: Callable[..., None] | None = None,
):
    """Marks a function `(params, state, key, batch, coefficients, *, model, ...)`.

    Its body may begin with its mathematics: whoever calls it, missing coefficients have
    their defaults, the model has all that `jvae.contract.Model` declares, and options
    are in the ranges of their annotations. `losses.build` checks them before tracing.

    Args:
      coefficients: the scalars that it reads, and their defaults. They are what a
        trainer may anneal.
      needs: methods that its model must have.
      check: called with `model` and every option by name; raises ConfigError for what
        does not fit together.
    """
    for name, value in (coefficients or {}).items():
        rule = ranges.broken_rule((Ge(0),), value)
        require(not rule, f"the coefficient {name}", rule, value)
    asked = dict(coefficients or {}), tuple(needs), check

    def mark(body):
        requirements = Requirements(*asked, body)

        @functools.wraps(body)
        def call(params, state, key, batch, coefficients, *, model, **options):
            model = as_model(model)
            check_options(call, model, options, body.__name__)
            values = requirements.with_defaults(coefficients)
            value, aux = body(params, state, key, batch, values, model=model, **options)
            if TRAINING in state:  # so that it is there at the next step too
                aux = aux._replace(state={**aux.state, TRAINING: state[TRAINING]})
            return value, aux

        marked: Any = call
        marked.requirements = requirements
        return marked

    return mark


def with_coefficients(**defaults: float):
    """Marks an objective with the coefficients it reads, as `objective` does."""
    return functools.partial(_marked_anew, coefficients=defaults)


def with_check(check: Callable[..., None]):
    """Marks an objective with the function that checks its options, see `objective`."""
    return functools.partial(_marked_anew, check=check)


def _marked_anew(function: Callable, **changes: Any) -> Callable:
    """Returns an objective that may have been marked before, marked with more."""
    marked = registry.values(requirements_of(function))
    body = marked.pop("body") or function
    return objective(**{**marked, **changes})(body)


def check_options(
    function: Callable, model: Model, options: Mapping[str, Any], name: str
) -> None:
    """Raises ConfigError for options that are out of range or do not fit the model.

    Args:
      function: an objective.
      model: what it is about.
      options: values by name; missing ones have their defaults.
      name: that of the objective, for messages.
    """
    known, requirements = option_fields(function), requirements_of(function)
    given = {k: v for k, v in options.items() if k != "train"}
    registry.check_against(known, given, "loss", is_config=False)
    require_methods(name, model, *requirements.needs)
    if requirements.check is not None:
        defaults = {k: field.default for k, field in known.items()}
        requirements.check(model=model, **{**defaults, **given})


def apply_model(model, method, params: Params, state: State, *args, train: bool):
    """Returns (`method` of `model`, state); in training mode the updated state."""
    model = as_model(model)
    variables = {"params": params, **state}
    if not train:
        return model.apply(variables, *args, method=method), state
    updated = [name for name in state if name != TRAINING]
    return model.apply(variables, *args, method=method, mutable=updated)


def apply_to_rows(
    model, method, params: Params, state: State, key: Key, batch: Batch, *args, train
):
    """Returns `apply_model` at the batch, its padding blanked, and [B] keys.

    Args:
      model: what is applied.
      method: (model, batch, keys [B], *args).
      params: parameters of `model`.
      state: its other collections.
      key: one key, or [B] keys, one per example.
      batch: what the method reads.
      *args: what else the method takes.
      train: whether the state is updated.
    """
    each = keys.per_example(key, batch_size(batch))
    arguments = (params, state, blank_padding(batch), each, *args)
    return apply_model(model, method, *arguments, train=train)


def blank_padding(batch: Batch) -> Batch:
    """Returns the batch with zeros in the rows that `batch['mask']` leaves out.

    A padding row may hold anything. That `masked_mean` drops its value is not enough
    for the gradient, where 0 * nan is nan.
    """
    if "mask" not in batch:
        return batch
    mask = batch["mask"].astype(bool)

    def blank(x):
        is_real = mask.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(is_real, x, jnp.zeros_like(x))

    return jax.tree.map(blank, dict(batch))


def num_examples(batch: Batch) -> Array:
    """Returns how many rows of a batch count, a float32 scalar.

    It is the weight of the batch's loss, metrics and gradient, means over these rows,
    in those of several batches: parts of a larger one, or the shards of devices.
    """
    rows = batch.get("mask", jnp.ones(batch_size(batch), jnp.float32))
    return rows.astype(jnp.float32).sum()


def masked_mean(values: Array, batch: Batch) -> Array:
    """Returns the mean of [B] values over the rows that `batch['mask']` keeps.

    Of no rows it is 0. The mean of several batches' means is that of all their rows
    only if each has the weight `num_examples`.
    """
    if "mask" not in batch:
        return values.mean()
    mask = batch["mask"].astype(values.dtype)
    # where, not a product: a padding row may hold anything, and 0 * inf is nan.
    return jnp.where(mask > 0, values, 0.0).sum() / jnp.maximum(mask.sum(), 1.0)


def bound_terms(
    loss: Array, log_likelihood: Array, kl: Array, batch: Batch
) -> dict[str, Array]:
    """Returns the metrics of a bound whose parts are [B], unweighted."""
    return {
        "loss": loss,
        "elbo": masked_mean(log_likelihood - kl, batch),
        "log_likelihood": masked_mean(log_likelihood, batch),
        "kl": masked_mean(kl, batch),
    }


def require_kind(fits: bool, who: str, needed: str, got: Any, fix: str = "") -> None:
    """Raises ConfigError "<who> needs <needed>, got <its class>." unless it fits."""
    if not fits:
        name = type(got).__name__
        raise ConfigError(f"{who} needs {needed}, got {name}", fix=fix)


def require_methods(loss: str, model: Any, *methods: str) -> None:
    """Raises ConfigError unless `model` offers `methods`, which `loss` calls."""
    model = as_model(model)
    for method in methods:
        require_kind(
            model.offers(method),
            f"loss {loss!r}",
            f"a model with {method}",
            model,
            fix="See docs/architecture.md for what a model offers.",
        )
