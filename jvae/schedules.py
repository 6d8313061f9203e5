"""Schedules of a loss's coefficients: KL warm-up, cycles, growing free bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from jvae import fields
from jvae.errors import ConfigError, nearest, require
from jvae.types import Array

Schedule = Callable[[Array | int], Array]


def linear(end: float, steps: int, start: float = 0.0) -> Schedule:
    """Returns step -> a straight line from `start` to `end`, then `end`.

    Args:
      end: value from step `steps` on.
      steps: length of the ramp.
      start: value at step 0.
    """
    require(steps >= 1, "schedules.*.steps", "be at least 1", steps)
    return optax.linear_schedule(start, end, steps)


def cyclic(end: float, steps: int, start: float = 0.0, rising: float = 0.5) -> Schedule:
    """Returns step -> a ramp from `start` to `end`, begun again every `steps`.

    Fu et al., 2019, https://arxiv.org/abs/1903.10145.

    Args:
      end: value in the second part of every cycle.
      steps: length of a cycle.
      start: value at the beginning of every cycle.
      rising: fraction of a cycle in which the value rises.
    """
    require(steps >= 1, "schedules.*.steps", "be at least 1", steps)
    require(0.0 < rising <= 1.0, "schedules.*.rising", "be within (0, 1]", rising)

    def schedule(step):
        position = jnp.mod(step, steps) / (steps * rising)
        return start + (end - start) * jnp.minimum(position, 1.0)

    return schedule


SCHEDULES: dict[str, Callable[..., Schedule]] = {"linear": linear, "cyclic": cyclic}


def build(
    section: Mapping[str, Mapping[str, Any]], coefficients: Mapping[str, float]
) -> Callable[[Array | int], dict[str, Array]]:
    """Returns step -> the annealed coefficients, for `config.schedules`.

    Args:
      section: {coefficient: {'name': a key of SCHEDULES, its fields}}; `end` is the
        coefficient's value in the loss unless given.
      coefficients: the loss's coefficients and their values.

    Raises:
      ConfigError: a coefficient that the loss does not have, an unknown field.
    """
    built = {}
    for coefficient, given in section.items():
        where = f"schedules.{coefficient}"
        if coefficient not in coefficients:
            hint = nearest(coefficient, coefficients)
            raise ConfigError(f"{where} is no coefficient of the loss", fix=hint)
        options = {"name": "", "end": coefficients[coefficient], **given}
        built[coefficient] = fields.build(SCHEDULES, where, **options)
    return lambda step: {
        name: jnp.asarray(schedule(step), jnp.float32)
        for name, schedule in built.items()
    }
