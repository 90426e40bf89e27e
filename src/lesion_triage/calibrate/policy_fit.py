"""From two tables of logits to a policy and its certificate. Imports config, bundle, predictions and numpy.

Validation cases fit the calibrator and nothing else; calibration cases set the threshold and nothing else.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.calibration import PlattCalibrator
from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition, Policy
from lesion_triage.calibrate.calibrators import fit_platt
from lesion_triage.calibrate.cases import Aggregation, Case, cases_of, positives_of, scores_of
from lesion_triage.calibrate.certificate import sensitivity_lower_bound, threshold_for
from lesion_triage.config import Calibrate
from lesion_triage.errors import CalibrationError
from lesion_triage.predictions import Predictions

Unit = Literal["lesion", "patient"]

_ASSUMPTIONS = (
    "Future cases are exchangeable with the calibration cases: the same population, cameras, way of referral "
    "and reference standard. Another site, camera or population voids the certificate until it is issued "
    "again there.",
    "The calibration cases chose neither the model nor its calibrator, and were looked at once.",
    "A case is scored as it was here: the same graph, pixel preparation, quality limits and aggregation.",
    "A case that cannot be scored counts as referred: it goes up, and is not sent away if no better "
    "photograph comes.",
    "The statement is about all positive cases together; it promises nothing for a subgroup, or for a single "
    "condition, taken alone.",
    "The confidence is over the draw of the calibration cases, not over the fate of one patient.",
)
_UNIT_ASSUMPTIONS: dict[Unit, str] = {
    "lesion": (
        "The unit is the lesion, because patients are not identified in these data; several lesions of one "
        "patient are taken as independent."
    ),
    "patient": (
        "The unit is the patient, referred if the policy refers or abstains on the patient's photographs."
    ),
}


def certify(
    validation: Predictions,
    calibration: Predictions,
    calibration_sha256: str,
    config: Calibrate,
    unit: Unit,
    *,
    model_sha256: str | None = None,
) -> tuple[Policy, Certificate]:
    """Fit the calibrator, certify the threshold, set the priority bands.

    Args:
        validation: logits of the validation photographs; they fit the calibrator.
        calibration: logits of the calibration photographs; they set threshold and bands.
        calibration_sha256: hash of the calibration table, for the certificate.
        config: target sensitivity, confidence, aggregation, quality limits and band shares.
        unit: what ``case_id`` stands for.
        model_sha256: hash of the graph that the policy will stand beside; None takes the one that made
            the calibration table.

    Raises:
        CalibrationError: too few positive cases, a case in both splits, tables of different models or
            manifests, scores that rank backwards.
        PredictionsError: a row whose outcome is unknown.
        ScoringError: a logit that is not finite.
    """
    model_sha256 = model_sha256 or calibration.model_sha256
    _check_origin(validation, calibration, model_sha256)
    fitting, certifying = cases_of(validation), cases_of(calibration)
    _check_disjoint(fitting, certifying)
    calibrator = _fit_calibrator(fitting, config.aggregation)
    scores = scores_of(certifying, calibrator, config.aggregation)
    positive_scores = scores[positives_of(certifying)]
    threshold, allowed, seen = threshold_for(
        positive_scores, config.target_sensitivity, config.confidence, unit=unit, split=calibration.split
    )
    policy = Policy(
        calibrator=calibrator,
        aggregation=config.aggregation,
        threshold=threshold,
        band_limits=_band_limits(scores, config.band_shares, threshold),
        quality=config.quality,
    )
    certificate = Certificate(
        target_sensitivity=config.target_sensitivity,
        confidence=config.confidence,
        unit=unit,
        aggregation=config.aggregation,
        positives=positive_scores.size,
        positives_abstained=int(np.count_nonzero(np.isposinf(positive_scores))),
        misses_allowed=allowed,
        misses_seen=seen,
        threshold=threshold,
        # For the misses allowed: with tied scores fewer are seen, and a bound for those, chosen by the same
        # data as the threshold, would be broken up to 9 % of the time at a nominal 5 %.
        sensitivity_lower_bound=sensitivity_lower_bound(positive_scores.size, allowed, config.confidence),
        manifest_sha256=calibration.manifest_sha256,
        splits_sha256=calibration.splits_sha256,
        predictions_sha256=calibration_sha256,
        model_sha256=model_sha256,
        calibrator_sha256=calibrator.sha256(),
        assumptions=(*_ASSUMPTIONS, _UNIT_ASSUMPTIONS[unit]),
    )
    found = _misses(policy, certifying)
    assert found == seen <= allowed, "policy and certificate count differently"
    return policy, certificate


def _check_origin(validation: Predictions, calibration: Predictions, model_sha256: str) -> None:
    for predictions, expected in ((validation, "validation"), (calibration, "calibration")):
        if predictions.split != expected:
            raise CalibrationError(
                f"expected the predictions of split '{expected}', found those of '{predictions.split}'; the "
                "calibrator takes 'validation', the threshold 'calibration', and no other split will do."
            )
        if predictions.model_sha256 != model_sha256:
            raise CalibrationError(
                f"the predictions of split '{expected}' come from model {predictions.model_sha256[:12]}, "
                f"expected {model_sha256[:12]}; predict again with the exported model."
            )
    for name in ("manifest_sha256", "splits_sha256"):
        found, expected = getattr(validation, name), getattr(calibration, name)
        if found != expected:
            raise CalibrationError(
                f"the predictions of 'validation' and 'calibration' differ in {name} ({found[:12]} and "
                f"{expected[:12]}); predict both from one manifest and one split."
            )


def _check_disjoint(fitting: tuple[Case, ...], certifying: tuple[Case, ...]) -> None:
    shared = sorted({case.case_id for case in fitting} & {case.case_id for case in certifying})
    if shared:
        raise CalibrationError(
            f"{len(shared)} cases, the first '{shared[0]}', are in both 'validation' and 'calibration'; a "
            "case that fits the calibrator cannot certify the threshold: split again."
        )


def _fit_calibrator(cases: tuple[Case, ...], aggregation: Aggregation) -> PlattCalibrator:
    gradable = tuple(case for case in cases if case.gradable)
    logits = np.array([case.logit(aggregation) for case in gradable], dtype=np.float64)
    return fit_platt(logits, positives_of(gradable))


def _band_limits(
    scores: NDArray[np.float64], shares: tuple[float, float, float], threshold: float
) -> tuple[float, float, float]:
    """Lowest score of bands 1, 2 and 3, so that they hold ``shares`` of the cases that have a score.

    The third is lowered to the threshold if above it: no referred case waits in the last band.
    """
    cumulative = np.cumsum(shares)
    descending = np.sort(scores[np.isfinite(scores)])[::-1]
    last = np.clip(np.rint(cumulative * descending.size).astype(int), 1, descending.size) - 1
    first, second, third = (float(limit) for limit in descending[last])
    return first, second, min(third, threshold)


def _misses(policy: Policy, cases: tuple[Case, ...]) -> int:
    """Positive cases that the policy itself leaves below the threshold."""
    return sum(
        decide(policy, case.logits).disposition is Disposition.below_threshold
        for case in cases
        if case.needs_in_person
    )
