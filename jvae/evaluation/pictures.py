"""Pictures for people: grids of images, and figures, as arrays and PNG bytes.

Figures have no background and a mid grey for text, so that the same file reads on a
light page, a dark page and paper.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jvae.errors import require
from jvae.evaluation.scales import Scale

MIN_TILE = 56
"""Pixels that the shorter side of a tile has at least: an 8x8 digit can be read."""
GAP = 128
"""The grey between tiles, seen next to black and white images, on any page."""
MAX_TICKS = 20
"""Bars that are numbered one by one."""
MAX_COUNTS = 12
"""Classes whose counts are written into the picture of confusions."""
MIN_AXIS = 0.01
"""Nats that the axis of KL shows at least."""
INK, BLUE, ORANGE = "#757a82", "#3b7dd8", "#d9822b"
IN_NATS = ("loss", "elbo", "log_likelihood", "kl")
BOUNDS = ("global_bound", "local_bound")
CURVES = (*IN_NATS, *BOUNDS, "accuracy", "learning_rate", "gradient_norm")
"""Names of `history` that `curves` draws, those that there are."""


def grid(
    images: np.ndarray, columns: int, pad: int = 4, min_tile: int = MIN_TILE
) -> np.ndarray:
    """Returns the images side by side, uint8 [height, width, 1 or 3], row by row.

    Small images are magnified by a whole factor, every pixel a square.

    Args:
      images: [N, H, W, C] in [0, 1]; three channels are colours, else their mean is
        shown.
      columns: images in a row; the last row may be short.
      pad: pixels between and around them.
      min_tile: pixels that the shorter side of an image has at least.

    Raises:
      ConfigError: no images, or columns below 1.
    """
    images = np.asarray(images, np.float32)
    require(images.ndim == 4 and len(images) > 0, "images", "be [N, H, W, C]", images)
    require(columns >= 1, "columns", "be at least 1", columns)
    if images.shape[-1] != 3:
        images = images.mean(-1, keepdims=True)
    bright = np.nan_to_num(np.clip(images, 0.0, 1.0)) * 255.0
    factor = max(1, math.ceil(min_tile / min(images.shape[1:3])))
    tiles = np.round(bright).astype(np.uint8).repeat(factor, 1).repeat(factor, 2)
    count, height, width, channels = tiles.shape
    columns, step_y, step_x = min(columns, count), height + pad, width + pad
    shape = (-(-count // columns) * step_y + pad, columns * step_x + pad, channels)
    sheet = np.full(shape, GAP, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = (i // columns) * step_y + pad, (i % columns) * step_x + pad
        sheet[top : top + height, left : left + width] = tile
    return sheet


def encode_png(array: np.ndarray) -> bytes:
    """Returns a PNG file of uint8 [height, width, 1 or 3]."""
    from PIL import Image

    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_png(path: epath.PathLike, array: np.ndarray) -> None:
    """Writes uint8 [height, width, 1 or 3] as a PNG file."""
    epath.Path(path).write_bytes(encode_png(array))


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
        axes.set_facecolor("none")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK, labelsize=8)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, panels


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, labelcolor=INK, fontsize=8)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=220, transparent=True)
    return buffer.getvalue()
