"""The expected calibration error, and the intervals of calibration errors. Imports numpy and this package.

Why not percentiles
    A calibration error is a norm of the residuals: noise only adds to it. A draw adds the noise of the sample
    a second time, so draws lie above the value of the sample, and percentiles may leave out both this value
    and the truth. Of calibrated scores, whose error is 0, no percentile interval covers it.

Intervals
    Let r be the mean residuals by score, and e(r) the error. As e(a + b) <= e(a) + e(b), the error of the
    sample differs from that of the population by at most e(sample's r - population's r). In draws, e(draw's r
    - sample's r) has about the same law. So its 97.5 % quantile is added and subtracted. For the smooth
    error, let s = e(a) and t = e(b): smoothing |a + b| at bandwidth s + t gives at most that of |a| at s and
    that of |b| at t, since it falls with the bandwidth; the sum is s + t, so e(a + b) is not above it.
"""

from __future__ import annotations

import numpy as np

from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.cells import Cells, Counts, Floats, cases_with_score
from lesion_triage.calibrate.smooth_ece import smoothed_absolute_mean


def calibration_error(cells: Cells, counts: Counts) -> Floats:
    """Expected calibration error over bins of equal mass. Tied scores share a bin; the sample fixes the bins.

    It is biased upwards in small samples: even a perfectly calibrated model does not reach 0.

    Returns:
        Shape (draws,); NaN where a draw has no case with a score.
    """
    scored = cases_with_score(counts) > 0
    return np.where(scored, _absolute_sum_of_bins(cells, cells.mean_residuals(counts)), np.nan)


def calibration_noise(cells: Cells, counts: Counts) -> Floats:
    """The calibration error, binned and smooth, of the difference between a draw and the sample.

    Returns:
        Shape (draws, 2); NaN where a draw has no case with a score.
    """
    scored = cases_with_score(counts) > 0
    moved = cells.mean_residuals(counts) - cells.mean_residuals(cells.sample_counts())
    noise = np.column_stack([_absolute_sum_of_bins(cells, moved), smoothed_absolute_mean(cells, moved)])
    return np.where(scored[:, None], noise, np.nan)


def interval_by_noise(value: float, noise: Estimate | None) -> Estimate | None:
    """Interval of a calibration error from that of its noise; None if the noise is not defined."""
    if noise is None:
        return None
    return Estimate(value, max(value - noise.high, 0.0), min(value + noise.high, 1.0), noise.draws)


def _absolute_sum_of_bins(cells: Cells, residuals: Floats) -> Floats:
    return np.asarray(np.abs(np.add.reduceat(residuals, cells.bins, axis=1)).sum(axis=1))
