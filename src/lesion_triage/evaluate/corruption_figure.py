"""Rejection of spoilt photographs by severity, as PNG bytes. Imports matplotlib (Agg) and this room."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.data.corruptions import CORRUPTIONS, SEVERITIES
from lesion_triage.evaluate.corruptions import UNMODIFIED, Row
from lesion_triage.evaluate.figures import BLUE, VERMILLION

_STYLES = ((BLUE, "o", "-"), (VERMILLION, "s", "--"))
_COLUMNS = 3


def figure(rows_by_data: Mapping[str, Sequence[Row]]) -> bytes:
    """One panel for each corruption, one line for each data set, with exact 95 % intervals.

    Filled marks: refused. Hollow marks: refused or advised with a code that fits. Severity 0 is the
    unmodified pictures. Shape and line style repeat what the colour says.

    Args:
        rows_by_data: name of the data, and what ``corruptions.measure`` said of it; at most two.
    """
    names = [name for name in CORRUPTIONS if any(row.corruption == name for row in _all(rows_by_data))]
    lines = -(-len(names) // _COLUMNS)
    canvas = Figure(figsize=(3.1 * _COLUMNS, 2.5 * lines + 0.7), layout="constrained")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(lines, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        for (data, rows), (colour, mark, style) in zip(rows_by_data.items(), _STYLES, strict=False):
            _lines(
                axes, [row for row in rows if row.corruption in (UNMODIFIED, name)], data, colour, mark, style
            )
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    panels[0].set(ylim=(-0.03, 1.03), xticks=[0, *SEVERITIES])
    canvas.supxlabel("severity; 0: unmodified", fontsize=10)
    canvas.supylabel("share of the photographs", fontsize=10)
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    stream = io.BytesIO()
    canvas.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def _lines(axes: Axes, rows: Sequence[Row], data: str, colour: str, mark: str, style: str) -> None:
    spoilt = [row for row in rows if row.severity]
    _line(axes, rows, [row.refused for row in rows], (colour, mark, style, 0.0, colour), f"{data}: refused")
    _line(
        axes,
        spoilt,
        [row.named for row in spoilt],
        (colour, mark, ":", 0.12, "white"),
        f"{data}: refused or advised, code fits",
    )


def _line(
    axes: Axes,
    rows: Sequence[Row],
    shares: Sequence[Proportion],
    look: tuple[str, str, str, float, str],
    label: str,
) -> None:
    colour, mark, style, shift, fill = look
    values = [share.value for share in shares]
    axes.errorbar(
        [row.severity + shift for row in rows],
        values,
        yerr=[
            [share.value - share.low for share in shares],
            [share.high - share.value for share in shares],
        ],
        color=colour,
        marker=mark,
        linestyle=style,
        markersize=4.5,
        markerfacecolor=fill,
        linewidth=1.3,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )


def _all(rows_by_data: Mapping[str, Sequence[Row]]) -> list[Row]:
    return [row for rows in rows_by_data.values() for row in rows]
