"""From a logit to a probability: Platt's calibrator, by maximum likelihood.

Imports numpy, ``bundle.schema`` and the exception tree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.calibration import PlattCalibrator
from lesion_triage.errors import CalibrationError

_ITERATIONS = 100
_HALVINGS = 40
_CONVERGED = 1e-8  # of a standard deviation of the logits; Newton's last step squares it
_CONSTANT = 1e-12


def fit_platt(logits: NDArray[np.float64], needs_in_person: NDArray[np.bool_]) -> PlattCalibrator:
    """Maximum likelihood of ``sigmoid(slope * logit + intercept)`` with Platt's smoothed targets.

    The targets are (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0 (Platt 1999), so the fit exists
    even where the classes are separated.

    Args:
        logits: one per case, shape (n,), finite.
        needs_in_person: the reference standard, shape (n,).

    Raises:
        CalibrationError: a logit that is not finite, one class only, logits all equal, or a slope that is not
            positive: the logits rank the cases backwards.
    """
    x = np.asarray(logits, dtype=np.float64)
    positive = np.asarray(needs_in_person, dtype=np.bool_)
    if x.shape != positive.shape or x.ndim != 1:
        raise CalibrationError(f"expected as many logits as outcomes, found {x.shape} and {positive.shape}.")
    if not np.isfinite(x).all():
        raise CalibrationError(
            f"{int((~np.isfinite(x)).sum())} of {x.size} logits are not finite; train again."
        )
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0:
        raise CalibrationError(
            f"a calibrator takes cases of both classes, found {positives} that need an in-person visit and "
            f"{negatives} that do not; enlarge split 'validation'."
        )
    targets = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    line = logistic_lines(x, targets, np.ones((1, x.size)))[0]
    slope, intercept = float(line[0]), float(line[1])
    if not (np.isfinite(line).all() and slope > 0):
        raise CalibrationError(
            f"the calibrator's slope is {slope:.4g} on {x.size} validation cases, expected more than 0: the "
            "logits do not rank positive cases above the others; look at the training before certifying it."
        )
    return PlattCalibrator(slope=slope, intercept=intercept)


def logistic_lines(
    x: NDArray[np.float64],
    targets: NDArray[np.float64],
    weights: NDArray[np.float64],
    start: tuple[float, float] | None = None,
) -> NDArray[np.float64]:
    """Weighted logistic regressions of one target on one variable, all at once, by damped Newton steps.

    Args:
        x: shape (n,), finite.
        targets: in [0, 1], shape (n,).
        weights: one regression per row, shape (fits, n), at least 0.
        start: a slope and an intercept nearby, such as those of the whole sample for its bootstrap draws.

    Returns:
        Slope and intercept, shape (fits, 2); NaN where the maximum does not exist (separated classes, one
        class only, ``x`` constant).
    """
    # Centred and scaled, the two unknowns are of one size and the Hessian is well conditioned.
    scale = float(np.max(np.abs(x), initial=0.0)) or 1.0
    centre, spread = float((x / scale).mean()), float((x / scale).std())
    if spread < _CONSTANT:
        return np.full((weights.shape[0], 2), np.nan)
    z = (x / scale - centre) / spread
    design = np.stack([z, np.ones_like(z)])
    slope, intercept = start or (0.0, 0.0)
    beta = np.tile([slope * scale * spread, intercept + slope * scale * centre], (weights.shape[0], 1))
    mean, loss = _mean_and_loss(beta, design, targets, weights)
    rounding = 1e-12 * weights.sum(axis=1)
    settled = np.zeros(weights.shape[0], dtype=np.bool_)
    for _ in range(_ITERATIONS):
        step = _newton_step(mean, design, targets, weights)
        settled = np.abs(step).max(axis=1) < _CONVERGED
        step[settled | ~np.isfinite(step).all(axis=1)] = 0.0
        if not step.any():
            break
        for _ in range(_HALVINGS):
            trial_mean, trial_loss = _mean_and_loss(beta + step, design, targets, weights)
            worse = trial_loss > loss + rounding
            if not worse.any():
                break
            step[worse] /= 2
        beta, mean, loss = beta + step, trial_mean, trial_loss
    beta[~settled] = np.nan
    return np.stack([beta[:, 0] / spread / scale, beta[:, 1] - beta[:, 0] / spread * centre], axis=1)


def _mean_and_loss(
    beta: NDArray[np.float64],
    design: NDArray[np.float64],
    targets: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fitted probabilities, shape (fits, n), and the negative log likelihood, shape (fits,)."""
    eta = np.clip(beta @ design, -500.0, 500.0)
    mean = 1.0 / (1.0 + np.exp(-eta))
    loss = np.einsum("fn,fn,n->f", weights, eta, 1.0 - targets) - np.einsum("fn,fn->f", weights, np.log(mean))
    return mean, loss


def _newton_step(
    mean: NDArray[np.float64],
    design: NDArray[np.float64],
    targets: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Solution of the 2 x 2 system of every fit, shape (fits, 2); not finite where it is singular."""
    gradient = (weights * (targets - mean)) @ design.T
    curvature = weights * mean * (1.0 - mean)
    a, b, c = curvature @ design[0] ** 2, curvature @ design[0], curvature.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        determinant = a * c - b * b
        first = (c * gradient[:, 0] - b * gradient[:, 1]) / determinant
        second = (a * gradient[:, 1] - b * gradient[:, 0]) / determinant
    return np.stack([first, second], axis=1)
