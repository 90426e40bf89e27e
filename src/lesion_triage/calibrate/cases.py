"""Photographs gathered into cases, the unit of every statistic. Imports bundle, predictions and numpy.

A case is judged by ``bundle.policy`` alone, so what is certified is what the server does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.calibration import PlattCalibrator, score_of
from lesion_triage.bundle.policy import case_logit
from lesion_triage.errors import PredictionsError
from lesion_triage.predictions import Prediction, Predictions

Aggregation = Literal["max", "mean"]


@dataclass(frozen=True, slots=True)
class Case:
    """The photographs of one lesion, or of one patient where patients are known."""

    case_id: str
    rows: tuple[Prediction, ...]

    @property
    def logits(self) -> tuple[float | None, ...]:
        """One per photograph, None where it is ungradable: the input of ``bundle.policy.decide``."""
        return tuple(row.logit for row in self.rows)

    @property
    def needs_in_person(self) -> bool:
        """True if any photograph shows something that does."""
        return any(row.needs_in_person for row in self.rows)

    @property
    def gradable(self) -> bool:
        """True if at least one photograph can be scored."""
        return any(row.logit is not None for row in self.rows)

    def logit(self, aggregation: Aggregation) -> float:
        """The logit of the case from its gradable photographs, as the server computes it."""
        return case_logit([row.logit for row in self.rows if row.logit is not None], aggregation)


def cases_of(predictions: Predictions) -> tuple[Case, ...]:
    """Gather the rows of one split into cases, in order of first appearance.

    Raises:
        PredictionsError: no row, a photograph that stands twice, or one whose outcome is unknown.
    """
    where = f"predictions of split '{predictions.split}'"
    if not predictions.rows:
        raise PredictionsError(f"{where}: expected at least one row, found none; predict again.")
    seen: set[str] = set()
    for row in predictions.rows:
        if row.image_id in seen:
            raise PredictionsError(f"{where}: image '{row.image_id}' stands twice; predict again.")
        seen.add(row.image_id)
        if row.needs_in_person is None:
            raise PredictionsError(
                f"{where}: needs_in_person of image '{row.image_id}' is unknown, expected True or False; "
                "leave such photographs out of the splits."
            )
    return tuple(Case(case_id, tuple(rows)) for case_id, rows in predictions.by_case().items())


def scores_of(
    cases: tuple[Case, ...], calibrator: PlattCalibrator, aggregation: Aggregation
) -> NDArray[np.float64]:
    """Score of every case, shape (cases,); +inf where no photograph is gradable, because that goes up.

    Raises:
        ScoringError: a logit that is not finite.
    """
    return np.array(
        [score_of(calibrator, case.logit(aggregation)) if case.gradable else np.inf for case in cases],
        dtype=np.float64,
    )


def positives_of(cases: tuple[Case, ...]) -> NDArray[np.bool_]:
    """True for every case that needs an in-person visit, shape (cases,)."""
    return np.array([case.needs_in_person for case in cases], dtype=np.bool_)
