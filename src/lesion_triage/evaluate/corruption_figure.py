"""Figure of how many corrupted photographs are refused, by severity. Imports this package's panels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from lesion_triage.data.corruptions import CORRUPTIONS
from lesion_triage.evaluate.corruptions import UNMODIFIED, Row
from lesion_triage.evaluate.figures.canvas import BLUE, VERMILLION
from lesion_triage.evaluate.severity_panels import line, panels

_STYLES = ((BLUE, "o", "-"), (VERMILLION, "s", "--"))
_SHIFT = 0.12
"""Shift of the hollow marks to the right, so that they do not hide the others."""


def figure(rows_by_data: Mapping[str, Sequence[Row]]) -> bytes:
    """PNG bytes: one panel for each corruption, one line for each dataset, with 95 % intervals.

    Filled marks: refused. Hollow marks: refused or advised with a code that fits. Severity 0 is the
    unmodified pictures. Shape and line style repeat the colour.

    Args:
        rows_by_data: the rows of ``corruptions.measure`` by the name of the dataset; at most two.
    """
    measured = {row.corruption for rows in rows_by_data.values() for row in rows}

    def draw(axes: Axes, name: str) -> None:
        for (data, rows), (colour, mark, style) in zip(rows_by_data.items(), _STYLES, strict=False):
            shown = [row for row in rows if row.corruption in (UNMODIFIED, name)]
            spoilt = [row for row in shown if row.severity]
            at, beside = [row.severity for row in shown], [row.severity + _SHIFT for row in spoilt]
            refused, named = [row.refused for row in shown], [row.named for row in spoilt]
            line(axes, at, refused, f"{data}: refused", colour=colour, mark=mark, style=style)
            what = f"{data}: refused or advised, code fits"
            line(axes, beside, named, what, colour=colour, mark=mark, style=":", fill="white")

    names = [name for name in CORRUPTIONS if name in measured]
    return panels(names, draw, "share of the photographs", legend_columns=2)
