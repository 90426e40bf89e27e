"""Figures of the audit as PNG bytes. Imports numpy, matplotlib (Agg, no pyplot) and this package.

Colours are those of Okabe & Ito, safe for colour blindness; markers repeat their meaning. No figure shows a
picture of a person.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lesion_triage.audit.findings import Finding, Table, Verdict
from lesion_triage.config import Audit

ORANGE, SKY, GREEN, BLUE, VERMILLION, BLACK = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#000000"

_MARKS = {Verdict.PASS: (BLUE, "o"), Verdict.WARN: (ORANGE, "s"), Verdict.FAIL: (VERMILLION, "D")}
_MAX_ROWS = 25
_MAX_LABEL_LENGTH = 48


def aurocs(findings: Sequence[Finding], config: Audit) -> bytes | None:
    """The AUROC of everything tested that is not the lesion, with its interval and the two limits."""
    rows = [
        (
            number.what.removeprefix("AUROC of "),
            number.value,
            number.low,
            number.high,
            one.counts_as,
            one.accepted,
        )
        for one in findings
        for number in one.measured
        if number.value is not None and number.low is not None and number.high is not None
        if number.what.startswith("AUROC of ") and one.code != "model_and_metadata"
    ]
    if not rows:
        return None
    figure, axes = _canvas(8.0, 1.3 + 0.38 * len(rows))
    for place, (_, value, low, high, verdict, accepted) in enumerate(rows):
        colour, mark = _MARKS[verdict]
        axes.errorbar(
            [value], [place], xerr=[[value - low], [high - value]], fmt=mark, color=colour, capsize=3,
            markersize=6, fillstyle="none" if accepted else "full",
        )  # fmt: skip
    axes.axvline(0.5, color=BLACK, linewidth=0.8, linestyle=":")
    axes.axvline(config.warn_auroc, color=ORANGE, linewidth=1.2, linestyle="--")
    axes.axvline(config.fail_auroc, color=VERMILLION, linewidth=1.2, linestyle="-.")
    for limit, word in ((0.5, "chance"), (config.warn_auroc, "warn"), (config.fail_auroc, "fail")):
        axes.annotate(word, (limit, 1), xycoords=("data", "axes fraction"), xytext=(2, 2),
                      textcoords="offset points", fontsize=8)  # fmt: skip
    _label_rows(axes, [row[0] for row in rows])
    axes.set(xlim=(min(0.35, *(row[2] for row in rows)), 1.0), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel(
        "AUROC with 95 % interval; circle pass, square warn, diamond fail, hollow accepted", fontsize=8
    )
    return _png(figure)


def shares_by_source(table: Table) -> bytes | None:
    """Share of positives in the largest sources, with exact intervals; mark size shows the number of rows."""
    rows = [row for row in table.rows if isinstance(row[3], float)][:_MAX_ROWS]
    if len(rows) < 2:
        return None
    figure, axes = _canvas(8.0, 1.1 + 0.38 * len(rows))
    largest = max(float(row[1] or 0) for row in rows)
    for place, (_, count, _, share, low, high, _) in enumerate(rows):
        value, below, above = float(share or 0), float(low or 0), float(high or 0)
        size = 4 + 8 * (float(count or 0) / largest) ** 0.5
        axes.errorbar([value], [place], xerr=[[value - below], [above - value]], fmt="o", color=BLUE,
                      capsize=3, markersize=size)  # fmt: skip
    pooled = sum(float(row[2] or 0) for row in rows) / sum(float(row[1] or 0) for row in rows)
    axes.axvline(pooled, color=BLACK, linewidth=0.8, linestyle=":", label=f"together {pooled:.1%}")
    _label_rows(axes, [f"{_shorten(str(row[0]))} ({row[1]:,})" for row in rows])
    axes.set(xlim=(-0.01, 1.01), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel("share of positives with exact 95 % interval; number of rows in brackets", fontsize=8)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return _png(figure)


def shares_by_label(table: Table, what: str) -> bytes | None:
    """Share of positives and of negatives that have each property, joined by a line."""
    rows = table.rows[:_MAX_ROWS]
    if not rows:
        return None
    figure, axes = _canvas(8.0, 1.3 + 0.36 * len(rows))
    for place, row in enumerate(rows):
        positive, negative = float(row[1] or 0), float(row[2] or 0)
        axes.plot([positive, negative], [place, place], color=BLACK, linewidth=0.8, zorder=1)
        axes.plot([positive], [place], "D", color=VERMILLION, label="positives" if not place else None)
        axes.plot(
            [negative], [place], "o", color=BLUE, label="negatives" if not place else None, fillstyle="none"
        )
    most = max(float(share or 0) for row in rows for share in row[1:3])
    _label_rows(axes, [_shorten(str(row[0])) for row in rows])
    axes.set(xlim=(-0.01, min(1.01, max(0.2, 1.15 * most))), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel(what, fontsize=8)
    axes.legend(loc="best", fontsize=8, frameon=False)
    return _png(figure)


def skin_tones(table: Table) -> bytes | None:
    """Pictures by estimated skin tone."""
    rows = table.rows
    if not any(row[1] for row in rows):
        return None
    figure, axes = _canvas(8.0, 3.0)
    places = np.arange(len(rows))
    positives = np.array([int(row[2] or 0) for row in rows])
    everyone = np.array([int(row[1] or 0) for row in rows])
    axes.bar(places, everyone - positives, color=SKY, edgecolor=BLACK, linewidth=0.5, label="negatives")
    axes.bar(places, positives, bottom=everyone - positives, color=ORANGE, hatch="///", edgecolor=BLACK,
             linewidth=0.5, label="positives")  # fmt: skip
    axes.set_xticks(places, [str(row[0]).replace("cannot be", "cannot be\n") for row in rows], fontsize=8)
    axes.set_ylabel("pictures", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def occlusion(table: Table, config: Audit) -> bytes | None:
    """AUROC of the model on whole and covered pictures."""
    rows = table.rows
    if not rows:
        return None
    figure, axes = _canvas(8.0, 2.6)
    for place, (_, value, low, high, _) in enumerate(rows):
        middle, below, above = float(value or 0), float(low or 0), float(high or 0)
        colour, mark = (VERMILLION, "D") if place in (1, 2) else (BLUE, "o")
        axes.errorbar([middle], [place], xerr=[[middle - below], [above - middle]], fmt=mark, color=colour,
                      capsize=3, markersize=6)  # fmt: skip
    axes.axvline(0.5, color=BLACK, linewidth=0.8, linestyle=":", label="chance")
    axes.axvline(
        config.warn_auroc, color=ORANGE, linewidth=1.2, linestyle="--", label="limit for covered pictures"
    )
    _label_rows(axes, [str(row[0]) for row in rows])
    axes.set(xlim=(0.3, 1.0), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel("AUROC on validation pictures with 95 % interval", fontsize=8)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8, frameon=False)
    return _png(figure)


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows; a dollar sign in the name of a source or column must not start a formula."""
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)


def _shorten(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _MAX_LABEL_LENGTH else f"{name[: _MAX_LABEL_LENGTH - 1]}…"


def _canvas(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():  # a script missing from the font is drawn as boxes; the table has it
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()
