"""Shares of cases with intervals that allow for several cases of one unit. Imports numpy and this package."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.bootstrap import INTERVAL_CONFIDENCE, Estimate
from lesion_triage.calibrate.certificate import sensitivity_lower_bound
from lesion_triage.calibrate.metrics import Proportion, proportion


def has_clusters(units: NDArray[np.intp]) -> bool:
    """True if two of these cases come from one unit."""
    ordered = np.sort(units)  # np.unique hashes, which takes forty times as long for a million
    return bool((ordered[1:] == ordered[:-1]).any())


def clustered_proportion(
    successes: NDArray[np.bool_],
    units: NDArray[np.intp],
    drawn: Estimate | None = None,
    confidence: float = INTERVAL_CONFIDENCE,
) -> Proportion:
    """The share of cases that are right, with a two-sided interval that counts units.

    Exact (Clopper & Pearson 1934) if every case is a unit of its own. Otherwise the same interval at the
    effective sample size ``(sum of sizes)**2 / sum of sizes**2`` of the units (Kish 1965), which treats all
    cases of a unit as copies of one. It is conservative where they are less alike.

    The correlation within units is not estimated from the cases. An effective size from the variance between
    units (Korn & Graubard 1998) is infinite if no unit differs from the others, as at 0 or 1, and large if
    they differ in one miss only. One more miss would then raise the lower bound. With 12 to 60 units of 10
    cases such bounds were above the true share up to three times as often as promised, even with the
    correction for degrees of freedom. This interval depends on the share and the sizes alone, so fewer misses
    never lower a bound.

    With all cases of a unit alike, a 95 % interval covers the share in at least 0.949 of all samples if no
    unit has more than a twentieth of the cases, by enumeration. If one has a third or a fifth, it may be 0.92
    or 0.90; joined with ``drawn``, it is 0.98.

    Args:
        successes: shape (cases,); at least one.
        units: what each of these cases belongs to, shape (cases,).
        drawn: interval from resampling units, which has no width at 0 or 1; if units hold several cases, the
            result covers it too.
        confidence: of the interval.
    """
    exact = proportion(int(successes.sum()), successes.size, confidence)
    if not has_clusters(units):
        return exact
    sizes = np.unique(units, return_counts=True)[1]
    trials = math.floor(successes.size**2 / np.sum(sizes**2) + 1e-9)
    one_sided = (1 + confidence) / 2
    low = _lower_bound(trials, trials * (1 - exact.value), one_sided)
    high = 1.0 - _lower_bound(trials, trials * exact.value, one_sided)
    if drawn is not None:
        low, high = min(low, drawn.low), max(high, drawn.high)
    return replace(exact, low=low, high=high)


def _lower_bound(trials: int, misses: float, confidence: float) -> float:
    """The exact bound, interpolated linearly between whole numbers of misses."""
    whole = math.floor(misses + 1e-9)
    part = max(misses - whole, 0.0)
    bound = sensitivity_lower_bound(trials, whole, confidence)
    if part < 1e-9:
        return bound
    return (1 - part) * bound + part * sensitivity_lower_bound(trials, whole + 1, confidence)
