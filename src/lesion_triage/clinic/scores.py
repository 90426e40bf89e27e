"""Reads a table of scored cases with their outcomes, as reports write it. Imports bundle, data, numpy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.history import parse_decimal
from lesion_triage.data.sources.tables import read_rows
from lesion_triage.errors import DataError

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
    cases = list(_cases(path))
    scores, positive = ([case[column] for case in cases] for column in (0, 1))
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
    lowest: dict[str | int, float] = {}
    negative: list[float] = []
    for number, (score, needs_in_person, patient) in enumerate(_cases(path)):
        if needs_in_person:
            unit = patient or number
            lowest[unit] = min(score, lowest.get(unit, math.inf))
        else:
            negative.append(score)
    return np.array(list(lowest.values()), dtype=np.float64), np.array(negative, dtype=np.float64)


def _cases(path: Path) -> Iterator[tuple[float, bool, str]]:
    """Score, outcome and patient of each row; the patient is empty where none is named."""
    columns = ("score", "needs_in_person")
    for line, row in read_rows(path, columns, ("patient_id",), hint="commas separate columns"):
        score, outcome = (row[name] for name in columns)
        try:
            number = math.inf if score in ("", "inf") else parse_decimal(score)
            needs_in_person = _OUTCOMES[outcome.lower()]
        except (ValueError, KeyError):
            raise DataError(
                f"{path}, line {line}: expected a number or nothing in score and True or False in "
                "needs_in_person; leave out cases whose outcome is unknown."
            ) from None
        if not (0 <= number <= 1 or number == math.inf):
            raise DataError(f"{path}, line {line}: the score is not in [0, 1].")
        yield number, needs_in_person, row["patient_id"]
