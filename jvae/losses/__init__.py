"""Objectives: pure functions of (params, state, key, batch, coefficients).

`build` binds a model and fixed coefficients to one of them; the functions themselves
are public and can be called without it.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from jvae import keys, registry
from jvae.contract import TRAINING, as_model, reading
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
from jvae.losses.objective import (
    check_options,
    config_fields,
    num_examples,
    requirements_of,
)
from jvae.types import Aux, LossFn, batch_size

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
    "num_examples",
    "prior_kl",
]


logger = logging.getLogger("jvae")

UNREAD = (
    "jvae: %s does not read its %s in this loss, so they have no effect: see "
    "`annealed` and `dropout_keys` of jvae.contract.Model"
)


def coefficients_of(objective: Callable) -> dict[str, float]:
    """Returns the coefficients that an objective, or a model, reads, with defaults."""
    if isinstance(objective, nn.Module):
        return dict(as_model(objective).coefficients)
    return dict(requirements_of(objective).coefficients)


def build(name: str, model: Any, *, train: bool = True, **fields: Any) -> LossFn:
    """Returns loss(params, state, key, batch, coefficients) for `model`.

    Args:
      name: a key of `LOSSES`, or 'package.module:Name' of an objective of your own.
      model: what the objective is about, see docs/architecture.md. Coefficients of its
        own (`model.coefficients`, {name: value}), and the keys of its dropout in
        training, reach it as the collection `jvae.contract.TRAINING`.
      train: whether BatchNorm uses, and updates, batch statistics, and dropout acts.
      **fields: the objective's options, and fixed values of its coefficients; values
        passed in `coefficients` at a call go before them.

    Raises:
      ConfigError: an unknown name or field, a coefficient that is negative or not
        finite, an option that is out of range or does not fit the model.
    """
    model = as_model(model)
    objective = registry.resolve(LOSSES, name, "loss")
    registry.check_against(config_fields(objective), fields, "loss")
    defaults = coefficients_of(objective)
    fixed = {k: float(fields.get(k, v)) for k, v in defaults.items()}
    options = {k: v for k, v in fields.items() if k not in fixed}
    check_options(objective, model, options, name)
    if "train" in inspect.signature(objective).parameters:
        options["train"] = train
    annealed = dict(model.coefficients)
    shared = sorted(set(fixed) & set(annealed))
    require(not shared, "model.coefficients", "have names of their own", shared)
    drops = train and model.has_dropout

    @functools.wraps(objective)
    def loss(params, state, key, batch, coefficients):
        values = {**fixed, **annealed, **coefficients}
        given = {k: values.pop(k) for k in annealed}
        if drops:
            each = keys.per_example(key, batch_size(batch))
            key, given["dropout"] = keys.split_each(each, 2)
        variables = {**state, TRAINING: given} if given else state
        with reading() as reads:
            value, aux = objective(
                params, variables, key, batch, values, model=model, **options
            )
        if not given:
            return value, aux
        if not reads:
            logger.warning(UNREAD, type(model).__name__, ", ".join(given))
        kept = {k: v for k, v in aux.state.items() if k != TRAINING}
        return value, Aux(aux.metrics, kept)

    return loss
