"""Calibrators as plain numbers, and the one function that evaluates them.

Imports the standard library, pydantic, the document and the exception tree.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from lesion_triage.bundle.document import Document
from lesion_triage.errors import ScoringError


class PlattCalibrator(Document):
    """``score = 1 / (1 + exp(-(slope * logit + intercept)))`` (Platt 1999)."""

    kind: Literal["platt"] = "platt"
    slope: Annotated[FiniteFloat, Field(gt=0)]
    intercept: FiniteFloat


def score_of(calibrator: PlattCalibrator, logit: float) -> float:
    """Calibrated probability in [0, 1] that an in-person visit is needed (Platt 1999), in float64.

    Never decreases when the logit rises, to the last bit: the sigmoid is evaluated by one formula
    throughout, because the usual pair of formulas steps back by an ulp here and there.

    Raises:
        ScoringError: the logit is not finite. ``nan >= threshold`` is False and would read as "below".
    """
    if not math.isfinite(logit):
        raise ScoringError(
            f"The logit is {logit}, expected a finite number; the model or its input is broken."
        )
    margin = calibrator.slope * logit + calibrator.intercept
    if margin < -700.0:  # exp(709.8) overflows; below this the score is 0 to 300 decimal places
        return 0.0
    return 1.0 / (1.0 + math.exp(-margin))
