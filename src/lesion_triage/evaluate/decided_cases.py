"""The cases of a table, decided by a sealed bundle. Imports bundle, predictions and calibrate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.policy import Decision, decide
from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.cases import Case, case_scores, gather_cases, positive_mask, unit_indices
from lesion_triage.calibrate.cells import Sample
from lesion_triage.calibrate.clustered_proportions import has_clusters
from lesion_triage.errors import PredictionsError
from lesion_triage.predictions import Predictions

EXTERNAL = "external"
"""The split of cases that the bundle's own manifest does not have."""

_FITTING_SPLITS = ("train", "validation", "calibration")


@dataclass(frozen=True, slots=True, eq=False)
class DecidedCases:
    """The cases of a table, decided by the bundle's own policy."""

    cases: tuple[Case, ...]
    decisions: tuple[Decision, ...]
    scores: NDArray[np.float64]
    """Shape (cases,); +inf for a case without a score."""
    positive: NDArray[np.bool_]
    referred: NDArray[np.bool_]
    """Referred or abstained on."""

    @classmethod
    def from_predictions(cls, bundle: Bundle, table: Predictions) -> DecidedCases:
        """Decide every case of ``table``.

        Raises:
            PredictionsError: the table belongs to another manifest, split or model, or to a split that the
                model or its policy was made from. For an external table only the model must match.
        """
        _check_origin(bundle, table)
        cases = gather_cases(table.behind_gate(bundle.policy.novelty_limit))
        decisions = tuple(decide(bundle.policy, case.logits, case.history) for case in cases)
        scores = case_scores(cases, bundle.policy.calibrator, bundle.policy.aggregation)
        below = np.array([decision.disposition is Disposition.below_threshold for decision in decisions])
        thresholds = np.array([decision.threshold for decision in decisions])
        assert not (below & (scores >= thresholds)).any(), "a score that refers was decided otherwise"
        return cls(cases, decisions, scores, positive_mask(cases), ~below)

    def sample(self, threshold: float) -> Sample:
        """The cases sorted by score, for the metrics."""
        return Sample.of(self.scores, self.positive, threshold)

    def bootstrap_units(self) -> NDArray[np.intp] | None:
        """What a bootstrap draws: the unit of each case, or None if every case is a unit of its own."""
        units = unit_indices(self.cases)
        return units if has_clusters(units) else None


def _check_origin(bundle: Bundle, table: Predictions) -> None:
    if table.split in _FITTING_SPLITS:
        raise PredictionsError(
            f"the model or its policy was made from split '{table.split}', so it cannot be evaluated there; "
            "predict split 'test' with the sealed bundle."
        )
    own = () if table.split == EXTERNAL else ("manifest_sha256", "splits_sha256")
    for name in (*own, "model_sha256"):
        found, expected = getattr(table, name), getattr(bundle.certificate, name)
        if found != expected:
            raise PredictionsError(
                f"predictions of split '{table.split}': {name} is {found[:12]}, the bundle's certificate "
                f"says {(expected or 'none')[:12]}; predict again with this bundle on its own manifest and "
                "split."
            )
