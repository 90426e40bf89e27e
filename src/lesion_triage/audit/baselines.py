"""How well the label is predicted by something other than the lesion: cross-fitted, on cells instead of rows.

Imports numpy, ``calibrate.metrics`` and data. Rows with equal properties form one cell, so the regression
costs the same for 400,000 rows as for 4,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.calibrate.metrics import auroc_from_scores
from lesion_triage.data.categorical import Bools, Categorical, Codes
from lesion_triage.data.cell_regression import fit_probabilities, one_hot_design, unique_cells

FOLDS = 5
_MAX_LEVELS = 50
_Z_SQUARED = 1.959963984540054**2
MIN_PER_CLASS = 10
"""Rows of a class; with fewer no regression is fitted, and a check that finds nothing has shown nothing."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Auroc:
    """Value with a two-sided 95 % interval; NaN throughout if a class has fewer than ten rows."""

    value: float
    low: float
    high: float


def auroc_interval(value: float, positives: int, negatives: int) -> Auroc:
    """Interval of an AUROC from the counts alone: method 5 of Newcombe, Stat Med 2006;25:559-573.

    It solves for the AUROCs whose own standard error, after Hanley and McNeil (1982), reaches the value
    found, so it has a width even if the classes are perfectly separated.
    """
    if not np.isfinite(value) or not positives or not negatives:
        return Auroc(float("nan"), float("nan"), float("nan"))

    def is_outside(theta: float) -> bool:
        mean = (positives + negatives) / 2 - 1
        spread = 1 + mean * (1 - theta) / (2 - theta) + mean * theta / (1 + theta)
        return (value - theta) ** 2 > _Z_SQUARED * theta * (1 - theta) * spread / (positives * negatives)

    def bound(outer: float) -> float:
        inner = value
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if is_outside(middle) else (middle, outer)
        return (inner + outer) / 2

    return Auroc(value, bound(0.0), bound(1.0))


def unit_folds(units: Codes, seed: int) -> Codes:
    """One of ``FOLDS`` folds for every row, shape (n,) to (n,); rows of one unit are in the same fold."""
    known, unit = np.unique(units, return_inverse=True)
    return np.asarray((np.random.default_rng(seed).permutation(known.size) % FOLDS)[unit], dtype=np.intp)


def cross_fitted_scores(columns: Sequence[Categorical], positive: Bools, fold: Codes) -> Floats | None:
    """Probability of the positive class for every row, from a regression fitted on the other folds.

    Logistic, additive in the levels of the columns, with scikit-learn's default ridge penalty.

    Args:
        columns: each of n rows; a column with more than fifty levels keeps the most common ones.
        positive: the label, shape (n,).
        fold: of each row, from 0, shape (n,).

    Returns:
        Shape (n,), or None if a class has fewer than ten rows.
    """
    if min(int(positive.sum()), int((~positive).sum())) < MIN_PER_CLASS:
        return None
    few = [column.merge_rare(_MAX_LEVELS) for column in columns]
    cells, cell_of_row = unique_cells(few)
    design = one_hot_design(few, cells)
    shape = (int(fold.max()) + 1, 2, len(cells))
    key = (fold * 2 + positive) * len(cells) + cell_of_row
    counts = np.bincount(key, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
    scores = np.empty(positive.size)
    for number in np.unique(fold):
        here = fold == number
        scores[here] = fit_probabilities(design, counts.sum(axis=0) - counts[number])[cell_of_row[here]]
    return scores


def within_fold_auroc(scores: Floats, positive: Bools, fold: Codes) -> float:
    """AUROC over the pairs of a positive and a negative row of the same fold; NaN if there is none.

    Scores of different folds come from different regressions and do not compare: the fewer positives a fold
    has, the more the regression for it has seen, and the higher its scores are. Over all pairs, what
    says nothing about the label would rank far below one half (Forman and Scholz 2010, SIGKDD Explor 12:49).

    Args:
        scores: of ``cross_fitted_scores``, shape (n,).
        positive: the label, shape (n,).
        fold: of each row, shape (n,).
    """
    ranked, pairs = 0.0, 0
    for number in np.unique(fold):
        here = fold == number
        count = int(positive[here].sum()) * int((~positive[here]).sum())
        if count:
            ranked += count * auroc_from_scores(scores[here], positive[here])
            pairs += count
    return ranked / pairs if pairs else float("nan")


def cross_fitted_auroc(
    columns: Sequence[Categorical], positive: Bools, fold: Codes
) -> tuple[Auroc, Floats | None]:
    """Cross-fitted AUROC of some columns with its interval, and the scores it is computed from."""
    scores = cross_fitted_scores(columns, positive, fold)
    if scores is None:
        return auroc_interval(float("nan"), 0, 0), None
    value = within_fold_auroc(scores, positive, fold)
    return auroc_interval(value, int(positive.sum()), int((~positive).sum())), scores
