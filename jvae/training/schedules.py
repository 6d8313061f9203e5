"""Schedules of coefficients: KL warm-up, cycles, growing free bits, temperatures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax.numpy as jnp
import optax

from jvae import registry
from jvae.errors import ConfigError, nearest
from jvae.ranges import FiniteFloat, Gt, Le, Lt, NonNegativeInt, PositiveInt
from jvae.types import Array

Schedule = Callable[[Array | int], Array]


@registry.checked("schedules")
def linear(
    end: FiniteFloat,
    steps: PositiveInt,
    start: FiniteFloat = 0.0,
    begin: NonNegativeInt = 0,
    floor: FiniteFloat | None = None,
) -> Schedule:
    """Returns step -> a straight line from `start` to `end`, then `end`.

    Args:
      end: value from step `begin` + `steps` on.
      steps: length of the ramp.
      start: value up to step `begin`.
      begin: step at which the ramp begins.
      floor: no value is smaller; None for none. The ramp still leads from `start`.
    """
    line = optax.linear_schedule(start, end, steps, begin)
    return line if floor is None else lambda step: jnp.maximum(line(step), floor)


@registry.checked("schedules")
def cyclic(
    end: FiniteFloat,
    steps: PositiveInt,
    start: FiniteFloat = 0.0,
    rising: Annotated[float, Gt(0), Le(1)] = 0.5,
) -> Schedule:
    """Returns step -> a ramp from `start` to `end`, begun again every `steps`.

    Fu et al., 2019, https://arxiv.org/abs/1903.10145.

    Args:
      end: value in the second part of every cycle.
      steps: length of a cycle.
      start: value at the beginning of every cycle.
      rising: fraction of a cycle in which the value rises.
    """

    def schedule(step):
        place = jnp.asarray(jnp.mod(step, steps), jnp.float32)
        position = place / (steps * rising)
        return start + (end - start) * jnp.minimum(position, 1.0)

    return schedule


@registry.checked("schedules")
def exponential(
    end: FiniteFloat, decay: Annotated[float, Gt(0), Lt(1)], start: FiniteFloat = 1.0
) -> Schedule:
    """Returns step -> end + (start - end) decay^step.

    With end 0.01 and decay 0.999 that of Su, 2019, https://kexue.fm/archives/6705, for
    the temperature of a relaxation.

    Args:
      end: value far from the start.
      decay: factor on the distance to `end` at every step, within (0, 1).
      start: value at step 0.
    """
    log_decay = math.log(decay)  # 0.999 in float32 is off by 1e-8, 1e-4 after 10^4

    def schedule(step):
        number = jnp.asarray(step, jnp.float32)
        return end + (start - end) * jnp.exp(log_decay * number)

    return schedule


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "linear": linear,
    "cyclic": cyclic,
    "exponential": exponential,
}


def build(
    section: Mapping[str, Mapping[str, Any]], coefficients: Mapping[str, float]
) -> Callable[[Array | int], dict[str, Array]]:
    """Returns step -> the annealed coefficients, for `config.schedules`.

    Args:
      section: {coefficient: {'name': a key of SCHEDULES, its fields}}; `end` is the
        coefficient's own value unless given.
      coefficients: those of the loss and the model, and their values.

    Raises:
      ConfigError: a coefficient that neither has, an unknown field.
    """
    built = {}
    for coefficient, fields in section.items():
        where = f"schedules.{coefficient}"
        if coefficient not in coefficients:
            raise ConfigError(
                f"{where} is no coefficient of the loss or the model",
                fix=nearest(coefficient, coefficients),
            )
        options = {"name": "", "end": coefficients[coefficient], **fields}
        built[coefficient] = registry.build(SCHEDULES, where, **options)
    return lambda step: {
        name: jnp.asarray(schedule(step), jnp.float32)
        for name, schedule in built.items()
    }
