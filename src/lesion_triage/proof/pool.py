"""Held-out cases as a finite population: writes and reads the table of their logits.

Imports numpy, bundle, predictions and ``calibrate.cases``, which gathers and scores cases as everywhere else.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lesion_triage import predictions
from lesion_triage.bundle.calibration import PlattCalibrator, calibrated_score
from lesion_triage.bundle.document import first_problem, sha256_of
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.schema import Policy
from lesion_triage.calibrate.cases import Aggregation, Case, case_scores, gather_cases, positive_mask
from lesion_triage.errors import PredictionsError
from lesion_triage.predictions import Prediction, Predictions
from lesion_triage.proof.exact_distributions import Floats

SPLITS = ("calibration", "test")
"""Splits held out from training, from the choice of the model and from its calibrator."""

COLUMNS = (
    "split",
    "case",
    "unit",
    "logit",
    "needs_in_person",
    "diagnosis",
    "source",
    "sex",
    "age_approx",
)
_TRUTH = {"True": True, "False": False}
_AGGREGATION: Aggregation = "max"
# Any strictly increasing calibrator will do: order statistics and shares do not change.
_SIGMOID = PlattCalibrator(slope=1.0, intercept=0.0)


@dataclass(frozen=True, eq=False)
class Pool:
    """A finite population whose every true rate is known."""

    cases: tuple[Case, ...]
    """The positive ones."""
    scores: Floats
    """Of each positive case."""
    negatives: Floats
    """Scores of the other cases."""
    negative_cases: tuple[Case, ...]
    sha256: str
    """Of the table."""

    def where(self, said: Callable[[Case], bool]) -> tuple[Floats, Floats]:
        """Scores of the positive and of the other cases for which ``said`` is true."""
        chosen = (
            np.array([score for case, score in zip(cases, scores, strict=True) if said(case)])
            for cases, scores in ((self.cases, self.scores), (self.negative_cases, self.negatives))
        )
        positive, negative = chosen
        return positive, negative

    def photographs(self) -> Floats:
        """Scores of the positive cases' photographs, shape (cases, most photographs of a case).

        NaN after the last of each case; +inf where a photograph is ungradable.
        """
        table = np.full((len(self.cases), max(len(case.rows) for case in self.cases)), np.nan)
        for row, case in zip(table, self.cases, strict=True):
            row[: len(case.rows)] = [
                math.inf if logit is None else calibrated_score(_SIGMOID, logit) for logit in case.logits
            ]
        return table


def pool_of(cases: Sequence[Case], sha256: str) -> Pool:
    """The cases as a population.

    Raises:
        PredictionsError: no positive or no other case.
    """
    scores = case_scores(cases, _SIGMOID, _AGGREGATION)
    positive = positive_mask(cases)
    if positive.all() or not positive.any():
        raise PredictionsError(
            f"expected positive and other cases in the table, found {int(positive.sum())} positive of "
            f"{positive.size}; record it again."
        )
    return Pool(
        tuple(case for case in cases if case.needs_in_person),
        scores[positive],
        scores[~positive],
        tuple(case for case in cases if not case.needs_in_person),
        sha256,
    )


def record(run: Path, table: Path) -> Pool:
    """Write the table of a run's held-out logits, after its gates, if it can be read back.

    Cases and units become running numbers in order of first appearance: the table names no picture.

    Args:
        run: run folder with its policy and the predictions of the splits calibration and test.
        table: CSV to write.

    Raises:
        PredictionsError: policy or predictions missing, altered, of different models, with an unknown
            outcome, or without positive or without other cases; nothing was written.
    """
    limit = _policy(run).novelty_limit
    parts = [predictions.read(run / "predictions", split)[0].behind_gate(limit) for split in SPLITS]
    if len({(part.manifest_sha256, part.splits_sha256, part.model_sha256) for part in parts}) > 1:
        raise PredictionsError(
            f"{run}: expected the predictions of one model on one manifest and one split, found those of "
            "two; predict and evaluate again."
        )
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(parts))
    data = buffer.getvalue().encode()
    pool = _parsed(data, table)  # before it replaces a table that can be read
    table.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(table, data)
    return pool


def read(table: Path) -> Pool:
    """Read a recorded table.

    Raises:
        PredictionsError: it is missing, damaged, or has no positive or no other case.
    """
    try:
        data = table.read_bytes()
    except OSError as error:
        raise PredictionsError(
            f"{table}: no recorded table of logits ({error.strerror}); make one with --record RUN."
        ) from None
    return _parsed(data, table)


def _parsed(data: bytes, table: Path) -> Pool:
    try:
        rows = tuple(_rows(data.decode(), table))
    except UnicodeDecodeError:
        raise PredictionsError(f"{table}: expected text in UTF-8; record it again.") from None
    gathered = Predictions("held out", manifest_sha256="", splits_sha256="", model_sha256="", rows=rows)
    return pool_of(gather_cases(gathered), sha256_of(data))


def _policy(run: Path) -> Policy:
    path = run / "policy.json"
    try:
        return Policy.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PredictionsError(f"{path}: no policy ({error.strerror}); calibrate first.") from None
    except ValidationError as error:
        raise PredictionsError(
            f"{path}: no policy of this version ({first_problem(error)}); calibrate again."
        ) from None


def _cells(parts: Sequence[Predictions]) -> Iterator[tuple[object, ...]]:
    cases: dict[str, int] = {}
    units: dict[str, int] = {}
    for part in parts:
        for case in gather_cases(part):
            if case.case_id in cases:
                raise PredictionsError("a case is in two splits; split again, nothing was recorded.")
            number = cases.setdefault(case.case_id, len(cases) + 1)
            unit = units.setdefault(case.unit_id, len(units) + 1)
            for row in case.rows:
                logit = "" if row.logit is None else row.logit
                age = "" if row.age_approx is None else row.age_approx
                yield (
                    part.split,
                    number,
                    unit,
                    logit,
                    row.needs_in_person,
                    row.diagnosis,
                    row.source,
                    row.sex,
                    age,
                )


def _rows(text: str, table: Path) -> Iterator[Prediction]:
    lines = csv.reader(io.StringIO(text), strict=True)
    try:
        head, *rows = lines
    except (csv.Error, ValueError) as error:
        raise PredictionsError(f"{table}: damaged after line {lines.line_num} ({error}).") from None
    if tuple(head) != COLUMNS:
        raise PredictionsError(f"{table}: expected the columns {', '.join(COLUMNS)}; record it again.")
    for number, row in enumerate(rows, start=1):
        where, wanted = f"{table}, line {number + 1}", len(COLUMNS)
        if len(row) != wanted:
            raise PredictionsError(f"{where}: expected {wanted} cells, found {len(row)}; record it again.")
        try:
            yield _prediction(number, dict(zip(COLUMNS, row, strict=True)))
        except (KeyError, TypeError, ValueError) as error:
            raise PredictionsError(f"{where}: unreadable cell {error}.") from None


def _prediction(number: int, cells: Mapping[str, str]) -> Prediction:
    logit = float(cells["logit"]) if cells["logit"] else None
    if logit is not None and not math.isfinite(logit):
        raise ValueError(f"'{cells['logit']}', expected a finite logit")
    return Prediction(
        image_id=str(number),
        case_id=cells["case"],
        unit_id=cells["unit"],
        file_fingerprint="",
        pixel_fingerprint="",
        logit=logit,
        quality_codes="" if logit is not None else "not_recorded",
        novelty=None,
        needs_in_person=_TRUTH[cells["needs_in_person"]],
        diagnosis=cells["diagnosis"],
        diagnosis_confirm_type="",
        source=cells["source"],
        sex=cells["sex"],
        age_approx=float(cells["age_approx"]) if cells["age_approx"] else None,
        anatom_site_general="",
        fitzpatrick_skin_type="",
    )
