"""Calibration slope and intercept of scores, for many draws at once. Imports numpy and this package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.calibrators import univariate_logistic_regressions
from lesion_triage.calibrate.cells import Cells, Counts, Floats

_NEWTON_STEPS = 8
_CONVERGED = 1e-8  # of a slope and of an intercept; Newton's last step squares it


def calibration_slope_and_intercept(cells: Cells, counts: Counts) -> Floats:
    """Slope and intercept of a logistic regression of the outcome on the score's logit, shape (draws, 2).

    (1, 0) is perfect; a slope below 1 means scores that are too extreme (Cox 1958, Biometrika 45:562). NaN
    where the classes are separated or the scores constant.
    """
    whole = _nearby_lines(cells, cells.sample_counts(), np.array([[1.0, 0.0]]))
    if np.isnan(whole).any():  # then it exists in no draw either
        return np.full((len(counts), 2), np.nan)
    return _nearby_lines(cells, counts, whole)


def _nearby_lines(cells: Cells, counts: Counts, start: Floats) -> Floats:
    """Newton steps without damping; ``univariate_logistic_regressions`` for draws that do not converge.

    Both classes of a cell share its mean logit, so a step visits each cell once.
    """
    logits, outcomes = cells.logit[:-1], counts[:, :, :-1]
    lines, settled = _newton(logits, outcomes, start)
    if not settled.all():
        strays = outcomes[~settled].reshape(-1, 2 * logits.size)
        lines[~settled] = univariate_logistic_regressions(
            np.tile(logits, 2), np.repeat([0.0, 1.0], logits.size), strays
        )
    # With a single score the equations are singular, though rounding may make them look solvable.
    lines[np.count_nonzero(outcomes.any(axis=1), axis=1) < 2] = np.nan
    return lines


def _newton(logits: Floats, outcomes: Counts, start: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Lines after a few Newton steps from ``start``, and which of them have converged."""
    positives, trials = outcomes[:, 1], outcomes.sum(axis=1)
    powers = np.stack([np.square(logits), logits, np.ones_like(logits)], axis=1)
    lines = np.tile(start, (len(outcomes), 1))
    with np.errstate(all="ignore"):  # a line that diverges is not marked as converged
        for _ in range(_NEWTON_STEPS):
            mean = 1.0 / (1.0 + np.exp(-(lines[:, :1] * logits + lines[:, 1:])))
            expected = trials * mean
            u, v = ((positives - expected) @ powers[:, 1:]).T
            a, b, c = ((expected - expected * mean) @ powers).T
            step = np.stack([c * u - b * v, a * v - b * u], axis=1) / (a * c - b * b)[:, None]
            lines = lines + step
            settled = np.abs(step).max(axis=1) < _CONVERGED
            if settled.all():
                break
    return lines, settled
