"""Competitors that do the same work in turns, in one process.

Other work on a machine comes and goes, and its clock changes: two programs that are
timed one after the other may differ by a half for no reason of their own. Turns of a
second or so meet the same conditions, and the median of the ratios of neighbouring
turns is what is reported.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

OURS = "jvae"


def in_turns(
    work: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Returns {name: the seconds of every turn}; every callable returns its seconds.

    The order is turned round after every round, so that no one always follows the same.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for number in range(rounds):
        for name in names[:: 1 if number % 2 == 0 else -1]:
            seconds[name].append(work[name]())
    return seconds


def training(
    everyone: Sequence[Any], steps: int, rounds: int, batch: int
) -> dict[str, Any]:
    """Returns `compared` of training, after a turn of each that is not counted.

    Args:
      everyone: has a `name`, and `train(steps)` that returns its seconds.
      steps: of a turn.
      rounds: turns of each.
      batch: images of a step.
    """
    work = {one.name: functools.partial(one.train, steps) for one in everyone}
    in_turns(work, 1)  # compiles
    return compared("training", in_turns(work, rounds), steps * batch, "images")


def ratio(seconds: Mapping[str, Sequence[float]], peer: str) -> float:
    """Returns how many times as fast as `peer` jvae is, the median of the rounds."""
    pairs = zip(seconds[OURS], seconds[peer], strict=True)
    return statistics.median(theirs / mine for mine, theirs in pairs)


def compared(
    what: str,
    seconds: Mapping[str, Sequence[float]],
    amount: float,
    unit: str,
) -> dict[str, Any]:
    """Returns and prints the speeds of all, and the ratio to the fastest other.

    Args:
      what: the work, for the printed lines.
      seconds: of every turn, by name.
      amount: how much of `unit` a turn does.
      unit: what is counted, 'images'.
    """
    medians = {name: statistics.median(spent) for name, spent in seconds.items()}
    others = [name for name in medians if name != OURS]
    best = min(others, key=medians.__getitem__)
    speeds = {name: amount / spent for name, spent in medians.items()}
    for name, speed in speeds.items():
        print(f"{what:12} {name:22} {speed:12,.1f} {unit}/s")
    found = ratio(seconds, best)
    print(f"{what}: {OURS} is {found:.2f} times as fast as {best}", flush=True)
    return {f"{unit}_per_second": speeds, "best_peer": best, "ratio": found}


def check_equal(what: str, values: Mapping[str, float], rtol: float) -> None:
    """Prints the values of all and ends the benchmark if they are not one value."""
    print(f"{what}:", {name: round(float(x), 4) for name, x in values.items()})
    numbers = np.array([*values.values()], np.float64)
    if not np.allclose(numbers, np.median(numbers), rtol=rtol, atol=0.0):
        raise SystemExit(f"{what}: not the same work, {dict(values)}")
