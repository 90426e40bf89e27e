"""Who is missed as photographs get worse, as PNG bytes. Imports matplotlib by way of this room's figures."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.data.corruptions import SEVERITIES
from lesion_triage.evaluate.figures import BLACK, BLUE, ORANGE, VERMILLION
from lesion_triage.evaluate.robustness import UNMODIFIED, Row

_COLUMNS = 3
_ALLOWED = 0.05


def figure(rows: Sequence[Row]) -> bytes:
    """One panel for each corruption: positive cases missed with the gates and without, photographs refused.

    Bars are exact 95 % intervals; severity 0 is the unmodified photographs. Marks repeat what colours say.
    """
    names = list(dict.fromkeys(row.corruption for row in rows if row.corruption != UNMODIFIED))
    lines = max(1, -(-len(names) // _COLUMNS))
    canvas = Figure(figsize=(3.1 * _COLUMNS, 2.5 * lines + 0.7), layout="constrained")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(lines, _COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        shown = [row for row in rows if row.corruption in (UNMODIFIED, name)]
        places = [row.severity for row in shown]
        _line(axes, places, [row.refused for row in shown], BLUE, "s", "--", "photographs refused")
        without = [row.missed_without_gates for row in shown]
        _line(axes, places, without, ORANGE, "^", ":", "positive cases missed, were there no gates")
        _line(axes, places, [row.missed for row in shown], VERMILLION, "o", "-", "positive cases missed")
        axes.axhline(_ALLOWED, color=BLACK, linewidth=0.8, linestyle=(0, (1, 3)))
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.grid(color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    panels[0].set(ylim=(-0.03, 1.03), xticks=[0, *SEVERITIES])
    canvas.supxlabel("severity; 0: unmodified", fontsize=10)
    canvas.supylabel("share; dotted line: 5 %", fontsize=10)
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    stream = io.BytesIO()
    canvas.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def _line(
    axes: Axes,
    places: Sequence[int],
    shares: Sequence[Proportion],
    colour: str,
    mark: str,
    style: str,
    label: str,
) -> None:
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
        linewidth=1.3,
        elinewidth=0.8,
        capsize=2,
        label=label,
    )
