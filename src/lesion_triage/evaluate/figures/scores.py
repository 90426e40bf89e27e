"""Reliability and distributions of the scores. Imports the canvas and calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lesion_triage.calibrate.curves import Bin, Histogram, log_odds
from lesion_triage.evaluate.figures.canvas import (
    BLACK,
    BLUE,
    ORANGE,
    SKY,
    VERMILLION,
    encode_png,
    make_canvas,
    make_panels,
    score_axis,
)


def reliability_diagram(bins: Sequence[Bin]) -> bytes:
    """Observed share of positive cases against the mean score, in bins of equal mass."""
    figure, axes = make_canvas(5.0, 4.6)
    scores = [bin_.mean_score for bin_ in bins]
    observed = np.array([bin_.observed.value for bin_ in bins])
    below = observed - [bin_.observed.low for bin_ in bins]
    above = [bin_.observed.high for bin_ in bins] - observed
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=0.8, linestyle=":", label="perfectly calibrated")
    axes.errorbar(
        scores,
        observed,
        yerr=np.clip([below, above], 0, None),
        fmt="o",
        color=BLUE,
        markersize=5,
        capsize=3,
        clip_on=False,
        label="observed, 95 % interval",
    )
    # Most scores are small: a square-root scale separates the low bins, where misses are.
    for axis in ("x", "y"):
        getattr(axes, f"set_{axis}scale")("function", functions=(_square_root, np.square))
        getattr(axes, f"set_{axis}ticks")([0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean score of the bin", ylabel="share that needs a visit")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return encode_png(figure)


def distributions(found: Histogram, threshold: float, band_limits: tuple[float, float, float]) -> bytes:
    """Scores of the positive cases above those of the others, on one log-odds axis, with threshold and bands.

    Each panel has a scale of its own: if few cases are positive, a shared scale would hide them.
    """
    figure, (above, below) = make_panels(7.4, 4.8, 2, 1, sharex=True)
    edges = log_odds(np.array(found.edges))
    for axes, counts, without, colour, hatch, label in (
        (above, found.positives, found.positives_without_score, ORANGE, "///", "need a visit"),
        (below, found.negatives, found.negatives_without_score, SKY, "", "do not"),
    ):
        axes.stairs(
            counts, edges, fill=True, facecolor=colour, hatch=hatch, edgecolor=BLACK, linewidth=0.5, alpha=0.8
        )
        axes.axvline(float(log_odds(threshold)), color=VERMILLION, linewidth=2)
        for limit in band_limits:
            axes.axvline(float(log_odds(limit)), color=BLACK, linewidth=1, linestyle=":")
        axes.margins(y=0.12)
        axes.set_ylabel("cases")
        total = sum(counts) + without
        beside = f"; {without:,} without a score" if without else ""
        axes.set_title(f"{total:,} that {label}{beside}", fontsize=9, loc="left")
    above.plot([], [], color=VERMILLION, linewidth=2, label=f"threshold {threshold:.4f}")
    above.plot([], [], color=BLACK, linewidth=1, linestyle=":", label="limits of the bands")
    above.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False)
    _label_bands(above, band_limits, float(edges[0]), float(edges[-1]))
    score_axis(below, float(edges[0]), float(edges[-1]))
    below.set_xlabel("score (log-odds scale)")
    return encode_png(figure)


def _label_bands(axes: Axes, limits: tuple[float, float, float], low: float, high: float) -> None:
    """Label each band in the middle of its visible part, if that is wide enough."""
    borders = [high, *(min(max(float(log_odds(limit)), low), high) for limit in limits), low]
    for band, (top, bottom) in enumerate(pairwise(borders), start=1):
        if top - bottom > 0.04 * (high - low):
            axes.annotate(
                f"band {band}",
                ((top + bottom) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, -2),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=7,
            )


def _square_root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.clip(values, 0, None))
