"""Isotonic regression and inductive Venn-Abers predictors, in integers and linear time after sorting.

Imports numpy. ``calibrators`` checks the input and makes the documents.

Both are read off the cumulative sum diagram (Barlow et al. 1972). Point j has as its x the cases, and as its
y the positive cases, at the j lowest distinct logits; point 0 is (0, 0). The greatest convex minorant of the
points is the isotonic regression: cases between two of its corners are pooled, and the slope is their score.
Slopes are compared in integers and divided once at the end, so rounding never decides what is pooled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = list[int]
"""One coordinate of every point of a diagram. A list, because the loops below read single numbers."""


def isotonic_knots(
    logits: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Non-decreasing scores of highest likelihood, by pooling adjacent violators.

    Args:
        logits: one per case, shape (n,), finite.
        positive: shape (n,).

    Returns:
        Lowest and highest logit of every pool (one logit if they are equal), and the pool's score at each.
    """
    distinct, cases, positives = _cumulative_sum_diagram(logits, positive)
    following = _next_corners(cases, positives)
    corners = [0]
    while corners[-1] < distinct.size:
        corners.append(following[corners[-1]])
    scores = np.diff(np.take(positives, corners)) / np.diff(np.take(cases, corners))
    ends = np.stack([corners[:-1], np.array(corners[1:]) - 1], axis=1).ravel()
    once = np.diff(ends, prepend=-1) > 0  # the first and last logit of a pool may be the same
    return distinct[ends[once]], np.repeat(scores, 2)[once]


def venn_abers_knots(
    logits: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The inductive Venn-Abers predictor of the cases (Vovk, Petej & Fedorova 2015).

    Args:
        logits: one per case, shape (n,), finite.
        positive: shape (n,).

    Returns:
        Knots, and at each of them p0 and p1 as ``VennAbersCalibrator`` reads them: distinct logits at which
        p0 steps up, or above which p1 does.
    """
    distinct, cases, positives = _cumulative_sum_diagram(logits, positive)
    found, among = _pools_of_an_added_positive(cases, positives)
    p1 = found / among
    # Rotating the diagram by 180 degrees exchanges the classes, reverses the order and makes p1 1 - p0.
    all_cases, all_negatives = cases[-1], cases[-1] - positives[-1]
    turned_cases = [all_cases - count for count in reversed(cases)]
    turned_negatives = [
        all_negatives - (count - hits)
        for count, hits in zip(reversed(cases), reversed(positives), strict=True)
    ]
    found, among = _pools_of_an_added_positive(turned_cases, turned_negatives)
    p0 = ((among - found) / among)[::-1]
    steps = (np.diff(p0, prepend=0.0) > 0) | (np.diff(p1, append=1.0) > 0)
    return distinct[steps], p0[steps], p1[steps]


def _cumulative_sum_diagram(
    logits: NDArray[np.float64], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], Points, Points]:
    """Distinct logits, shape (k,), and both coordinates of the k + 1 points of the diagram."""
    distinct, place, counts = np.unique(logits, return_inverse=True, return_counts=True)
    hits = np.bincount(place[positive], minlength=distinct.size)
    return distinct, [0, *np.cumsum(counts).tolist()], [0, *np.cumsum(hits).tolist()]


def _next_corners(across: Points, up: Points) -> list[int]:
    """For each point but the last, the next corner of the convex minorant of that point and all after it."""
    last = len(across) - 1
    following = [last] * last
    for point in range(last - 1, -1, -1):
        corner = point + 1
        while corner < last:
            beyond = following[corner]
            rise, run = up[corner] - up[point], across[corner] - across[point]
            if rise * (across[beyond] - across[corner]) < (up[beyond] - up[corner]) * run:
                break
            corner = beyond
        following[point] = corner
    return following


def _pools_of_an_added_positive(across: Points, up: Points) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add a positive case at each distinct logit in turn: the positives and the cases of its pool.

    Adding one at logit i moves the points before i by (-1, -1) relative to those from i on. Its pool is the
    segment of the new minorant from the moved points (``left``) to the others (``right``). From one logit to
    the next the segment never gets flatter, so both ends only move to the right: ``left`` to the point moved
    last, if that lies below the segment, and ``right`` from corner to corner.
    """
    following = _next_corners(across, up)
    found, among = [], []
    left_across = left_up = -1
    right = 0
    for logit in range(1, len(across)):
        moved_across, moved_up = across[logit - 1] - 1, up[logit - 1] - 1
        rise, run = up[right] - left_up, across[right] - left_across
        if (moved_up - left_up) * run < rise * (moved_across - left_across):
            left_across, left_up = moved_across, moved_up
        right = max(right, logit)
        while right < len(following):
            rise, run = up[right] - left_up, across[right] - left_across
            beyond = following[right]
            if (up[beyond] - up[right]) * run > rise * (across[beyond] - across[right]):
                break
            right = beyond
        found.append(up[right] - left_up)
        among.append(across[right] - left_across)
    return np.array(found, dtype=np.int64), np.array(among, dtype=np.int64)
