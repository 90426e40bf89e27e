"""How well the label is told by something that is not the lesion: cross-fitted, on cells instead of rows.

Imports numpy, scikit-learn, ``calibrate.metrics`` and this room. Rows with equal properties are one cell, so
the regression costs the same for 400,000 rows as for 4,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from lesion_triage.audit.columns import Bools, Coded, Codes
from lesion_triage.calibrate.metrics import auroc_of

FOLDS = 5
_MOST_LEVELS = 50
_Z2 = 1.959963984540054**2
_FEWEST = 10  # of a class; with fewer no regression is fitted

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Auroc:
    """Value with a two-sided 95 % interval; NaN throughout where a class has fewer than ten rows."""

    value: float
    low: float
    high: float


def auroc_interval(value: float, positives: int, negatives: int) -> Auroc:
    """Interval of an AUROC from the counts alone: method 5 of Newcombe, Stat Med 2006;25:559-573.

    It solves for the AUROCs whose own standard error, after Hanley and McNeil (1982), reaches the value
    found; so it has a width also where the classes are separated.
    """
    if not np.isfinite(value) or not positives or not negatives:
        return Auroc(float("nan"), float("nan"), float("nan"))

    def beyond(theta: float) -> bool:
        mean = (positives + negatives) / 2 - 1
        spread = 1 + mean * (1 - theta) / (2 - theta) + mean * theta / (1 + theta)
        return (value - theta) ** 2 > _Z2 * theta * (1 - theta) * spread / (positives * negatives)

    def end(outer: float) -> float:
        inner = value
        for _ in range(60):
            middle = (inner + outer) / 2
            inner, outer = (inner, middle) if beyond(middle) else (middle, outer)
        return (inner + outer) / 2

    return Auroc(value, end(0.0), end(1.0))


def cross_fitted(columns: Sequence[Coded], positive: Bools, units: Codes, seed: int) -> Floats | None:
    """Chance of the positive class for every row, from a regression on the rows of other units.

    Logistic, additive in the levels of the columns, with scikit-learn's default ridge.

    Args:
        columns: each of n rows; a column with more than fifty levels keeps the commonest.
        positive: the label, shape (n,).
        units: shape (n,); rows of one unit are in one fold.
        seed: of the folds.

    Returns:
        Shape (n,), or None where a class has fewer than ten rows.
    """
    if min(int(positive.sum()), int((~positive).sum())) < _FEWEST:
        return None
    few = [column.merged(_MOST_LEVELS) for column in columns]
    cells, cell_of_row = _cells(few)
    known, unit = np.unique(units, return_inverse=True)
    fold = (np.random.default_rng(seed).permutation(known.size) % FOLDS)[unit]
    design = np.concatenate(
        [np.eye(len(column.levels))[codes] for column, codes in zip(few, cells.T, strict=True)], axis=1
    )
    shape = (FOLDS, 2, len(cells))
    key = (fold * 2 + positive) * len(cells) + cell_of_row
    counts = np.bincount(key, minlength=int(np.prod(shape))).reshape(shape).astype(np.float64)
    scores = np.empty(positive.size)
    for number in range(FOLDS):
        here = fold == number
        scores[here] = _fit(design, counts.sum(axis=0) - counts[number])[cell_of_row[here]]
    return scores


def measure(
    columns: Sequence[Coded], positive: Bools, units: Codes, seed: int
) -> tuple[Auroc, Floats | None]:
    """Cross-fitted AUROC of some columns with its interval, and the scores behind it."""
    scores = cross_fitted(columns, positive, units, seed)
    if scores is None:
        return auroc_interval(float("nan"), 0, 0), None
    value = auroc_of(scores, positive)
    return auroc_interval(value, int(positive.sum()), int((~positive).sum())), scores


def binned(values: Floats, bins: int = 10) -> Coded:
    """A numeric column by its quantiles; unknown is a level of its own."""
    known = values[np.isfinite(values)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if known.size else np.zeros(0)
    codes = np.where(np.isfinite(values), np.searchsorted(edges, values, side="right") + 1, 0)
    return Coded(codes.astype(np.intp), ("", *(f"bin {number}" for number in range(edges.size + 1))))


def _cells(columns: Sequence[Coded]) -> tuple[NDArray[np.intp], Codes]:
    """Distinct rows of the codes, shape (cells, columns), and the cell of each row."""
    key = np.zeros(columns[0].codes.size, dtype=np.int64)
    for column in columns:  # renumbered after each column, so the key cannot overflow
        key = np.unique(key * len(column.levels) + column.codes, return_inverse=True)[1]
    first = np.unique(key, return_index=True)[1]
    return np.stack([column.codes[first] for column in columns], axis=1), key


def _fit(design: Floats, counts: Floats) -> Floats:
    """Chance of the positive class in every cell; ``counts`` has shape (2, cells)."""
    negatives, positives = counts
    if not positives.sum() or not negatives.sum():
        return np.full(len(design), 0.5)
    model = LogisticRegression(max_iter=1000)
    twice = np.concatenate([design, design])
    labels = np.repeat([0, 1], len(design))
    weights = np.concatenate([negatives, positives])
    model.fit(twice[weights > 0], labels[weights > 0], weights[weights > 0])
    chances: Floats = model.predict_proba(design)[:, 1]
    return chances
