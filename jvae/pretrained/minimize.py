"""The small training loop of what is fitted beside a model: samplers, features."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import optax

from jvae.types import Array, Params


def minimize(
    loss: Callable[[Params, Any], Array],
    params: Params,
    batches: Iterable[Any],
    *,
    num_steps: int,
    learning_rate: float,
) -> Params:
    """Returns parameters after so many updates by Adam.

    Args:
      loss: (params, batch) -> scalar.
      params: where to start; their memory is used again.
      batches: at least `num_steps` of them.
      num_steps: updates.
      learning_rate: of the first step, which falls to 0 along half a cosine.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, batch):
        changes, state = optimizer.update(jax.grad(loss)(params, batch), state)
        return optax.apply_updates(params, changes), state

    state = optimizer.init(params)
    for batch in itertools.islice(batches, num_steps):
        params, state = update(params, state, batch)
    return params
