"""Logistic regression on a few categorical columns. Imports numpy, scikit-learn and ``categorical``.

Rows with equal codes form one cell, so 400,000 rows cost what 4,000 do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lesion_triage.data.categorical import Categorical, Codes

Floats = NDArray[np.float64]


def unique_cells(columns: Sequence[Categorical]) -> tuple[NDArray[np.intp], Codes]:
    """Distinct rows of the codes, shape (cells, columns), and the cell of each row."""
    key = np.zeros(columns[0].codes.size, dtype=np.int64)
    for column in columns:  # renumbered after each column, so that the key cannot overflow
        key = np.unique(key * len(column.levels) + column.codes, return_inverse=True)[1]
    first = np.unique(key, return_index=True)[1]
    return np.stack([column.codes[first] for column in columns], axis=1), key


def one_hot_design(columns: Sequence[Categorical], cells: NDArray[np.intp]) -> Floats:
    """One-hot encoding: a 0/1 column for each level of each column, shape (cells, levels)."""
    return np.concatenate(
        [np.eye(len(column.levels))[codes] for column, codes in zip(columns, cells.T, strict=True)], axis=1
    )


def fit_probabilities(design: Floats, counts: Floats) -> Floats:
    """Probability of the positive class in every cell: additive in the levels, scikit-learn's default ridge.

    Args:
        design: from ``one_hot_design``.
        counts: negatives and positives of each cell, shape (2, cells); both may be 0.

    Returns:
        Shape (cells,); 0.5 throughout if a class is missing.
    """
    negatives, positives = counts
    if not positives.sum() or not negatives.sum():
        return np.full(len(design), 0.5)
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - verbs describe themselves without it

    model = LogisticRegression(max_iter=1000)
    stacked_design = np.concatenate([design, design])
    labels = np.repeat([0, 1], len(design))
    weights = np.concatenate([negatives, positives])
    model.fit(stacked_design[weights > 0], labels[weights > 0], weights[weights > 0])
    probabilities: Floats = model.predict_proba(design)[:, 1]
    return probabilities
