"""The figure of the reading queue. Imports this package; matplotlib only where it draws.

Okabe-Ito colours, which colour-blind readers can tell apart; the shape of a mark repeats its colour.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from lesion_triage.calibrate.queue_pool import Group
from lesion_triage.calibrate.queue_report import Study, discipline_name, heading
from lesion_triage.calibrate.queueing import FIRST_COME, STATISTICS, SimulationEstimate, Statistic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, GREEN, VERMILLION, BLACK, GREY = "#0072B2", "#009E73", "#D55E00", "#000000", "#999999"

_GROUPS: dict[Group, str] = {
    "referred_positives": "positives referred",
    "missed_positives": "positives missed",
    "negatives": "negatives",
}
_MARKS: dict[Statistic, tuple[str, str, str]] = {
    "mean": (BLUE, "o", "mean"),
    "p95": (GREEN, "D", "95 of 100 wait less"),
    "p99": (VERMILLION, "s", "99 of 100 wait less"),
}
_TICKS_MIN = {
    1: "1 min", 2: "2", 5: "5", 10: "10 min", 30: "30", 60: "1 h", 120: "2", 300: "5", 600: "10 h",
    1800: "30", 6000: "100 h", 18000: "300", 60000: "1000 h",
}  # fmt: skip


def draw(study: Study) -> bytes:
    """Waits of three groups under every order, on a logarithmic axis, as the bytes of a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - optional
    from matplotlib.figure import Figure  # noqa: PLC0415

    disciplines = list(study.outcomes)
    figure = Figure(figsize=(9.6, 1.8 + 0.34 * len(disciplines)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(_GROUPS), sharex=True, sharey=True)
    for axes, (group, title) in zip(panels, _GROUPS.items(), strict=True):
        _draw_group(axes, study, group)
        members = int(study.pool.group_masks()[group].sum())
        axes.set_title(f"{title}: {members:,}", fontsize=9)
        if not members:
            axes.annotate("none", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=9)
    panels[0].set_yticks(range(len(disciplines)), [discipline_name(one) for one in disciplines])
    panels[0].invert_yaxis()
    _clock_axis(panels[0])
    panels[1].set_xlabel("wait until the case is read (the clock runs while people read)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(heading(study), fontsize=10)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def _draw_group(axes: Axes, study: Study, group: Group) -> None:
    """For every order a line from mean to p99 with standard errors; a dotted line marks first come."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    for row in range(len(study.outcomes)):
        minutes = [found[row].value for one in STATISTICS if row in (found := _waits(study, group, one))]
        axes.plot(minutes, [row] * len(minutes), color=GREY, linewidth=1.2, zorder=1)
    for statistic, (colour, marker, label) in _MARKS.items():
        found = _waits(study, group, statistic)
        axes.errorbar(
            [wait.value for wait in found.values()],
            list(found),
            xerr=[wait.standard_error for wait in found.values()],
            fmt=marker,
            color=colour,
            markersize=6,
            elinewidth=1.2,
            label=label,
            zorder=2,
        )
        first_come = list(study.outcomes).index(FIRST_COME)
        if first_come in found:
            axes.axvline(found[first_come].value, color=colour, linewidth=0.9, linestyle=":")
    axes.plot([], [], color=BLACK, linestyle=":", linewidth=0.9, label="first come")


def _waits(study: Study, group: Group, statistic: Statistic) -> dict[int, SimulationEstimate]:
    """By row of the figure; a wait of 0 is left out, because the axis is logarithmic."""
    found = {row: waits.get((group, statistic)) for row, waits in enumerate(study.outcomes.values())}
    return {row: wait.minutes for row, wait in found.items() if wait is not None and wait.minutes.value > 0}


def _clock_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    inside = {minutes: text for minutes, text in _TICKS_MIN.items() if low <= minutes <= high}
    axes.set_xticks(list(inside), list(inside.values()))
    axes.set_xticks([], minor=True)
