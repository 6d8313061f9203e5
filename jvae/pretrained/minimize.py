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
      loss: (params, batch) -> scalar. Losses that are equal share one compiled update:
        a dataclass that is frozen, say, rather than a function made for each fit.
      params: where to start; their memory is used again.
      batches: at least `num_steps` of them.
      num_steps: updates.
      learning_rate: of the first step, which falls to 0 along half a cosine.
    """
    state = _adam(num_steps, learning_rate).init(params)
    for batch in itertools.islice(batches, num_steps):
        params, state = _update(params, state, batch, loss, num_steps, learning_rate)
    return params


def _adam(num_steps: int, learning_rate: float) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))


@functools.partial(jax.jit, donate_argnums=(0, 1), static_argnums=(3, 4, 5))
def _update(params, state, batch, loss, num_steps, learning_rate):
    gradient = jax.grad(loss)(params, batch)
    changes, state = _adam(num_steps, learning_rate).update(gradient, state)
    return optax.apply_updates(params, changes), state
