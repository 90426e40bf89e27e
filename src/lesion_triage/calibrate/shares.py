"""Shares of cases that may come several from one unit, with intervals. Imports numpy and this room."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.bootstrap import INTERVAL_CONFIDENCE, Estimate
from lesion_triage.calibrate.certificate import sensitivity_lower_bound
from lesion_triage.calibrate.metrics import Proportion, proportion


def clustered(units: NDArray[np.intp]) -> bool:
    """True if two of these cases come from one unit."""
    return bool(np.unique(units).size < units.size)


def share_of(
    right: NDArray[np.bool_],
    units: NDArray[np.intp],
    drawn: Estimate | None = None,
    confidence: float = INTERVAL_CONFIDENCE,
) -> Proportion:
    """The share of cases that are right, with a two-sided interval that counts units.

    Exact (Clopper & Pearson 1934) where every case is of a unit of its own. Else that interval at the
    effective sample size ``p (1 - p) / v`` (Korn & Graubard 1998, Survey Methodology 24:193), ``v`` the
    variance of the share between units: as many independent cases would tell as much. Where no unit differs
    from the others, as at 0 or 1, ``v`` is 0 and says nothing; then all cases of a unit are taken for copies
    of one, which makes ``(sum of sizes)**2 / sum of sizes**2`` cases (Kish 1965). A bootstrap of units has no
    width there.

    Args:
        right: shape (cases,); at least one.
        units: what each of these cases belongs to, shape (cases,).
        drawn: interval from resampling units; where units hold several cases the result covers it too.
        confidence: of the interval.
    """
    exact = proportion(int(right.sum()), right.size, confidence)
    if not clustered(units):
        return exact
    trials = max(1, math.floor(_effective(right, units) + 1e-9))
    one_sided = (1 + confidence) / 2
    # Fractions of a case are rounded outwards, so the interval is never too short.
    misses, hits = (math.ceil(trials * part - 1e-9) for part in (1 - exact.value, exact.value))
    low = sensitivity_lower_bound(trials, misses, one_sided)
    high = 1.0 - sensitivity_lower_bound(trials, hits, one_sided)
    if drawn is not None:
        low, high = min(low, drawn.low), max(high, drawn.high)
    return replace(exact, low=low, high=high)


def _effective(right: NDArray[np.bool_], units: NDArray[np.intp]) -> float:
    """How many independent cases tell as much as these; at most as many as there are."""
    number = np.unique(units, return_inverse=True)[1]
    sizes, hits = np.bincount(number), np.bincount(number, right)
    share = float(right.mean())
    moved = float(np.sum((hits - share * sizes) ** 2)) * sizes.size / max(sizes.size - 1, 1)
    if moved < 1e-9:
        return float(right.size**2 / np.sum(sizes**2))
    return min(share * (1 - share) * right.size**2 / moved, float(right.size))
