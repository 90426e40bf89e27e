"""What a threshold is worth: predictive values by prevalence and net benefit. Imports numpy, this package."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.bootstrap import Estimate, bootstrap
from lesion_triage.calibrate.cells import Cells, Counts, Floats, Sample
from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.errors import CalibrationError

BONFERRONI_PAIR_CONFIDENCE = 0.975
"""Confidence of each of two intervals that must hold jointly with 95 % (Bonferroni)."""


@dataclass(frozen=True, slots=True)
class PredictiveValues:
    """PPV and NPV at a given prevalence."""

    prevalence: float
    ppv: Estimate | None
    npv: Estimate | None


@dataclass(frozen=True, slots=True)
class NetBenefit:
    """Net benefit per case: true referrals less false ones, weighted by the odds of the probability."""

    threshold_probability: float
    model: Estimate | None
    refer_all: Estimate | None
    refer_none: float = 0.0


def predictive_values_by_bayes(
    sensitivity: Floats | float, specificity: Floats | float, prevalence: Floats | float
) -> tuple[Floats, Floats]:
    """PPV and NPV by Bayes' rule, for arguments in [0, 1] that broadcast together.

    They are valid only if the new cases differ from those measured in prevalence alone.

    Returns:
        NaN where nobody is referred (PPV) or everybody is (NPV).
    """
    found, spared, share = np.broadcast_arrays(
        np.asarray(sensitivity, dtype=np.float64), np.asarray(specificity), np.asarray(prevalence)
    )
    with np.errstate(invalid="ignore"):
        ppv = found * share / (found * share + (1 - spared) * (1 - share))
        npv = spared * (1 - share) / (spared * (1 - share) + (1 - found) * share)
    return ppv, npv


def predictive_values(
    sensitivity: Proportion, specificity: Proportion, prevalences: tuple[float, ...]
) -> tuple[PredictiveValues, ...]:
    """PPV and NPV at each prevalence, with a band that covers all prevalences at once.

    Both grow with sensitivity and with specificity, so their bounds are reached at the corners of the two
    intervals. With each interval at ``BONFERRONI_PAIR_CONFIDENCE`` the band as a whole covers with at least
    95 %, however the two depend on each other.

    Args:
        sensitivity: of the positive cases, with an interval at ``BONFERRONI_PAIR_CONFIDENCE``.
        specificity: of the negative cases, likewise.
        prevalences: in (0, 1).

    Raises:
        CalibrationError: a prevalence that is not in (0, 1).
    """
    shares = _open_unit_interval("prevalence", prevalences)
    value, low, high = (
        predictive_values_by_bayes(getattr(sensitivity, end), getattr(specificity, end), shares)
        for end in ("value", "low", "high")
    )

    def estimate(which: int, row: int) -> Estimate | None:
        ends = [float(part[which][row]) for part in (value, low, high)]
        return Estimate(ends[0], ends[1], ends[2], draws=0) if np.isfinite(ends).all() else None

    return tuple(
        PredictiveValues(share, estimate(0, row), estimate(1, row)) for row, share in enumerate(prevalences)
    )


def net_benefit(
    sample: Sample,
    probabilities: tuple[float, ...],
    draws: int,
    seed: int,
    units: NDArray[np.intp] | None = None,
) -> tuple[NetBenefit, ...]:
    """Net benefit of referring at ``score >= p``, of referring everybody and of referring nobody.

    ``TP / n - FP / n * p / (1 - p)`` (Vickers & Elkin 2006, Med Decis Making 26:565). Abstentions are
    referred at every p.

    Args:
        sample: the cases; the sample's own threshold is not used.
        probabilities: threshold probabilities p, in (0, 1): at p, one positive case found is worth
            1 / p - 1 needless visits.
        draws: number of bootstrap draws.
        seed: of the bootstrap.
        units: the resampling unit of each case, as for ``metrics.summarise``.

    Raises:
        CalibrationError: a probability that is not in (0, 1).
    """
    at = _open_unit_interval("threshold probability", probabilities)
    odds = at / (1 - at)

    def measure(cells: Cells, counts: Counts) -> Floats:
        below = np.searchsorted(cells.lowest_score, at)  # how many cells are not referred at each p
        up_to = np.concatenate([np.zeros((*counts.shape[:2], 1)), np.cumsum(counts, axis=2)], axis=2)
        everybody = up_to[:, :, -1:]
        return np.concatenate(
            [
                (sent[:, 1] - sent[:, 0] * odds) / everybody.sum(axis=1)
                for sent in (everybody - up_to[:, :, below], np.repeat(everybody, at.size, axis=2))
            ],
            axis=1,
        )

    estimates = bootstrap(sample, measure, draws, seed, units, boundaries=probabilities)
    return tuple(map(NetBenefit, probabilities, estimates[: at.size], estimates[at.size :]))


def _open_unit_interval(name: str, values: tuple[float, ...]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not ((array > 0) & (array < 1)).all():
        raise CalibrationError(f"expected each {name} between 0 and 1, found {values}; leave the ends out.")
    return array
