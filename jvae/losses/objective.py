"""What objectives share: coefficients, checks, one application of a model, padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp

from jvae.errors import ConfigError, nearest, require
from jvae.types import (
    Array,
    Batch,
    Coefficients,
    Params,
    State,
)


def with_coefficients(**defaults: float):
    """Marks an objective with the coefficients it reads and their defaults.

    They are what a trainer may anneal: scalars that reach the objective in its
    `coefficients` argument, where a missing one has its default.
    """

    def mark(objective):
        objective.coefficients = defaults
        return objective

    return mark


def with_check(check: Callable[..., None]):
    """Marks an objective with the function that checks its options.

    `losses.build` calls it with `model` and every option by name, before any tracing;
    an objective that is called without `build` calls it itself.
    """

    def mark(objective):
        objective.check = check
        return objective

    return mark


def check_choice(name: str, choices: Any, value: Any) -> None:
    """Raises ConfigError unless `value` is one of a Literal's `choices`."""
    known = get_args(choices)
    rule = f"be one of {', '.join(map(repr, known))}"
    require(value in known, f"loss.{name}", rule, value)


def with_defaults(coefficients: Coefficients, objective) -> dict[str, Array | float]:
    """Returns the coefficients of `objective`, defaults filled in.

    Raises:
      ConfigError: one that the objective does not read.
    """
    known = objective.coefficients
    for name in coefficients:
        if name not in known:
            hint = nearest(name, known)
            raise ConfigError(f"coefficient {name!r} is unknown", fix=hint)
    return {**known, **coefficients}


def apply_model(model, method, params: Params, state: State, *args, train: bool):
    """Returns (`method` of `model`, state); in training mode the updated state."""
    variables = {"params": params, **state}
    if not train:
        return model.apply(variables, *args, method=method), state
    return model.apply(variables, *args, method=method, mutable=list(state))


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


def masked_mean(values: Array, batch: Batch) -> Array:
    """Returns the mean of [B] values over the rows that `batch['mask']` keeps."""
    if "mask" not in batch:
        return values.mean()
    mask = batch["mask"].astype(values.dtype)
    # where, not a product: a padding row may hold anything, and 0 * inf is nan.
    return jnp.where(mask > 0, values, 0.0).sum() / jnp.maximum(mask.sum(), 1.0)


def require_methods(loss: str, model: Any, *methods: str) -> None:
    """Raises ConfigError unless `model` offers `methods`, which `loss` calls."""
    for method in methods:
        if not hasattr(model, method):
            raise ConfigError(
                f"loss {loss!r} needs a model with {method}, got "
                f"{type(model).__name__}",
                fix="See docs/architecture.md for what a model offers.",
            )
