"""Figure of the missed cases as photographs get worse. Imports this package's panels."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from lesion_triage.evaluate.figures.canvas import BLACK, BLUE, ORANGE, VERMILLION
from lesion_triage.evaluate.robustness import UNMODIFIED, Row
from lesion_triage.evaluate.severity_panels import line, panels

_ALLOWED = 0.05


def figure(rows: Sequence[Row]) -> bytes:
    """PNG bytes, a panel for each corruption: positive cases missed with and without gates, and refusals.

    Bars are 95 % intervals; severity 0 is the unmodified photographs. The marks repeat the colours.
    """
    names = list(dict.fromkeys(row.corruption for row in rows if row.corruption != UNMODIFIED))

    def draw(axes: Axes, name: str) -> None:
        shown = [row for row in rows if row.corruption in (UNMODIFIED, name)]
        at = [row.severity for row in shown]
        refused, missed = [row.refused for row in shown], [row.missed for row in shown]
        without = [row.missed_without_gates for row in shown]
        line(axes, at, refused, "photographs refused", colour=BLUE, mark="s", style="--")
        what = "positive cases missed"
        line(axes, at, without, f"{what} without gates", colour=ORANGE, mark="^", style=":")
        line(axes, at, missed, what, colour=VERMILLION, mark="o", style="-")
        axes.axhline(_ALLOWED, color=BLACK, linewidth=0.8, linestyle=(0, (1, 3)))

    return panels(names, draw, "share; dotted line: 5 %", legend_columns=3)
