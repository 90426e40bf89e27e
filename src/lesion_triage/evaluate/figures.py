"""ROC, reliability and score figures as PNG bytes. Imports numpy, matplotlib (Agg, no pyplot) and calibrate.

Colours are those of Okabe & Ito, distinct to the colour-blind; shapes and line styles repeat what they say.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lesion_triage.calibrate.metrics import Bin, Estimate, Proportion, Sample

ORANGE, SKY, GREEN, BLUE, VERMILLION, BLACK = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#000000"

_TICKS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999)


def roc(
    sample: Sample,
    auroc: Estimate | None,
    sensitivity: Proportion,
    specificity: Proportion,
    target: float,
) -> bytes:
    """Sensitivity against 1 - specificity of the whole policy, with the certified operating point.

    Abstentions count as referred at every threshold, so the curve begins where only they are referred.
    """
    figure, axes = _canvas(5.6, 5.2)
    false_alarms, found = _roc_points(sample)
    label = "all thresholds" if auroc is None else f"all thresholds, AUROC {auroc.value:.3f}"
    axes.plot(false_alarms, found, color=BLUE, linewidth=1.8, label=label)
    axes.plot([0, 1], [0, 1], color=BLACK, linewidth=0.8, linestyle=":", label="chance")
    axes.axhline(target, color=GREEN, linewidth=1, linestyle="--", label=f"certified sensitivity {target:g}")
    x, y = 1 - specificity.value, sensitivity.value
    axes.errorbar(
        [x],
        [y],
        xerr=[[x - (1 - specificity.high)], [(1 - specificity.low) - x]],
        yerr=[[y - sensitivity.low], [sensitivity.high - y]],
        fmt="D",
        color=VERMILLION,
        markersize=6,
        capsize=3,
        label="certified threshold, exact 95 % intervals",
    )
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="1 - specificity", ylabel="sensitivity")
    axes.set_aspect("equal")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    return _png(figure)


def reliability_diagram(bins: Sequence[Bin]) -> bytes:
    """Observed share of positive cases against the mean score, in bins of equal mass, with counts."""
    figure, axes = _canvas(5.6, 5.2)
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
        label="observed, exact 95 % interval; number of cases above",
    )
    for position, bin_ in enumerate(bins):
        axes.annotate(
            str(bin_.cases),
            (bin_.mean_score, bin_.observed.high),
            xytext=(0, 4 + 8 * (position % 2)),  # neighbours in two rows, so that numbers do not touch
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    # Most scores are small: on a square-root scale the low bins, where a miss hides, stay apart.
    for axis in ("x", "y"):
        getattr(axes, f"set_{axis}scale")("function", functions=(_root, np.square))
        getattr(axes, f"set_{axis}ticks")([0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set(xlim=(0, 1), ylim=(0, 1.1), xlabel="mean score of the bin", ylabel="share that needs a visit")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    return _png(figure)


def histogram(sample: Sample, threshold: float, band_limits: tuple[float, float, float]) -> bytes:
    """Scores by reference standard on a log-odds axis, with the threshold and the limits of the bands."""
    figure, axes = _canvas(7.4, 4.0)
    scores, positive = sample.scores[: sample.scored], sample.positive[: sample.scored]
    odds = _log_odds(scores)
    low, high = (float(odds.min()), float(odds.max())) if odds.size else (-1.0, 1.0)
    edges = np.linspace(low - 1e-3, high + 1e-3, 41)
    groups = (
        (odds[~positive], SKY, "", "does not need a visit"),
        (odds[positive], ORANGE, "///", "needs a visit"),
    )
    for values, colour, hatch, label in groups:
        axes.hist(
            values,
            bins=edges.tolist(),
            color=colour,
            alpha=0.65,
            hatch=hatch,
            edgecolor=BLACK,
            linewidth=0.4,
            label=f"{label} ({values.size})",
        )
    for number, limit in enumerate(band_limits, start=1):
        _limit_line(axes, limit, f"band {number}", BLACK, ":")
    axes.axvline(
        float(_log_odds(threshold)), color=VERMILLION, linewidth=1.8, label=f"threshold {threshold:.4f}"
    )
    ticks = [tick for tick in _TICKS if low - 0.5 <= _log_odds(tick) <= high + 0.5]
    axes.set_xticks([float(_log_odds(tick)) for tick in ticks], [f"{tick:g}" for tick in ticks])
    axes.set(xlabel="score (log-odds scale)", ylabel="cases")
    axes.margins(y=0.12)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8, frameon=False)
    return _png(figure)


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
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def _roc_points(sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Highest scores first; one point after each distinct score, abstentions being the highest."""
    positive = sample.positive[::-1]
    found = np.concatenate([[0], np.cumsum(positive)]) / max(positive.sum(), 1)
    false_alarms = np.concatenate([[0], np.cumsum(~positive)]) / max((~positive).sum(), 1)
    scores = sample.scores[::-1]
    ends = np.concatenate([[True], scores[1:] != scores[:-1], [True]])
    return false_alarms[ends], found[ends]


def _limit_line(axes: Axes, limit: float, text: str, colour: str, style: str) -> None:
    x = float(_log_odds(limit))
    axes.axvline(x, color=colour, linewidth=1, linestyle=style)
    axes.annotate(
        text,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(2, -2),
        textcoords="offset points",
        rotation=90,
        va="top",
        fontsize=7,
    )


def _root(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.clip(values, 0, None))


def _log_odds(score: float | NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(score, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(clipped / (1 - clipped)))
