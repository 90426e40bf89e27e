"""Shares by corruption and severity, one panel for each corruption, as PNG. Imports matplotlib and data."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.data.corruptions import SEVERITIES

_COLUMNS = 3


def panels(names: Sequence[str], draw: Callable[[Axes, str], None], label: str, legend_columns: int) -> bytes:
    """One panel for each corruption, all on the same axes.

    Args:
        names: of the corruptions.
        draw: draws the lines of one corruption on its axes.
        label: of the vertical axis.
        legend_columns: of the legend above all panels.
    """
    lines = max(1, -(-len(names) // _COLUMNS))
    figure = Figure(figsize=(3.1 * _COLUMNS, 2.5 * lines + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(lines, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(places, names, strict=False):
        draw(axes, name)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in places[len(names) :]:
        axes.set_visible(False)
    places[0].set(ylim=(-0.03, 1.03), xticks=[0, *SEVERITIES])
    figure.supxlabel("severity; 0: unmodified", fontsize=10)
    figure.supylabel(label, fontsize=10)
    handles, labels = places[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=legend_columns, frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def line(
    axes: Axes,
    places: Sequence[float],
    shares: Sequence[Proportion],
    label: str,
    *,
    colour: str,
    mark: str,
    style: str,
    fill: str | None = None,
) -> None:
    """Draw shares with their intervals; ``fill`` is the colour of the marks' inside, None: as the line."""
    axes.errorbar(
        places,
        [share.value for share in shares],
        yerr=[
            [share.value - share.low for share in shares],
            [share.high - share.value for share in shares],
        ],
        color=colour,
        marker=mark,
        linestyle=style,
        markersize=4.5,
        markerfacecolor=fill or colour,
        linewidth=1.3,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )
