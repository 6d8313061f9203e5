"""Objectives: pure functions of (params, state, key, batch, coefficients).

`build` binds a model and fixed coefficients to one of them; the functions themselves
are public and can be called without it.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jvae import keys, registry
from jvae.errors import require
from jvae.losses.bottleneck import (
    bottleneck_terms,
    information_bottleneck,
    label_information,
)
from jvae.losses.clustering import cluster_imbalance, negative_cluster_elbo
from jvae.losses.elbo import elbo_terms, negative_elbo, prior_kl
from jvae.losses.hierarchical import balance, negative_hierarchical_elbo
from jvae.losses.infomax import (
    donsker_varadhan,
    in_batch_negatives,
    info_nce,
    infomax,
    jensen_shannon,
)
from jvae.losses.information import (
    decompose_kl,
    decompose_kl_per_example,
    negative_decomposed_elbo,
)
from jvae.losses.iwae import iwae_terms, log_weights, negative_iwae
from jvae.types import LossFn, batch_size

LOSSES: dict[str, Callable] = {
    "elbo": negative_elbo,
    "iwae": negative_iwae,
    "prior_kl": prior_kl,
    "decomposed_elbo": negative_decomposed_elbo,
    "bottleneck": information_bottleneck,
    "cluster_elbo": negative_cluster_elbo,
    "infomax": infomax,
    "hierarchical_elbo": negative_hierarchical_elbo,
}

__all__ = [
    "LOSSES",
    "balance",
    "bottleneck_terms",
    "build",
    "cluster_imbalance",
    "coefficients_of",
    "config_fields",
    "decompose_kl",
    "decompose_kl_per_example",
    "donsker_varadhan",
    "elbo_terms",
    "info_nce",
    "infomax",
    "information_bottleneck",
    "iwae_terms",
    "jensen_shannon",
    "label_information",
    "log_weights",
    "negative_cluster_elbo",
    "negative_decomposed_elbo",
    "negative_elbo",
    "negative_hierarchical_elbo",
    "negative_iwae",
    "in_batch_negatives",
    "prior_kl",
]

_CALL = ("params", "state", "key", "batch", "coefficients", "model", "train")


def coefficients_of(part: Any) -> dict[str, float]:
    """Returns the coefficients that an objective or a model reads, with defaults."""
    return dict(getattr(part, "coefficients", {}))


def config_fields(objective: Callable) -> dict[str, registry.Field]:
    """Returns what `build` takes for an objective: its options and coefficients."""
    texts = registry.meanings(objective)
    numbers = {
        name: registry.Field(name, float, default, texts.get(name, ""))
        for name, default in coefficients_of(objective).items()
    }
    return {**numbers, **registry.of(objective, skip=_CALL)}


def build(name: str, model: Any, *, train: bool = True, **fields: Any) -> LossFn:
    """Returns loss(params, state, key, batch, coefficients) for `model`.

    Args:
      name: a key of `LOSSES`, or 'package.module:Name' of an objective of your own.
      model: what the objective is about, see docs/architecture.md.
        Coefficients of its own (`model.coefficients`, {name: value}) it gets as entries
        of the batch, [B] each; one with `has_dropout` gets the keys of its dropout in
        batch['dropout'], [B], in training.
      train: whether BatchNorm uses, and updates, batch statistics, and dropout acts.
      **fields: the objective's options, and fixed values of its coefficients; values
        passed in `coefficients` at a call go before them.

    Raises:
      ConfigError: an unknown name or field, a coefficient that is negative or not
        finite, an option that is out of range or does not fit the model.
    """
    objective = registry.resolve(LOSSES, name, "loss")
    known = config_fields(objective)
    registry.check_against(known, fields, "loss")
    coefficients = coefficients_of(objective).items()
    fixed = {k: float(fields.get(k, v)) for k, v in coefficients}
    for k, v in fixed.items():
        require(0.0 <= v < math.inf, f"loss.{k}", "be a finite number >= 0", v)
    options = {k: v for k, v in fields.items() if k not in fixed}
    check = getattr(objective, "check", None)
    if check is not None:
        defaults = {k: f.default for k, f in known.items() if k not in fixed}
        check(model=model, **defaults | options)
    if "train" in inspect.signature(objective).parameters:
        options["train"] = train
    bound = functools.partial(objective, model=model, **options)
    inputs = coefficients_of(model)
    shared = sorted(set(fixed) & set(inputs))
    require(not shared, "model.coefficients", "have names of their own", shared)

    drops = train and getattr(model, "has_dropout", False)

    @functools.wraps(objective)
    def loss(params, state, key, batch, coefficients):
        values = {**fixed, **inputs, **coefficients}
        rows = {k: jnp.full(batch_size(batch), values.pop(k)) for k in inputs}
        if drops:
            each = keys.per_example(key, batch_size(batch))
            key, rows["dropout"] = keys.split_each(each, 2)
        return bound(params, state, key, {**batch, **rows}, values)

    return loss
