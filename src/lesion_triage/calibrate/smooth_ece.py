"""The smooth calibration error of Blasiok & Nakkiran. Imports numpy and ``cells``."""

from __future__ import annotations

import math

import numpy as np

from lesion_triage.calibrate.cells import Cells, Counts, Floats, cases_with_score

_SMALLEST_BANDWIDTH = 1e-3
_POINTS = 64
_POINTS_PER_BANDWIDTH = 8
_FINER = 4  # residuals are placed on a finer grid than the one that the smoothed curve is read from
_STEPS = 50
_CONVERGED = 1e-6  # of the logarithm of the bandwidth
_ROUNDING = 1e-12  # residuals that cancel, in a draw with the shares of the sample


def smooth_calibration_error(cells: Cells, counts: Counts) -> Floats:
    """Mean absolute residual after smoothing over the score, at the bandwidth that equals the result.

    ``smECE(s)`` is the integral over t in [0, 1] of ``|mean of K(t, score; s) * (outcome - score)|`` with the
    Gaussian kernel of bandwidth s reflected at 0 and 1. It falls as s grows, and the smooth calibration error
    is the one s with ``smECE(s) = s`` (Blasiok & Nakkiran 2023, arXiv:2309.12236, section 3). It needs no
    bins, and small changes of the scores change it little. Below 0.001 it is ``smECE(0.001)``.

    Returns:
        Shape (draws,); NaN where a draw has no case with a score.
    """
    scored = cases_with_score(counts) > 0
    return np.where(scored, smoothed_absolute_mean(cells, cells.mean_residuals(counts)), np.nan)


def smoothed_absolute_mean(cells: Cells, residuals: Floats) -> Floats:
    """The smooth calibration error of residuals, which may be differences of residuals; shape (draws,).

    Args:
        cells: give the scores.
        residuals: of each cell, as ``Cells.mean_residuals`` gives them.
    """
    error = np.where(np.abs(residuals).max(axis=1, initial=0) > _ROUNDING, 0.05, 0.0)
    points, rest = _POINTS, np.flatnonzero(error)
    while rest.size:
        cosines = _cosine_coefficients(residuals[rest], cells.score[:-1], points)
        bandwidth, error[rest] = _fixed_point(cosines, error[rest])
        # Few draws have a bandwidth that needs a finer grid.
        rest = rest[points * bandwidth < _POINTS_PER_BANDWIDTH]
        points *= 2
    return error


def _cosine_coefficients(residuals: Floats, scores: Floats, points: int) -> Floats:
    """Cosine coefficients 0 to ``points`` of residuals at ascending scores in [0, 1].

    Each residual is split between its two neighbours on a grid. This widens the kernel's variance by at most
    a quarter of the squared step: less than one part in 4,000.
    """
    steps = points * _FINER
    left = np.minimum((scores * steps).astype(np.intp), steps - 1)
    right_share = scores * steps - left
    starts = np.flatnonzero(np.diff(left, prepend=-1))
    grid = np.zeros((residuals.shape[0], steps + 1))
    grid[:, left[starts]] += np.add.reduceat(residuals * (1 - right_share), starts, axis=1)
    grid[:, left[starts] + 1] += np.add.reduceat(residuals * right_share, starts, axis=1)
    return np.fft.rfft(grid, 2 * steps, axis=1).real[:, : points + 1]


def _fixed_point(cosines: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Bandwidths s with ``smECE(s) = s``, and smECE there, by bracketed secants on a logarithmic scale."""
    low, high = np.full(start.size, math.log(_SMALLEST_BANDWIDTH)), np.zeros(start.size)
    log_bandwidth = np.clip(np.log(np.maximum(start, _SMALLEST_BANDWIDTH)), low, high)
    last_log_bandwidth, last_excess = log_bandwidth, np.zeros(start.size)
    for _ in range(_STEPS):
        error = _smoothed_absolute_residual(cosines, np.exp(log_bandwidth))
        excess = np.log(np.maximum(error, 1e-300)) - log_bandwidth
        low, high = np.where(excess >= 0, log_bandwidth, low), np.where(excess <= 0, log_bandwidth, high)
        moved = log_bandwidth - last_log_bandwidth
        slope = np.divide(
            excess - last_excess, moved, out=np.full_like(log_bandwidth, -1.0), where=moved != 0
        )
        # smECE falls with the bandwidth, so the excess falls at least as fast as the bandwidth grows.
        step = np.clip(log_bandwidth - excess / np.minimum(slope, -1.0), low, high) - log_bandwidth
        if np.abs(step).max() < _CONVERGED:
            break
        last_log_bandwidth, last_excess, log_bandwidth = log_bandwidth, excess, log_bandwidth + step
    return np.exp(log_bandwidth), error


def _smoothed_absolute_residual(cosines: Floats, bandwidth: Floats) -> Floats:
    """Integral of the absolute smoothed residual, by the trapezoid rule.

    The reflected kernel is the heat kernel of an insulated rod: smoothing multiplies the k-th cosine
    coefficient by ``exp(-(k pi s)^2 / 2)``.
    """
    points = cosines.shape[1] - 1
    damping = np.exp(-0.5 * np.square(np.pi * bandwidth[:, None] * np.arange(points + 1)))
    curve = np.abs(np.fft.irfft(cosines * damping, 2 * points, axis=1)[:, : points + 1]) * 2 * points
    integral: Floats = (curve.sum(axis=1) - 0.5 * (curve[:, 0] + curve[:, -1])) / points
    return integral
