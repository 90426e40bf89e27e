"""Logistic regression by damped Newton steps: many on one variable at once, or one on a few.

Imports numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ITERATIONS = 100
_HALVINGS = 40
_CONVERGED = 1e-8  # of a standard deviation of the variable; Newton's last step squares it
_ROUNDING = 1e-12  # of the loss, per case
_CONSTANT = 1e-12
_DEPENDENT = 1e-10  # smallest part of a column that the columns before it may leave unexplained


def univariate_logistic_regressions(
    x: NDArray[np.float64],
    targets: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weighted logistic regressions of one target on one variable, all at once, by damped Newton steps.

    Args:
        x: shape (n,), finite.
        targets: in [0, 1], shape (n,).
        weights: one regression per row, shape (fits, n), at least 0.

    Returns:
        Slope and intercept, shape (fits, 2); NaN if the maximum does not exist (separated classes, one class
        only, ``x`` constant).
    """
    # Centring and scaling make the two unknowns comparable and the Hessian well conditioned.
    scale = float(np.max(np.abs(x), initial=0.0)) or 1.0
    centre, spread = float((x / scale).mean()), float((x / scale).std())
    if spread < _CONSTANT:
        return np.full((weights.shape[0], 2), np.nan)
    z = (x / scale - centre) / spread
    design = np.stack([z, np.ones_like(z)])
    beta = np.zeros((weights.shape[0], 2))
    mean, loss = _mean_and_loss(beta, design, targets, weights)
    rounding = _ROUNDING * weights.sum(axis=1)
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


def logistic_regression(
    columns: NDArray[np.float64], targets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """One logistic regression on a few columns, by damped Newton steps on an orthonormal basis of them.

    Args:
        columns: shape (d, n), finite; an intercept is a column of ones.
        targets: in (0, 1), so that the maximum exists, shape (n,).

    Returns:
        Coefficients, shape (d,), and the negative log likelihood in nats; NaN and inf if the columns are
        linearly dependent or the steps do not converge.
    """
    unknowns, cases = columns.shape
    nothing = np.full(unknowns, np.nan), np.inf
    scale = np.abs(columns).max(axis=1)
    if cases < unknowns or not scale.all():
        return nothing
    basis, mixing = np.linalg.qr((columns / scale[:, None]).T)
    if np.abs(np.diag(mixing)).min() < _DEPENDENT * np.abs(mixing).max():
        return nothing
    design, once = basis.T * np.sqrt(cases), np.ones((1, cases))
    beta = np.zeros((1, unknowns))
    mean, loss = _mean_and_loss(beta, design, targets, once)
    for _ in range(_ITERATIONS):
        hessian = (design * mean * (1.0 - mean)) @ design.T
        step = np.linalg.solve(hessian, design @ (targets - mean[0]))
        if np.abs(step).max() < _CONVERGED:
            return np.linalg.solve(mixing, (beta[0] + step) * np.sqrt(cases)) / scale, float(loss[0])
        for _ in range(_HALVINGS):
            trial_mean, trial_loss = _mean_and_loss(beta + step, design, targets, once)
            if trial_loss[0] <= loss[0] + _ROUNDING * cases:
                break
            step /= 2
        beta, mean, loss = beta + step, trial_mean, trial_loss
    return nothing


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
