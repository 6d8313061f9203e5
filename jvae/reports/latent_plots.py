"""Figures of latents, as PNG bytes: their KL, where the codes are, what they miss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jvae.evaluation.scales import ScaleStatistics
from jvae.reports import style
from jvae.reports.style import BLUE, INK, MAX_TICKS, ORANGE

MAX_SIGNS = 10
"""Kinds of codes that are drawn as numbers; with more all are dots."""
NUM_HISTOGRAMS = 4
"""Dimensions of the aggregate posterior that are shown one by one."""
THUMBNAIL = 22.0
"""Points (1/72 inch) of the longer side of an image on a map."""
MIN_AXIS = 0.01
"""Nats that the axis of KL shows at least."""


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
    figure, (axes,) = style.panels(1, height=2.8)
    places = np.arange(len(kl))
    axes.bar(places[used], height[used], color=BLUE, label=f"active ({used.sum()})")
    if not used.all():
        axes.bar(places[~used], height[~used], color="none", edgecolor=BLUE)
        label = f"not active ({(~used).sum()})"
        marks = {"color": ORANGE, "markersize": 5, "clip_on": False, "label": label}
        axes.plot(places[~used], np.zeros((~used).sum()), "x", **marks)
    axes.set_ylim(min(0.0, height.min()), max(1.05 * height.max(), MIN_AXIS))
    unit = "group of latents" if active is None else "dimension"
    are_named = style.number_bars(axes, order)
    axes.set_xlabel(unit if are_named else f"rank of the {unit}")
    axes.set_ylabel("KL to the prior, nats")
    if active is not None:
        style.legend(axes)
    return style.png(figure)


def kl_lines(kl: Mapping[str, Sequence[float]]) -> bytes:
    """Returns a PNG of the KL of every group of latents of runs, sorted.

    Args:
      kl: {run: nats of each group}.
    """
    figure, (axes,) = style.panels(1, height=2.8)
    for i, (run, values) in enumerate(kl.items()):
        height = sorted(values, reverse=True)
        axes.plot(height, label=run, markersize=4, **style.of_run(i))
    axes.set(xlabel="rank of the group of latents", ylabel="KL to the prior, nats")
    style.legend(axes)
    return style.png(figure)


def scale_bars(scales: Sequence[ScaleStatistics]) -> bytes:
    """Returns a PNG of KL and share of active latents of every group, the top first.

    Args:
      scales: the coarsest first; each has its colour and its hatching.
    """
    figure, panels = style.panels(2, height=2.2)
    begin = 0

    for i, scale in enumerate(scales):
        places = begin + np.arange(len(scale.kl))
        begin += len(scale.kl)
        color, hatch = (BLUE, ORANGE, INK)[i % 3], ("", "//", "..")[i % 3]
        look: dict[str, Any] = {"color": color, "edgecolor": "white", "hatch": hatch}
        label = f"{scale.height}x{scale.width}"
        kl = np.where(np.isfinite(scale.kl), scale.kl, 0.0)
        panels[0].bar(places, kl, label=label, **look)
        share = np.asarray(scale.active) / scale.num_latents
        panels[1].bar(places, share, **look)

    style.title(panels[0], "KL to the prior, nats")
    style.title(panels[1], "share of active latents")
    shares = [n / scale.num_latents for scale in scales for n in scale.active]
    panels[1].set_ylim(0.0, max(1.1 * max(shares), MIN_AXIS))
    panels[1].set_xlabel("group of latents, from the top")

    if begin <= MAX_TICKS:
        panels[1].set_xticks(np.arange(begin))
    style.legend(panels[0])
    return style.png(figure)


def aggregate(draws: np.ndarray, order: Sequence[int]) -> bytes:
    """Returns a PNG of the codes of all data, dimension by dimension, and the prior.

    Args:
      draws: [N, D], draws of q(z), whose prior is N(0, I).
      order: the dimensions, the most important first; the first four get a histogram.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    grid = figure.add_gridspec(3, 2, height_ratios=(1.3, 1.0, 1.0))
    axes = style.styled(figure.add_subplot(grid[0, :]))
    places, ordered = np.arange(len(order)), draws[:, list(order)]
    axes.axhspan(-1.0, 1.0, color=ORANGE, alpha=0.25, linewidth=0, label="prior")
    bars = {"fmt": "o", "markersize": 3, "linewidth": 1, "color": BLUE, "label": "q(z)"}
    axes.errorbar(places, ordered.mean(0), ordered.std(0), **bars)
    axes.set_ylabel("mean ± deviation")
    are_named = style.number_bars(axes, order)
    axes.set_xlabel("dimension" if are_named else "rank of the dimension")
    style.legend(axes, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    x = np.linspace(-4.0, 4.0, 200)
    density = np.exp(-0.5 * x**2) / math.sqrt(2.0 * math.pi)
    for i, d in enumerate(order[:NUM_HISTOGRAMS]):
        axes = style.styled(figure.add_subplot(grid[1 + i // 2, i % 2]))
        look = {"density": True, "color": BLUE, "alpha": 0.7}
        axes.hist(np.clip(draws[:, d], -4.0, 4.0), bins=33, range=(-4.0, 4.0), **look)
        axes.plot(x, density, "--", color=ORANGE, linewidth=1.5)
        style.title(axes, f"z_{d}", 9)
        axes.set_yticks([])
    return style.png(figure)


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

    figure, (axes,) = style.panels(1, height=4.4)
    draw_codes(axes, places, signs)
    for index, image in thumbnails:
        zoom = THUMBNAIL / max(image.shape[:2])
        levels = image if image.shape[-1] == 3 else image.mean(-1)
        shown = OffsetImage(levels, zoom=zoom, cmap="gray", resample=False)
        shown.image.set_clim(0.0, 1.0)
        frame = {"edgecolor": INK, "linewidth": 0.6}
        axes.add_artist(AnnotationBbox(shown, places[index], pad=0.08, bboxprops=frame))
    axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
    return style.png(figure)


def draw_codes(axes: Any, places: np.ndarray, signs: np.ndarray | None) -> None:
    """Draws codes [N, 2] as their signs [N], numbers; as dots if there are many."""
    kinds = [] if signs is None else np.unique(signs).tolist()
    if 1 < len(kinds) <= MAX_SIGNS:
        for i, kind in enumerate(kinds):
            x, y = places[signs == kind].T
            look = {"color": style.color(i), "marker": f"${kind}$", "linewidths": 0.3}
            axes.scatter(x, y, 34, **look)
    else:
        axes.scatter(places[:, 0], places[:, 1], 9, color=BLUE, alpha=0.6, linewidths=0)
