"""Figures for people, as PNG bytes: bars, curves, maps.

They have no background and a mid grey for text, so that the same file reads on a light
page, a dark page and paper.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jvae.evaluation.scales import Scale

MAX_TICKS = 20
"""Bars that are numbered one by one."""
MAX_COUNTS = 12
"""Classes whose counts are written into the picture of confusions."""
MAX_SIGNS = 10
"""Kinds of codes that are drawn as numbers; with more all are dots."""
NUM_HISTOGRAMS = 4
"""Dimensions of the aggregate posterior that are shown one by one."""
THUMBNAIL = 22.0
"""Points (1/72 inch) of the longer side of an image on a map."""
MARKERS = "osD^vP*Xp<"
MIN_AXIS = 0.01
"""Nats that the axis of KL shows at least."""
INK, BLUE, ORANGE = "#757a82", "#3b7dd8", "#d9822b"
IN_NATS = ("loss", "elbo", "log_likelihood", "kl")
BOUNDS = ("global_bound", "local_bound")
CURVES = (*IN_NATS, *BOUNDS, "accuracy", "learning_rate", "gradient_norm")
"""Names of `history` that `curves` draws, those that there are."""


def kl_bars(kl: np.ndarray, active: np.ndarray | None = None) -> bytes:
    """Returns a PNG of the KL of every group of latents, sorted, as bars.

    Args:
      kl: [G], in nats; what is not finite has no bar.
      active: [G], which are active units; the others are hollow, with a cross. None
        for no such marks.
    """
    order = np.argsort(-kl, kind="stable")
    height = np.where(np.isfinite(kl), kl, 0.0)[order]
    used = np.ones(len(kl), bool) if active is None else active[order].astype(bool)
    figure, (axes,) = _figure(1, height=2.8)
    places = np.arange(len(kl))
    axes.bar(places[used], height[used], color=BLUE, label=f"active ({used.sum()})")
    if not used.all():
        axes.bar(places[~used], height[~used], color="none", edgecolor=BLUE)
        label = f"not active ({(~used).sum()})"
        marks = {"color": ORANGE, "markersize": 5, "clip_on": False, "label": label}
        axes.plot(places[~used], np.zeros((~used).sum()), "x", **marks)
    axes.set_ylim(min(0.0, height.min()), max(1.05 * height.max(), MIN_AXIS))
    axes.set_ylabel("KL to the prior, nats")
    unit = "group of latents" if active is None else "dimension"
    axes.set_xlabel(unit if len(kl) <= MAX_TICKS else f"rank of the {unit}")
    if len(kl) <= MAX_TICKS:
        axes.set_xticks(places, [str(i) for i in order], fontsize=7)
    if active is not None:
        _legend(axes)
    return _png(figure)


def scale_bars(scales: Sequence[Scale]) -> bytes:
    """Returns a PNG of KL and share of active latents of every group, the top first.

    Args:
      scales: the coarsest first; each has its colour and its hatching.
    """
    figure, panels = _figure(2, height=2.2)
    begin = 0
    for i, scale in enumerate(scales):
        places = begin + np.arange(len(scale.kl))
        begin += len(scale.kl)
        color, hatch = (BLUE, ORANGE, INK)[i % 3], ("", "//", "..")[i % 3]
        style: dict[str, Any] = {"color": color, "edgecolor": "white", "hatch": hatch}
        label = f"{scale.height}x{scale.width}"
        kl = np.where(np.isfinite(scale.kl), scale.kl, 0.0)
        panels[0].bar(places, kl, label=label, **style)
        share = np.asarray(scale.active) / scale.num_latents
        panels[1].bar(places, share, **style)
    panels[0].set_title("KL to the prior, nats", loc="left", fontsize=10, color=INK)
    panels[1].set_title("share of active latents", loc="left", fontsize=10, color=INK)
    shares = [n / scale.num_latents for scale in scales for n in scale.active]
    panels[1].set_ylim(0.0, max(1.1 * max(shares), MIN_AXIS))
    panels[1].set_xlabel("group of latents, from the top")
    if begin <= MAX_TICKS:
        panels[1].set_xticks(np.arange(begin))
    _legend(panels[0])
    return _png(figure)


def cluster_bars(sizes: np.ndarray) -> bytes:
    """Returns a PNG of how many examples each cluster has, as bars.

    Args:
      sizes: [K].
    """
    figure, (axes,) = _figure(1, height=2.2)
    axes.bar(np.arange(len(sizes)), sizes, color=BLUE)
    axes.set_ylabel("examples")
    axes.set_xlabel("cluster")
    if len(sizes) <= MAX_TICKS:
        axes.set_xticks(np.arange(len(sizes)))
    return _png(figure)


def confusion(table: np.ndarray) -> bytes:
    """Returns a PNG of counts [K, K] as shades, with numbers where they fit.

    Args:
      table: examples by true label (rows) and by the label they are given (columns).
    """
    figure, (axes,) = _figure(1, height=4.4)
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
            style = {"ha": "center", "va": "center", "fontsize": 7, "color": color}
            if count:
                axes.text(column, row, str(count), **style)
    return _png(figure)


def aggregate(draws: np.ndarray, order: Sequence[int]) -> bytes:
    """Returns a PNG of the codes of all data, dimension by dimension, and the prior.

    Args:
      draws: [N, D], draws of q(z), whose prior is N(0, I).
      order: the dimensions, the most important first; the first four get a histogram.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(1.3, 1.0, 1.0))
    axes = _styled(figure.add_subplot(grid[0, :]))
    places, ordered = np.arange(len(order)), draws[:, list(order)]
    axes.axhspan(-1.0, 1.0, color=ORANGE, alpha=0.25, linewidth=0, label="prior")
    bars = {"fmt": "o", "markersize": 3, "linewidth": 1, "color": BLUE, "label": "q(z)"}
    axes.errorbar(places, ordered.mean(0), ordered.std(0), **bars)
    axes.set_ylabel("mean ± deviation")
    axes.set_xlabel("dimension" if len(order) <= MAX_TICKS else "rank of the dimension")
    if len(order) <= MAX_TICKS:
        axes.set_xticks(places, [str(d) for d in order], fontsize=7)
    place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 2}
    axes.legend(frameon=False, labelcolor=INK, fontsize=8, **place)
    x = np.linspace(-4.0, 4.0, 200)
    density = np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)
    for i, d in enumerate(order[:NUM_HISTOGRAMS]):
        axes = _styled(figure.add_subplot(grid[1 + i // 2, i % 2]))
        style = {"density": True, "color": BLUE, "alpha": 0.7}
        axes.hist(np.clip(draws[:, d], -4.0, 4.0), bins=33, range=(-4.0, 4.0), **style)
        axes.plot(x, density, "--", color=ORANGE, linewidth=1.5)
        axes.set_title(f"z_{d}", loc="left", fontsize=9, color=INK)
        axes.set_yticks([])
    return _png(figure)


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
    figure, (axes,) = _figure(1, height=3.4)
    for i, point in enumerate(points):
        errors = {"xerr": point.rate_error, "yerr": point.distortion_error}
        style = {"color": _color(i), "markersize": 7, "label": point.name}
        axes.errorbar(
            point.rate,
            point.distortion,
            fmt=MARKERS[i % len(MARKERS)],
            **errors,
            **style,
        )
    rates = np.array([p.rate for p in points])
    distortions = np.array([p.distortion for p in points])
    reach = max(np.ptp(rates), np.ptp(distortions), 0.25 * float(rates.max()), 1.0)
    centre = rates.mean(), distortions.mean()
    low, high = max(0.0, centre[0] - reach), centre[0] + reach
    axes.set_xlim(low, high)
    axes.set_ylim(centre[1] - reach, centre[1] + reach)
    for total in np.arange(
        math.floor(sum(centre) - 2 * reach),
        sum(centre) + 2 * reach,
        _round_step(reach / 2.0),
    ):
        axes.plot((low, high), (total - low, total - high), color=INK, linewidth=0.5)
    axes.set_xlabel("rate: KL(q(z|x) || p(z)), nats")
    axes.set_ylabel("distortion: −log p(x|z), nats")
    if len(points) > 1:
        _legend(axes)
    return _png(figure)


def _round_step(length: float) -> float:
    """Returns the largest of 1, 2, 5 times a power of ten that is not above length."""
    power = 10.0 ** math.floor(math.log10(length))
    return power * max(f for f in (1.0, 2.0, 5.0) if f * power <= length)


def latent_map(
    places: np.ndarray,
    signs: np.ndarray | None,
    axis_names: tuple[str, str],
    thumbnails: Sequence[tuple[int, np.ndarray]] = (),
) -> bytes:
    """Returns a PNG of codes in two dimensions.

    Args:
      places: [N, 2].
      signs: [N], whole numbers that the codes are drawn as, in a colour for each; of
        more than ten different ones all are dots.
      axis_names: of both axes.
      thumbnails: examples, each with its image [H, W, 1 or 3] in [0, 1], which stands
        at its place.
    """
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure, (axes,) = _figure(1, height=4.4)
    draw_codes(axes, places, signs)
    for index, image in thumbnails:
        zoom = THUMBNAIL / max(image.shape[:2])
        levels = image if image.shape[-1] == 3 else image.mean(-1)
        shown = OffsetImage(levels, zoom=zoom, cmap="gray", resample=False)
        shown.image.set_clim(0.0, 1.0)
        frame = {"edgecolor": INK, "linewidth": 0.6}
        axes.add_artist(AnnotationBbox(shown, places[index], pad=0.08, bboxprops=frame))
    axes.set_xlabel(axis_names[0])
    axes.set_ylabel(axis_names[1])
    return _png(figure)


def draw_codes(axes: Any, places: np.ndarray, signs: np.ndarray | None) -> None:
    """Draws codes [N, 2] as their signs [N], numbers; as dots if there are many."""
    kinds = [] if signs is None else np.unique(signs).tolist()
    if 1 < len(kinds) <= MAX_SIGNS:
        for i, kind in enumerate(kinds):
            x, y = places[signs == kind].T
            axes.scatter(x, y, 34, color=_color(i), marker=f"${kind}$", linewidths=0.3)
    else:
        axes.scatter(places[:, 0], places[:, 1], 9, color=BLUE, alpha=0.6, linewidths=0)


def _color(i: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](i % 10)


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
    figure, panels = _figure(len(names), height=1.6)
    for axes, name in zip(panels, names, strict=True):
        for i, split in enumerate(splits):
            rows = [r for r in history if r["split"] == split and _number(r, name)]
            if rows:
                points = [r["step"] for r in rows], [r[name] for r in rows]
                style = {"color": (BLUE, ORANGE, INK)[i % 3], "linewidth": 1.2}
                marks = "o" if len(rows) == 1 else ""  # a line of one point is unseen
                dashes = ("-", "--", ":")[i % 3]
                axes.plot(*points, marks + dashes, label=split, markersize=4, **style)
        title = name.replace("_", " ") + (", nats" if name in IN_NATS else "")
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        _leave_out_start(axes)
    _legend(max(panels, key=lambda axes: len(axes.lines)))
    panels[-1].set_xlabel("step")
    return _png(figure)


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


def _figure(num_panels: int, height: float) -> tuple[Any, list[Any]]:
    """Returns a figure and its panels, one below the other, `height` inches each.

    Narrow, so that its text can be read on a phone; without pyplot's global state.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, num_panels * height), layout="constrained")
    panels = list(figure.subplots(num_panels, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        _styled(axes)
    return figure, panels


def _styled(axes: Any) -> Any:
    """Returns the axes, made to be read on any page."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=220, transparent=True)
    return buffer.getvalue()
