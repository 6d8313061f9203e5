"""Figures for people, as PNG bytes: training curves, rate and distortion, counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jvae.reports import style
from jvae.reports.style import BLUE, INK, MAX_TICKS, ORANGE

MAX_COUNTS = 12
"""Classes whose counts are written into the picture of confusions."""
IN_NATS = ("loss", "elbo", "log_likelihood", "kl")
BOUNDS = ("global_bound", "local_bound")
COMPARED = ("elbo", "kl", "accuracy")
"""Names of `history` that are drawn for several runs."""
CURVES = (*IN_NATS, *BOUNDS, "accuracy", "learning_rate", "gradient_norm")
"""Names of `history` that `curves` draws, those that there are."""


def cluster_bars(sizes: np.ndarray) -> bytes:
    """Returns a PNG of how many examples each cluster has, as bars.

    Args:
      sizes: [K].
    """
    figure, (axes,) = style.panels(1, height=2.2)
    axes.bar(np.arange(len(sizes)), sizes, color=BLUE)
    axes.set(xlabel="cluster", ylabel="examples")
    if len(sizes) <= MAX_TICKS:
        axes.set_xticks(np.arange(len(sizes)))
    return style.png(figure)


def confusion(table: np.ndarray) -> bytes:
    """Returns a PNG of counts [K, K] as shades, with numbers where they fit.

    Args:
      table: examples by true label (rows) and by the label they are given (columns).
    """
    figure, (axes,) = style.panels(1, height=4.4)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.grid(False)
    axes.set(xlabel="label given", ylabel="true label")
    if len(table) <= MAX_TICKS:
        axes.set(xticks=np.arange(len(table)), yticks=np.arange(len(table)))
    if len(table) <= MAX_COUNTS:
        for (row, column), count in np.ndenumerate(table):
            color = "white" if shares[row, column] > 0.5 else "#30343a"
            look = {"ha": "center", "va": "center", "fontsize": 7, "color": color}
            if count:
                axes.text(column, row, str(count), **look)
    return style.png(figure)


@dataclasses.dataclass(frozen=True)
class Point:
    """A model in the plane of rate and distortion.

    Attributes:
      name: of the model.
      rate: KL(q(z|x) || p(z)) in nats.
      distortion: -log p(x|z) in nats.
      rate_error: its standard error.
      distortion_error: its standard error.
    """

    name: str
    rate: float
    distortion: float
    rate_error: float = 0.0
    distortion_error: float = 0.0

    @classmethod
    def of(cls, name: str, metrics: Mapping[str, Any]) -> Point | None:
        """Returns the place of metrics as results.json has them; None of no place."""
        rate, fit = (metrics.get(n) or {} for n in ("kl", "log_likelihood"))
        if not (_number(rate, "value") and _number(fit, "value")):
            return None
        errors = [row["standard_error"] or 0.0 for row in (rate, fit)]
        lost = 0.0 - fit["value"]  # of a flow 0, and not -0
        return cls(name, rate["value"], lost, *errors)


def rate_distortion(points: Sequence[Point]) -> bytes:
    """Returns a PNG of models by rate and distortion, with lines of equal -ELBO.

    Alemi et al., 2018, https://arxiv.org/abs/1711.00464.

    Args:
      points: at least one, finite.
    """
    figure, (axes,) = style.panels(1, height=3.4)
    for i, p in enumerate(points):
        errors = {"xerr": p.rate_error, "yerr": p.distortion_error}
        look = {"linestyle": "", "markersize": 7, "label": p.name, **style.of_run(i)}
        axes.errorbar(p.rate, p.distortion, **errors, **look)
    rates = np.array([p.rate for p in points])
    distortions = np.array([p.distortion for p in points])
    reach = max(np.ptp(rates), np.ptp(distortions), 0.25 * float(rates.max()), 1.0)
    center = rates.mean(), distortions.mean()
    low, high = max(0.0, center[0] - reach), center[0] + reach
    axes.set(xlim=(low, high), ylim=(center[1] - reach, center[1] + reach))
    first, last = math.floor(sum(center) - 2 * reach), sum(center) + 2 * reach
    for total in np.arange(first, last, _round_step(reach)):
        axes.plot((low, high), (total - low, total - high), color=INK, linewidth=0.5)
    axes.set_xlabel("rate: KL(q(z|x) || p(z)), nats")
    axes.set_ylabel("distortion: −log p(x|z), nats")
    if len(points) > 1:
        style.legend(axes)
    return style.png(figure)


def _round_step(length: float) -> float:
    """Returns the largest of 1, 2, 5 times a power of ten that is not above length."""
    power = 10.0 ** math.floor(math.log10(length))
    return power * max(f for f in (1.0, 2.0, 5.0) if f * power <= length)


def curves(history: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Returns a PNG of the metrics over training, None if there is nothing to draw.

    Args:
      history: rows with 'step', 'split' and numbers by name (None where one was not
        finite), as metrics.jsonl has them.
    """
    splits = dict.fromkeys(row["split"] for row in history)
    by_split = {name: [r for r in history if r["split"] == name] for name in splits}

    def look(i: int, num_points: int) -> dict[str, Any]:
        marker = "o" if num_points == 1 else ""  # a line of one point is unseen
        line = {"linestyle": ("-", "--", ":")[i % 3], "linewidth": 1.2}
        return {"color": (BLUE, ORANGE, INK)[i % 3], "marker": marker, **line}

    return _curves(by_split, CURVES, 1.6, look)


