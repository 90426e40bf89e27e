"""Photographs gathered into cases, and cases into units. Imports bundle, predictions and numpy.

A case is one lesion, judged by ``bundle.policy`` alone, so what is certified is what the server does. A unit
is what is drawn independently of the others: the patient where known, else the lesion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from lesion_triage.bundle import history as histories
from lesion_triage.bundle.calibration import Calibrator, calibrated_score
from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.history import History
from lesion_triage.bundle.policy import aggregate_logits
from lesion_triage.bundle.red_flags import (
    GROUP_FIELDS,
    NUMBER_FIELDS,
    RedFlags,
    any_flag_refers,
    raised_flags,
)
from lesion_triage.errors import PredictionsError
from lesion_triage.predictions import Prediction, Predictions

Aggregation = Literal["max", "mean"]


@dataclass(frozen=True, slots=True)
class Case:
    """The photographs of one lesion."""

    case_id: str
    rows: tuple[Prediction, ...]

    @property
    def unit_id(self) -> str:
        """The patient where known, else the lesion."""
        return self.rows[0].unit_id

    @property
    def logits(self) -> tuple[float | None, ...]:
        """One per photograph, None where it is ungradable: the input of ``bundle.policy.decide``."""
        return tuple(row.logit for row in self.rows)

    @property
    def history(self) -> History:
        """The history of person and lesion in the photographs' rows, as a platform would send it.

        Raises:
            PredictionsError: a value that the server would refuse.
        """
        try:
            return histories.merge_histories([_history(row) for row in self.rows])
        except ValidationError as error:
            fields = ", ".join(sorted({str(problem["loc"][0]) for problem in error.errors()}))
            raise PredictionsError(
                f"a case has a history that a platform could not send ({fields}): expected at most 60 "
                "letters, digits, spaces and & / . , + ( ) -; correct it in the table."
            ) from None

    @property
    def needs_in_person(self) -> bool:
        """True if any photograph is labelled so."""
        return any(row.needs_in_person for row in self.rows)

    @property
    def gradable(self) -> bool:
        """True if at least one photograph can be scored."""
        return any(row.logit is not None for row in self.rows)

    def logit(self, aggregation: Aggregation) -> float:
        """The logit of the case from its gradable photographs, as the server computes it."""
        return aggregate_logits([row.logit for row in self.rows if row.logit is not None], aggregation)


def gather_cases(predictions: Predictions) -> tuple[Case, ...]:
    """Gather the rows of one split into cases, in order of first appearance.

    Raises:
        PredictionsError: no row, a photograph listed twice, one whose outcome is unknown, or a case that
            belongs to two units.
    """
    where = f"predictions of split '{predictions.split}'"
    if not predictions.rows:
        raise PredictionsError(f"{where}: expected at least one row, found none; predict again.")
    seen: dict[str, int] = {}
    units: dict[str, str] = {}
    # Errors name lines, because an id may identify a person.
    for line, row in enumerate(predictions.rows, start=2):
        if (first := seen.setdefault(row.image_id, line)) != line:
            raise PredictionsError(f"{where}, line {line}: has the image_id of line {first}; predict again.")
        if row.needs_in_person is None:
            raise PredictionsError(
                f"{where}, line {line}: needs_in_person is unknown, expected True or False; leave such "
                "photographs out of the splits."
            )
        if units.setdefault(row.case_id, row.unit_id) != row.unit_id:
            raise PredictionsError(
                f"{where}, line {line}: its case has another unit_id in an earlier line; predict again."
            )
    return tuple(Case(case_id, tuple(rows)) for case_id, rows in predictions.by_case().items())


def cases_sha256(cases: Sequence[Case]) -> str:
    """Identify a set of pictures by their pixels, whatever their labels: all looks at it share this hash."""
    return sha256_of(canonical_json(sorted(row.pixel_fingerprint for c in cases for row in c.rows)).encode())


def files_sha256(fingerprints: Iterable[str]) -> str:
    """Identify a set of pictures by their files: unlike the pixels, these do not change with the input size.

    Args:
        fingerprints: of the photographs' files, in any order.
    """
    return sha256_of(canonical_json(sorted(fingerprints)).encode())


def file_fingerprints(cases: Sequence[Case]) -> Iterator[str]:
    """Fingerprint of the file of every photograph."""
    return (row.file_fingerprint for case in cases for row in case.rows)


def case_scores(
    cases: Sequence[Case], calibrator: Calibrator, aggregation: Aggregation
) -> NDArray[np.float64]:
    """Score of every case, shape (cases,); +inf if no photograph is gradable, because such a case goes up.

    Raises:
        ScoringError: a logit that is not finite.
    """
    return np.array(
        [
            calibrated_score(calibrator, case.logit(aggregation)) if case.gradable else np.inf
            for case in cases
        ],
        dtype=np.float64,
    )


def differing_answers(cases: Sequence[Case]) -> dict[str, int]:
    """Questions to which photographs of one case give different answers, of which the first counts.

    Public datasets have such lesions, so they are counted and not refused. Of yes and no the yes counts.

    Returns:
        By name of a number or group of the history, how many cases there are; a name without any is left out.

    Raises:
        pydantic.ValidationError: a value that the server would refuse.
    """
    counts: Counter[str] = Counter()
    for case in cases:
        if len(case.rows) > 1:
            said = [_history(row) for row in case.rows]
            counts.update(
                name
                for name in (*GROUP_FIELDS, *NUMBER_FIELDS)
                if len({getattr(one, name) for one in said} - {None}) > 1
            )
    return dict(counts)


def differing_answers_remarks(cases: Sequence[Case]) -> list[str]:
    """A line for each of ``differing_answers``, for whoever can correct the table."""
    return [
        f"{count} of {len(cases)} lesions have two or more values of {name}; that of the first photograph "
        "counts, in the order of image ids"
        for name, count in differing_answers(cases).items()
    ]


def red_flag_mask(cases: Sequence[Case], rules: RedFlags) -> NDArray[np.bool_]:
    """True for every case that a red flag refers whatever its score, shape (cases,)."""
    return np.array(
        [any_flag_refers(raised_flags(rules.flags, case.history)) for case in cases], dtype=np.bool_
    )


def positive_mask(cases: Sequence[Case]) -> NDArray[np.bool_]:
    """True for every case that needs an in-person visit, shape (cases,)."""
    return np.array([case.needs_in_person for case in cases], dtype=np.bool_)


def unit_indices(cases: Sequence[Case]) -> NDArray[np.intp]:
    """Number of every case's unit, from 0 in order of first appearance, shape (cases,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(case.unit_id, len(numbers)) for case in cases], dtype=np.intp)


def lowest_score_by_unit(scores: NDArray[np.float64], units: NDArray[np.intp]) -> NDArray[np.float64]:
    """The lowest score among each unit's cases, shape (units,): a patient with one lesion missed is missed.

    Args:
        scores: shape (cases,).
        units: what each case belongs to, shape (cases,).
    """
    if not scores.size:
        return scores
    order = np.lexsort((scores, units))
    first = np.ones(scores.size, dtype=np.bool_)
    first[1:] = np.diff(units[order]) != 0
    return scores[order][first]


def _history(row: Prediction) -> History:
    known = History(
        sex=row.sex or None,
        age_years=row.age_approx,
        anatom_site_general=row.anatom_site_general or None,
        fitzpatrick_skin_type=row.fitzpatrick_skin_type or None,
    )
    return histories.merge_histories([known, histories.history_from_text(row.history)])
