"""A sealed bundle as an MLflow model. MLflow copies this file into the model and executes it: no pickle.

Imports mlflow, pandas and the bundle: a machine that serves it has nothing else.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from pydantic import ValidationError

from lesion_triage.bundle.history import NO_HISTORY, History, history_from_text
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.errors import ImageError, ScoringError

NOT_SCORED = "not_scored"
"""Used instead of a disposition, as in ``score-batch``. Such a case goes up: it has not been assessed."""

NOT_BASE64 = "image_not_base64"
FAILED = "scoring_failed"


class BundleModel(PythonModel):
    """One row is one case: its photographs and its history."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open and verify the bundle, and run its self-test.

        Raises:
            BundleError: it is altered, or this machine computes differently from the one that sealed it.
        """
        self._scorer = Scorer.open(Path(context.artifacts["bundle"]))
        self._scorer.self_test()

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Score cases.

        Args:
            context: not used.
            model_input: a DataFrame with the columns ``images`` (a list of files as bytes or base64 text,
                1 to 16) and ``history`` (a mapping or JSON of ``bundle.history``; None: nothing is known).
            params: not used.

        Returns:
            One row for each case, in order.

        Raises:
            MlflowException: a column is missing, or a history is not valid.
        """
        if missing := sorted({"images", "history"} - set(model_input.columns)):
            # MLflow silently drops a misnamed column. A red flag lost with it would lower a case.
            raise MlflowException.invalid_parameter_value(
                f"The column {' and '.join(missing)} is missing; expected 'images', a list of files for each "
                "case, and 'history', with null for a case of which nothing is known."
            )
        rows = zip(model_input["images"], model_input["history"], strict=True)
        # As objects: a band missing in one row would turn the others into floats.
        return pd.DataFrame([self._row(place, *row) for place, row in enumerate(rows, start=1)], dtype=object)

    def _row(self, place: int, images: Any, history: Any) -> dict[str, Any]:
        case_history, bundle = _history(place, history), self._scorer.bundle
        same = {
            "notice": english_catalogue().notice,
            "synthetic": bundle.header.synthetic,
            "bundle_name": bundle.header.name,
            "bundle_sha256": bundle.sha256,
            "certificate_id": bundle.certificate.certificate_id(),
        }
        try:
            decision = self._scorer.decide_case(_files(images), case_history).decision
        except ImageError as error:
            return _not_scored(error.code) | same
        except ScoringError:
            return _not_scored(FAILED) | same
        return {
            "disposition": decision.disposition.value,
            "priority_band": decision.priority_band,
            "score": decision.score,
            "threshold": decision.threshold,
            "reasons": [code.value for code in decision.reasons],
            "red_flags": [flag.code for flag in decision.red_flags],
            "error_code": None,
        } | same


def _not_scored(code: str) -> dict[str, Any]:
    return {
        "disposition": NOT_SCORED,
        "priority_band": None,
        "score": None,
        "threshold": None,
        "reasons": [],
        "red_flags": [],
        "error_code": code,
    }


def _files(images: Any) -> list[bytes]:
    """The files of a case; none if the cell is empty."""
    if _is_empty_cell(images):
        return []
    if isinstance(images, str | bytes | Mapping) or not isinstance(images, Iterable):
        raise ImageError(NOT_BASE64, "expected a list of files.")
    files = []
    for index, image in enumerate(images):
        try:
            files.append(image if isinstance(image, bytes) else base64.b64decode(image, validate=True))
        except (binascii.Error, TypeError, ValueError):
            raise ImageError(NOT_BASE64, "expected base64 text or bytes.", index=index) from None
    return files


def _is_empty_cell(value: Any) -> bool:
    """Whether a cell is empty, and so unanswered; in a table that is NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _history(place: int, case_history: Any) -> History:
    if _is_empty_cell(case_history):
        return NO_HISTORY
    try:
        if isinstance(case_history, str):
            return history_from_text(case_history)
        if not isinstance(case_history, Mapping):
            raise TypeError
        return History(
            **{key: None if _is_empty_cell(value) else value for key, value in case_history.items()}
        )
    except (ValidationError, TypeError) as error:
        fields = (
            sorted({str(one["loc"][0]) for one in error.errors() if one["loc"]})
            if isinstance(error, ValidationError)
            else []
        )
        raise MlflowException.invalid_parameter_value(
            f"The history of case {place} cannot be read"
            f"{': ' + ', '.join(fields) if fields else ''}; expected fields of a history and their values, "
            "or null."
        ) from None


set_model(BundleModel())
