"""What all figures look like, and how they become PNG bytes.

They have no background and a mid grey for text, so that the same file reads on a light
page, a dark page and paper.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

INK, BLUE, ORANGE = "#757a82", "#3b7dd8", "#d9822b"
MARKERS = "osD^vP*Xp<"
"""Of several runs, so that colour alone tells nothing."""
MAX_TICKS = 20
"""Bars that are numbered one by one."""


def color(i: int) -> Any:
    """Returns the colour of the i-th kind or run."""
    from matplotlib import colormaps

    return colormaps["tab10"](i % 10)


def panels(num_panels: int, height: float) -> tuple[Any, list[Any]]:
    """Returns a figure and its panels, one below the other, `height` inches each.

    Narrow, so that its text can be read on a phone; without pyplot's global state.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, num_panels * height), layout="constrained")
    panels = list(figure.subplots(num_panels, sharex=True, squeeze=False)[:, 0])
    for axes in panels:
        styled(axes)
    return figure, panels


def styled(axes: Any) -> Any:
    """Returns the axes, made to be read on any page."""
    axes.set(facecolor="none", axisbelow=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.6)
    return axes


def of_run(i: int) -> dict[str, Any]:
    """Returns the colour and the marker of the i-th run."""
    return {"color": color(i), "marker": MARKERS[i % len(MARKERS)]}


def legend(axes: Any, **place: Any) -> None:
    """Adds a legend, without a frame, where matplotlib's options say."""
    legend = axes.legend(frameon=False, labelcolor=INK, fontsize=8, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run's name may have dollars in it


def title(axes: Any, text: str, size: int = 10) -> None:
    """Writes a title above the left end."""
    axes.set_title(text, loc="left", fontsize=size, color=INK, parse_math=False)


def number_bars(axes: Any, names: Sequence[int] | np.ndarray) -> bool:
    """Writes a number under each bar, if they are few; returns whether they are."""
    are_few = len(names) <= MAX_TICKS
    if are_few:
        axes.set_xticks(np.arange(len(names)), list(map(str, names)), fontsize=7)
    return are_few


def png(figure: Any, dpi: int = 220) -> bytes:
    """Returns the figure as a PNG file of `dpi` pixels an inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, transparent=True)
    return buffer.getvalue()
