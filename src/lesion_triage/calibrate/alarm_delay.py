"""How soon ``sequential`` notices that a sensitivity has fallen, by simulation. Imports it and numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.sequential import EvidenceBelow
from lesion_triage.errors import CalibrationError

GOOD_CASES = 300
_GOOD_MISSES = 0.4
"""Of the misses that the target allows, those of a good time: few enough that it raises no alarm."""
_CLINICS = 300
_MOST_COUNTED = 2000


@dataclass(frozen=True, slots=True)
class AlarmDelay:
    """After how many positive cases, known or not, the alarm comes in half and in nine of ten clinics.

    None: the number is beyond the simulation.
    """

    share: float
    """Of the cases below the threshold that is followed up."""
    sensitivity: float
    """True one."""
    median: int | None
    """If it has been so from the beginning."""
    late: int | None
    median_after_good: int | None
    """If it has fallen after ``GOOD_CASES`` counted cases at ``good_sensitivity``."""
    late_after_good: int | None


def good_sensitivity(target: float) -> float:
    """That of a good time before a fall: for a target of 0.95 it is 0.98."""
    return 1 - _GOOD_MISSES * (1 - target)


def alarm_delay(target: float, confidence: float, share: float, sensitivity: float) -> AlarmDelay:
    """Simulate clinics that look after every positive case.

    Args:
        target: sensitivity that is tested.
        confidence: one minus the probability that an alarm is ever false.
        share: of the cases below the threshold that is followed up, in (0, 1].
        sensitivity: the true one, below the target.

    Raises:
        CalibrationError: a number out of range.
    """
    if not 0 < share <= 1:
        raise CalibrationError(f"follow-up {share:g}: expected a share above 0, 1 at most.")
    if not 0 < sensitivity < target:
        raise CalibrationError(
            f"true sensitivity {sensitivity:g}: expected a number between 0 and the target, {target:g}."
        )
    # A positive case is counted if it is referred, or missed and drawn.
    counted_per_positive = sensitivity + (1 - sensitivity) * share
    delays = [
        _counted_until_alarm(target, confidence, share, sensitivity, good) / counted_per_positive
        for good in (0, GOOD_CASES)
    ]
    numbers = [_quantile(delay, part) for delay in delays for part in (0.5, 0.9)]
    return AlarmDelay(share, sensitivity, *numbers)


def _counted_until_alarm(
    target: float, confidence: float, share: float, sensitivity: float, good: int
) -> NDArray[np.float64]:
    """Counted cases from the fall to the alarm, of the clinics without one before the fall; inf: none yet."""
    rng = np.random.default_rng(0)
    evidence, enough = EvidenceBelow(target, _CLINICS), -math.log1p(-confidence)
    shares = np.full(_CLINICS, share)
    alarmed_at = np.full(_CLINICS, math.inf)
    for case in range(good + _MOST_COUNTED):
        truth = good_sensitivity(target) if case < good else sensitivity
        missed = rng.random(_CLINICS) < _miss_probability(truth, share)
        is_enough = evidence.add(missed, shares) >= enough
        alarmed_at = np.where(is_enough & np.isinf(alarmed_at), case + 1, alarmed_at)
        if not np.isinf(alarmed_at).any():
            break
    return alarmed_at[alarmed_at > good] - good


def _miss_probability(sensitivity: float, share: float) -> float:
    """Of a counted positive case."""
    missed = (1 - sensitivity) * share
    return missed / (sensitivity + missed)


def _quantile(delays: NDArray[np.float64], part: float) -> int | None:
    value = float(np.quantile(delays, part, method="higher"))
    return math.ceil(value) if math.isfinite(value) else None
