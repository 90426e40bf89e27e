"""Reads a table of scored cases with their outcomes, as reports write it. Imports numpy and the errors."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.errors import DataError

_COLUMNS = ("score", "needs_in_person")
_PATIENT = "patient_id"
_OUTCOMES = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def read_scores(path: Path) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scored cases of a site, one row per case; other columns are ignored.

    Args:
        path: CSV file, such as a report's ``case_scores.csv``. Column ``score`` is in [0, 1], or empty or
            ``inf`` if the case was not gradable. Column ``needs_in_person`` is True, 1, yes, False, 0 or no,
            in upper or lower case.

    Returns:
        Scores, +inf where empty, and the reference standard; shape (rows,) each.

    Raises:
        DataError: the table cannot be read, a column is missing or given twice, or a cell cannot be used; the
            message names the line.
    """
    names, rows = _table(path)
    for name in _COLUMNS:
        if name not in names:
            raise DataError(f"{path}: expected columns score and needs_in_person, found no {name}.")
        if list(names).count(name) > 1:
            raise DataError(f"{path}: column '{name}' occurs twice; keep one.")
    scores, positive = [], []
    for number, row in enumerate(rows, start=2):
        score, outcome = ((row[name] or "").strip() for name in _COLUMNS)
        try:
            scores.append(float(score) if score else math.inf)
            positive.append(_OUTCOMES[outcome.lower()])
        except (ValueError, KeyError):
            raise DataError(
                f"{path}, line {number}: expected a number or nothing in score and True or False in "
                f"needs_in_person, found '{score}' and '{outcome}'; leave out cases whose outcome is unknown."
            ) from None
        if not (0 <= scores[-1] <= 1 or scores[-1] == math.inf):
            raise DataError(f"{path}, line {number}: the score is {score}, expected a number in [0, 1].")
    return np.array(scores, dtype=np.float64), np.array(positive, dtype=np.bool_)


def read_units(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores as a certificate counts them: of the positive cases of one patient the lowest stands for all.

    Args:
        path: as for ``read_scores``; with a column ``patient_id``, a row with an empty cell is a patient of
            its own.

    Returns:
        Scores of the positive units, and those of the negative cases.

    Raises:
        DataError: as ``read_scores``.
    """
    scores, positive = read_scores(path)
    rows = _table(path)[1]
    lowest: dict[str | int, float] = {}
    for number in np.flatnonzero(positive).tolist():
        patient = (rows[number].get(_PATIENT) or "").strip() or number
        lowest[patient] = min(scores[number], lowest.get(patient, math.inf))
    return np.array(list(lowest.values()), dtype=np.float64), scores[~positive]


def _table(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """Header and rows."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        return reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV table ({error}).") from None
