"""Estimates in rows with their intervals: subgroups, baselines, differences. Imports the canvas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lesion_triage.evaluate.figures.canvas import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    encode_png,
    error_bar_lengths,
    make_panels,
)

Kind = Literal["certified", "not_certifiable", "not_asked", "everyone"]

_MARKS: dict[Kind, tuple[str, str, str, str]] = {
    "everyone": ("D", BLACK, BLACK, "everyone"),
    "certified": ("s", BLUE, BLUE, "certified group"),
    "not_certifiable": ("o", VERMILLION, "white", "NOT CERTIFIABLE group"),
    "not_asked": ("^", GREY, GREY, "group that the certificate was not asked about"),
}


class Interval(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One row, or a heading if it has no interval for any panel and no kind."""

    label: str
    kind: Kind | None = None
    intervals: tuple[Interval | None, ...] = ()
    """One for each panel; None where it was not measured."""


def forest_plot(rows: Sequence[Row], titles: Sequence[str], target: float) -> bytes:
    """A forest plot: a row for each group, a panel for each measure, everyone as a dotted line.

    Args:
        rows: from top to bottom; a row without a kind is a heading.
        titles: of the panels; the first is sensitivity.
        target: the certified sensitivity, a dashed line in the first panel.
    """
    figure, panels = make_panels(8.6, 1.3 + 0.24 * len(rows), 1, len(titles), sharey=True)
    whole = next((row for row in rows if row.kind == "everyone"), None)
    for number, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        for place, row in enumerate(rows):
            if row.kind is None:
                axes.axhspan(place - 0.5, place + 0.5, color="#f2f2f2", linewidth=0)
                continue
            found = row.intervals[number]
            if found is None:
                axes.annotate(
                    "too few",
                    (0.02, place),
                    xycoords=("axes fraction", "data"),
                    fontsize=7,
                    color=GREY,
                    va="center",
                )
                continue
            _draw_interval(axes, found, place, row.kind)
        if whole is not None and (centre := whole.intervals[number]) is not None:
            axes.axvline(centre.value, color=BLACK, linewidth=0.9, linestyle=":")
        if number == 0:
            axes.axvline(target, color=GREEN, linewidth=1.2, linestyle="--")
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=8)
        _, high = axes.get_xlim()
        axes.set_xlim(right=min(high, 1.02))
    _draw_labels(panels[0], rows)
    _draw_legend(figure, rows, target)
    return encode_png(figure)


def _draw_labels(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8)
    for text, row in zip(axes.get_yticklabels(), rows, strict=True):
        if row.kind is None:
            text.set_fontweight("bold")
    axes.set_ylim(len(rows) - 0.5, -0.5)


def _draw_interval(axes: Axes, found: Interval, place: float, kind: Kind) -> None:
    mark, colour, fill, _ = _MARKS[kind]
    axes.errorbar(
        [found.value],
        [place],
        xerr=error_bar_lengths(*found),
        fmt=mark,
        color=colour,
        markerfacecolor=fill,
        markersize=6,
        capsize=2.5,
        elinewidth=1.3,
        linestyle="none",
    )


def _draw_legend(figure: object, rows: Sequence[Row], target: float) -> None:
    handles = []
    for kind, (mark, colour, fill, text) in _MARKS.items():
        if any(row.kind == kind for row in rows):
            handles.append(
                Line2D([], [], color=colour, marker=mark, markerfacecolor=fill, linestyle="-", label=text)
            )
    handles.append(Line2D([], [], color=BLACK, linestyle=":", label="value of everyone"))
    handles.append(Line2D([], [], color=GREEN, linestyle="--", label=f"certified sensitivity {target:g}"))
    figure.legend(  # type: ignore[attr-defined]
        handles=handles, loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )


def dot_plot(rows: Mapping[str, Interval | None], axis: str, reference: float, reference_name: str) -> bytes:
    """One panel with an interval for each row, and a dotted reference line.

    Args:
        rows: label -> what was measured; None is left empty.
        axis: label of the axis.
        reference: value of the reference line.
        reference_name: its label.
    """
    figure, (axes,) = make_panels(7.4, 1.1 + 0.36 * len(rows), 1, 1)
    marks = ("D", "o", "s", "^", "v")
    colours = (BLUE, VERMILLION, GREEN, BLACK, GREY)
    for place, found in enumerate(rows.values()):
        if found is not None:
            axes.errorbar(
                [found.value],
                [place],
                xerr=error_bar_lengths(*found),
                fmt=marks[place % len(marks)],
                color=colours[place % len(colours)],
                markersize=6,
                capsize=3,
                elinewidth=1.5,
            )
    axes.axvline(reference, color=BLACK, linestyle=":", linewidth=1, label=reference_name)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(axis)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    return encode_png(figure)
