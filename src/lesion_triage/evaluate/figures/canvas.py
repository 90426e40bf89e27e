"""What all figures share: colours, axes, log-odds ticks, PNG encoding. Imports numpy and matplotlib.

Agg without pyplot: no window, no state between figures.
"""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lesion_triage.calibrate.curves import log_odds

ORANGE, SKY, GREEN, BLUE, VERMILLION = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"
BLACK, GREY, RULE = "#000000", "#666666", "#dddddd"

_TICKS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)


def make_canvas(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure, panels = make_panels(width_in, height_in, 1, 1)
    return figure, panels[0]


def make_panels(
    width_in: float, height_in: float, rows: int, columns: int, **shared: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with several pairs of axes, row by row.

    Args:
        width_in: inches.
        height_in: inches.
        rows: of panels.
        columns: of panels.
        shared: further arguments of ``Figure.subplots``.
    """
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(np.ravel(figure.subplots(rows, columns, squeeze=False, **shared)))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=RULE, linewidth=0.5)
        axes.set_axisbelow(True)
    return figure, panels


def encode_png(figure: Figure) -> bytes:
    """The bytes of a PNG file, at 150 dots per inch."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def error_bar_lengths(value: float, low: float, high: float) -> NDArray[np.float64]:
    """Lengths of an error bar below and above, shape (2, 1); at least 0, whatever the rounding."""
    return np.clip([[value - low], [high - value]], 0, None)


def score_axis(
    axes: Axes, low: float, high: float, which: Literal["x", "y"] = "x", apart: float = 0.05
) -> None:
    """Ticks of an axis in log odds, labelled with scores.

    Args:
        axes: drawn in log odds.
        low: log odds at its beginning.
        high: log odds at its end.
        which: ``x`` or ``y``.
        apart: smallest distance between two labels, as a share of the axis.
    """
    ticks: list[float] = []
    for tick in _TICKS:
        at = float(log_odds(tick))
        near = bool(ticks) and at - float(log_odds(ticks[-1])) < apart * (high - low)
        if low - 0.5 <= at <= high + 0.5 and not near:
            ticks.append(tick)
    labels = [f"{tick:g}" for tick in ticks]
    getattr(axes, f"set_{which}ticks")([float(log_odds(tick)) for tick in ticks], labels)
