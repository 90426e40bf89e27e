"""ROC and precision-recall curves, score histogram and reliability bins, thinned for drawing.

Imports numpy and this package's ``cells`` and ``clustered_proportions``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.cells import Floats, Sample
from lesion_triage.calibrate.clustered_proportions import clustered_proportion
from lesion_triage.calibrate.metrics import Proportion

MAX_CURVE_POINTS = 400
"""Points of a thinned curve, spaced evenly along it, so that no visible step is lost."""
HISTOGRAM_BARS = 40

_CLIP = 1e-6


@dataclass(frozen=True, slots=True)
class Curve:
    """Points from the highest threshold to the lowest; empty if a class that it needs is missing."""

    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """Cases with neighbouring scores, for a reliability diagram."""

    cases: int
    mean_score: float
    observed: Proportion
    """Share that is positive. Its interval is exact, or allows for clusters if a unit has several cases."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Cases by score, in bars of equal width in log odds."""

    edges: tuple[float, ...]
    """Scores, one more than there are bars; clipped to 1e-6 from 0 and 1."""
    negatives: tuple[int, ...]
    positives: tuple[int, ...]
    negatives_without_score: int
    positives_without_score: int


def roc_curve(sample: Sample, points: int = MAX_CURVE_POINTS) -> Curve:
    """Sensitivity (y) against 1 - specificity (x), from nobody referred to everybody.

    Abstentions are referred at every threshold, so the point after (0, 0) refers them alone.

    Args:
        sample: the cases.
        points: how many to keep at most.
    """
    found, false = _referred_by_falling_score(sample)
    if not found.size or not found[-1] or not false[-1]:
        return Curve((), ())
    return _thinned(np.append(0.0, false / false[-1]), np.append(0.0, found / found[-1]), points)


def precision_recall_curve(sample: Sample, points: int = MAX_CURVE_POINTS) -> Curve:
    """PPV (y) against sensitivity (x), from the highest score down; abstentions are referred throughout.

    Linear interpolation between points is not valid here (Davis & Goadrich 2006, ICML): draw steps.

    Args:
        sample: the cases.
        points: how many to keep at most.
    """
    found, false = _referred_by_falling_score(sample)
    if not found.size or not found[-1]:
        return Curve((), ())
    return _thinned(found / found[-1], found / (found + false), points)


def score_histogram(sample: Sample) -> Histogram:
    """Cases of each class by score."""
    odds = log_odds(sample.scores[: sample.scored])
    positive, without = sample.positive[: sample.scored], sample.positive[sample.scored :]
    low, high = (float(odds.min()), float(odds.max())) if odds.size else (-1.0, 1.0)
    edges = np.linspace(low - 1e-3, high + 1e-3, HISTOGRAM_BARS + 1)
    counts = [np.histogram(odds[members], edges)[0] for members in (~positive, positive)]
    return Histogram(
        edges=tuple((1 / (1 + np.exp(-edges))).tolist()),
        negatives=tuple(counts[0].tolist()),
        positives=tuple(counts[1].tolist()),
        negatives_without_score=int(np.count_nonzero(~without)),
        positives_without_score=int(np.count_nonzero(without)),
    )


def reliability(sample: Sample, units: NDArray[np.intp] | None = None) -> tuple[Bin, ...]:
    """Bins of equal mass, lowest scores first; tied scores share a bin.

    Args:
        sample: the cases; those without a score are in no bin.
        units: number of the unit that each case belongs to, shape (n,), in the order of the original data:
            cases of one patient do not count as independent. None: each case is a unit of its own.
    """
    if not sample.scored:
        return ()
    of = sample.order if units is None else units[sample.order]
    starts = sample.bin_starts()
    return tuple(
        Bin(
            cases=int(end - start),
            mean_score=float(sample.scores[start:end].mean()),
            observed=clustered_proportion(sample.positive[start:end], of[start:end]),
        )
        for start, end in pairwise([*starts, sample.scored])
    )


def log_odds(score: float | Floats) -> Floats:
    """Log odds of a score clipped to 1e-6 from 0 and 1, so that these can be drawn."""
    clipped = np.clip(score, _CLIP, 1 - _CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _referred_by_falling_score(sample: Sample) -> tuple[Floats, Floats]:
    """Positives and negatives at or above each distinct score, the highest first."""
    scores, positive = sample.scores[::-1], sample.positive[::-1]
    ends: NDArray[np.intp] = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    found = np.cumsum(positive)[ends].astype(np.float64)
    return found, ends + 1 - found


def _thinned(x: Floats, y: Floats, points: int) -> Curve:
    """At most ``points`` points, evenly spaced along the curve; both ends are kept."""
    if x.size > points:
        along = np.append(0.0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
        kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)).clip(0, x.size - 1))
        kept[-1] = x.size - 1
        x, y = x[kept], y[kept]
    return Curve(tuple(x.tolist()), tuple(y.tolist()))
