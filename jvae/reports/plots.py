"""Figures for people, as PNG bytes: training curves, rate and distortion, counts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jvae.reports import style
from jvae.reports.style import BLUE, INK, MARKERS, MAX_TICKS, ORANGE

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
    axes.set_ylabel("examples")
    axes.set_xlabel("cluster")
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
    axes.set_xlabel("label given")
    axes.set_ylabel("true label")
    if len(table) <= MAX_TICKS:
        axes.set_xticks(np.arange(len(table)))
        axes.set_yticks(np.arange(len(table)))
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


def rate_distortion(points: Sequence[Point]) -> bytes:
    """Returns a PNG of models by rate and distortion, with lines of equal -ELBO.

    Alemi et al., 2018, https://arxiv.org/abs/1711.00464.

    Args:
      points: at least one, finite.
    """
    figure, (axes,) = style.panels(1, height=3.4)
    for i, point in enumerate(points):
        errors = {"xerr": point.rate_error, "yerr": point.distortion_error}
        look = {"color": style.color(i), "markersize": 7, "label": point.name}
        axes.errorbar(
            point.rate,
            point.distortion,
            fmt=MARKERS[i % len(MARKERS)],
            **errors,
            **look,
        )
    rates = np.array([p.rate for p in points])
    distortions = np.array([p.distortion for p in points])
    reach = max(np.ptp(rates), np.ptp(distortions), 0.25 * float(rates.max()), 1.0)
    center = rates.mean(), distortions.mean()
    low, high = max(0.0, center[0] - reach), center[0] + reach
    axes.set_xlim(low, high)
    axes.set_ylim(center[1] - reach, center[1] + reach)
    for total in np.arange(
        math.floor(sum(center) - 2 * reach), sum(center) + 2 * reach, _round_step(reach)
    ):
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
    names = [n for n in CURVES if any(_number(row, n) for row in history)]
    if not names:
        return None
    splits = list(dict.fromkeys(row["split"] for row in history))
    figure, panels = style.panels(len(names), height=1.6)
    for axes, name in zip(panels, names, strict=True):
        for i, split in enumerate(splits):
            rows = [r for r in history if r["split"] == split and _number(r, name)]
            if rows:
                points = [r["step"] for r in rows], [r[name] for r in rows]
                look = {"color": (BLUE, ORANGE, INK)[i % 3], "linewidth": 1.2}
                marks = "o" if len(rows) == 1 else ""  # a line of one point is unseen
                dashes = ("-", "--", ":")[i % 3]
                axes.plot(*points, marks + dashes, label=split, markersize=4, **look)
        title = name.replace("_", " ") + (", nats" if name in IN_NATS else "")
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        _leave_out_start(axes)
    style.legend(max(panels, key=lambda axes: len(axes.lines)))
    panels[-1].set_xlabel("step")
    return style.png(figure)


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
    names = [
        n
        for n in COMPARED
        if any(_number(row, n) for rows in curves.values() for row in rows)
    ]
    if not names:
        return None
    figure, panels = style.panels(len(names), height=2.2)
    for axes, name in zip(panels, names, strict=True):
        for i, (run, rows) in enumerate(curves.items()):
            points = [(r["step"], r[name]) for r in rows if _number(r, name)]
            if points:
                look = {"color": style.color(i), "marker": MARKERS[i % len(MARKERS)]}
                axes.plot(*zip(*points, strict=True), label=run, markersize=4, **look)
        title = name.replace("_", " ") + (", nats" if name in IN_NATS else "")
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        _leave_out_start(axes)
    style.legend(panels[0])
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
