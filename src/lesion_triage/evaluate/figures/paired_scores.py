"""The scores of two bundles on the same cases. Imports the canvas and calibrate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.curves import log_odds
from lesion_triage.calibrate.paired_comparison import PolicyOutput
from lesion_triage.evaluate.figures.canvas import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    encode_png,
    make_panels,
    score_axis,
)

_MAX_DOTS = 4_000
"""Most cases on the same side that are drawn, else a sample; scored cases that changed side are all drawn."""


def score_scatter(
    first: PolicyOutput,
    second: PolicyOutput,
    positive: NDArray[np.bool_],
    thresholds: tuple[float, float],
    names: tuple[str, str],
) -> bytes:
    """Score by the second against score by the first, for each class; cases that changed side are marked."""
    figure, panels = make_panels(9.0, 4.7, 1, 2, sharex=True, sharey=True)
    both = np.isfinite(first.scores) & np.isfinite(second.scores)
    axis_limits = [0.0, 0.0]
    for axes, members, title in (
        (panels[0], positive, "need a visit"),
        (panels[1], ~positive, "do not"),
    ):
        shown = members & both
        gained, lost = (
            members & ~first.referred & second.referred,
            members & first.referred & ~second.referred,
        )
        same = np.flatnonzero(shown & ~gained & ~lost)
        if same.size > _MAX_DOTS:
            same = np.random.default_rng(0).choice(same, _MAX_DOTS, replace=False)
        for chosen, mark, colour, size, label in (
            (same, ".", GREY, 12, "same side"),
            (np.flatnonzero(gained & both), "^", BLUE, 26, f"referred by {names[1]} alone"),
            (np.flatnonzero(lost & both), "v", VERMILLION, 26, f"referred by {names[0]} alone"),
        ):
            x, y = log_odds(first.scores[chosen]), log_odds(second.scores[chosen])
            axes.scatter(x, y, s=size, marker=mark, color=colour, alpha=0.7, linewidths=0, label=label)
            if x.size:
                axis_limits = [min(axis_limits[0], x.min(), y.min()), max(axis_limits[1], x.max(), y.max())]
        axes.axvline(float(log_odds(thresholds[0])), color=GREEN, linewidth=1, linestyle="--")
        axes.axhline(
            float(log_odds(thresholds[1])), color=GREEN, linewidth=1, linestyle="--", label="thresholds"
        )
        axes.set_title(
            f"{int(members.sum()):,} that {title}: {int(gained.sum()):,} up, {int(lost.sum()):,} down",
            fontsize=9,
        )
        axes.set_xlabel(f"score by {names[0]}")
    score_axis(panels[0], axis_limits[0], axis_limits[1], "x", 0.09)
    score_axis(panels[0], axis_limits[0], axis_limits[1], "y")
    panels[0].set_ylabel(f"score by {names[1]}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return encode_png(figure)