def compared_curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
) -> bytes | None:
    """Returns a PNG of how runs trained, None if there is nothing to draw.

    Args:
      histories: {run: rows of metrics.jsonl}.
    """
    curves = {}
    for name, rows in histories.items():
        validated = [row for row in rows if row["split"] == "validation"]
        curves[name] = validated or list(rows)
    return _curves(curves, COMPARED, 2.2, lambda i, _: style.of_run(i))


def _curves(
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    names: Sequence[str],
    height: float,
    look: Callable[[int, int], Mapping[str, Any]],
) -> bytes | None:
    """Returns a PNG with a panel for each name that is there, None if none is.

    Args:
      curves: {what a line is called: its rows}.
      names: of numbers in the rows.
      height: of a panel, in inches.
      look: (number of the line, how many points it has) -> how it is drawn.
    """
    every_row = [row for rows in curves.values() for row in rows]
    names = [n for n in names if any(_number(row, n) for row in every_row)]
    if not names:
        return None
    figure, panels = style.panels(len(names), height)
    for axes, name in zip(panels, names, strict=True):
        for i, (label, rows) in enumerate(curves.items()):
            points = [(r["step"], r[name]) for r in rows if _number(r, name)]
            if points:
                steps, values = zip(*points, strict=True)
                lines = {"label": label, "markersize": 4, **look(i, len(points))}
                axes.plot(steps, values, **lines)
        style.title(axes, name.replace("_", " ") + ", nats" * (name in IN_NATS))
        _leave_out_start(axes)
    style.legend(max(panels, key=lambda axes: len(axes.lines)))
    panels[-1].set_xlabel("step")
    return style.png(figure)


def _number(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name)
    return isinstance(value, int | float) and math.isfinite(value)


def _leave_out_start(axes: Any) -> None:
    """Fits the vertical axis to what comes after the first tenth of the steps.

    The first losses are so large that the rest would be a flat line.
    """
    steps = np.concatenate([line.get_xdata() for line in axes.lines])
    values = np.concatenate([line.get_ydata() for line in axes.lines])
    late = values[steps >= 0.1 * steps.max()]
    margin = 0.05 * float(np.ptp(late)) or 0.05 * abs(float(late[0])) or 1.0
    axes.set_ylim(late.min() - margin, late.max() + margin)
