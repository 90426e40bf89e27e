"""From tables of logits to a policy and its certificate. Imports config, bundle, predictions and numpy.

Validation cases set the novelty gate and fit the calibrator. Calibration cases set the thresholds and the
priority bands, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.calibration import Calibrator
from lesion_triage.bundle.certificate import Certificate, Look, Routes, Unit
from lesion_triage.bundle.policy import Decision, decide
from lesion_triage.bundle.red_flags import NO_RED_FLAGS
from lesion_triage.bundle.schema import Disposition, Policy, ReasonCode
from lesion_triage.calibrate import calibrators
from lesion_triage.calibrate.cases import (
    Case,
    case_scores,
    cases_sha256,
    gather_cases,
    positive_mask,
    red_flag_mask,
    unit_indices,
)
from lesion_triage.calibrate.certificate import minimum_positives, require_enough_positives
from lesion_triage.calibrate.groups import JointThresholds, certify_jointly, group_rows, positive_groups
from lesion_triage.calibrate.novelty import novelty_limit
from lesion_triage.calibrate.wording import assumptions
from lesion_triage.config import Calibrate
from lesion_triage.errors import CalibrationError
from lesion_triage.predictions import Predictions


@dataclass(frozen=True, slots=True)
class CaseProvenance:
    """Where the calibration cases come from, and how they were used before."""

    issued_at: str
    """UTC, ISO 8601."""
    unit: Unit
    predictions_sha256: str
    site: str = ""
    purpose: str = "first look"
    ledger: tuple[Look, ...] = ()
    looks_at_these_cases: tuple[Look, ...] = ()
    """Those of the ledger's looks that used these cases or some of them."""
    unnamed_lesions: int = 0
    """If patients are counted: lesions of the table that name no patient; each counts as one."""
    unnamed_photographs: int = 0
    """Photographs of the table that name no lesion; each counts as a lesion."""


_RUN_ADVICE = "Merge groups (calibrate.groups), or set calibrate.rule to common_threshold."
_SITE_ADVICE = (
    "A site cannot change the bundle's groups and their rule: where a group is too small, collect more "
    "confirmed cases; else ask its makers for a bundle with one common threshold."
)
"""What to do where thresholds of each group's own cannot be certified; a site has no configuration file."""


def fit_calibrator(validation: Predictions, config: Calibrate) -> Calibrator:
    """Fit the calibrator on the validation cases.

    Raises:
        CalibrationError: another split, too few cases of a class, scores that rank backwards.
        PredictionsError: a row whose outcome is unknown.
    """
    _require_split(validation, "validation")
    cases = gather_cases(validation)
    gradable = tuple(case for case in cases if case.gradable)
    _require_both_classes_gradable(cases, gradable)
    logits = np.array([case.logit(config.aggregation) for case in gradable], dtype=np.float64)
    positive, kind = positive_mask(gradable), config.calibrator
    if kind == "auto":
        kind, _ = calibrators.choose(logits, positive, [case.unit_id for case in gradable])
    return calibrators.fit(kind, logits, positive)


def _require_both_classes_gradable(cases: Sequence[Case], gradable: Sequence[Case]) -> None:
    """Refuse a split that has a class of which the gates let no case through: enlarging it would not help.

    A class that the split lacks altogether is for the calibrator to refuse.
    """
    for needs, words in ((True, "need an in-person visit"), (False, "need none")):
        found = [case for case in cases if case.needs_in_person == needs]
        if found and not any(case.needs_in_person == needs for case in gradable):
            codes = Counter(code for case in found for row in case.rows for code in row.quality_codes.split())
            refused = ", ".join(f"{code} {photographs}" for code, photographs in codes.most_common())
            raise CalibrationError(
                f"the gates let no photograph through of the {len(found)} cases of split 'validation' that "
                f"{words} (photographs refused: {refused}), and a calibrator needs cases of both classes; "
                "look at these photographs before you change calibrate.quality or calibrate.novelty_share."
            )


def certify(
    validation: Predictions, calibration: Predictions, config: Calibrate, origin: CaseProvenance
) -> tuple[Policy, Certificate]:
    """Set the novelty gate, fit the calibrator, certify the thresholds, set the priority bands.

    The gate is applied before anything else reads a logit, so the certificate covers the cases it sends up.

    Args:
        validation: logits of the validation photographs; they set the gate and fit the calibrator.
        calibration: logits of the calibration photographs; they set thresholds and bands.
        config: of the stage.
        origin: of the calibration table.

    Raises:
        CalibrationError: too few positive cases, a case in both splits, tables of different models or
            manifests, scores that rank backwards.
        PredictionsError: a row whose outcome is unknown.
        ScoringError: a logit that is not finite.
    """
    _require_split(calibration, "calibration")
    _require_split(validation, "validation")
    _check_same_origin(validation, calibration)
    limit = novelty_limit(validation, config.novelty_share)
    validation, calibration = validation.behind_gate(limit), calibration.behind_gate(limit)
    calibrator = fit_calibrator(validation, config)
    certifying = gather_cases(calibration)
    _check_disjoint(gather_cases(validation), certifying)

    def make_policy(joint: JointThresholds, scores: NDArray[np.float64]) -> Policy:
        return Policy(
            calibrator=calibrator,
            aggregation=config.aggregation,
            threshold=joint.threshold,
            groupings=joint.groupings,
            band_limits=band_limits(scores, config.band_shares, joint.threshold),
            deadline_hours=config.deadline_hours,
            quality=config.quality,
            red_flags=config.red_flags or NO_RED_FLAGS,
            novelty_limit=limit,
        )

    return certify_cases(certifying, calibration, calibrator, config, origin, make_policy)


def certify_cases(
    cases: Sequence[Case],
    table: Predictions,
    calibrator: Calibrator,
    config: Calibrate,
    origin: CaseProvenance,
    make_policy: Callable[[JointThresholds, NDArray[np.float64]], Policy],
) -> tuple[Policy, Certificate]:
    """Certify thresholds for a calibrator that these cases had no part in.

    Args:
        cases: of ``table``; the positive ones set the thresholds.
        table: gives the hashes of what the logits were computed from.
        calibrator: from logit to score.
        config: target, confidence, groups, rule and aggregation.
        origin: of the cases.
        make_policy: makes the policy from the thresholds and the scores of all cases.

    Raises:
        CalibrationError: too few positive cases.
        ScoringError: a logit that is not finite.
    """
    target, confidence = config.target_sensitivity, config.confidence
    scores = case_scores(cases, calibrator, config.aggregation)
    positive = positive_mask(cases)
    positives = [case for case in cases if case.needs_in_person]
    number = np.unique(unit_indices(positives)).size if positives else 0
    require_enough_positives(number, target, confidence, unit=origin.unit, split=table.split)
    enough = minimum_positives(target, confidence)
    certified = scores[positive]
    if config.count_red_flags:
        certified = np.where(red_flag_mask(positives, config.red_flags or NO_RED_FLAGS), np.inf, certified)
    groups = positive_groups(positives, certified, config.groups, enough)
    try:
        joint = certify_jointly(groups, config.groups, config.rule, target, confidence)
    except CalibrationError as error:
        if config.rule == "common_threshold":
            raise
        raise CalibrationError(f"{error} {_SITE_ADVICE if origin.site else _RUN_ADVICE}") from None
    policy = make_policy(joint, scores)
    decisions = [decide(policy, case.logits, case.history) for case in positives]
    decided = positive_groups(positives, _referred(decisions), config.groups, enough)
    seen = [int(np.count_nonzero(group.scores == 0.0)) for group in decided]
    rows = group_rows(groups, joint, target, confidence, seen)
    everyone = rows[0]
    assert everyone.misses_allowed is not None
    assert everyone.sensitivity_lower_bound is not None
    assert all(row.misses_allowed is None or row.misses_seen <= row.misses_allowed for row in rows), (
        "policy and certificate count differently"
    )
    return policy, Certificate(
        issued_at=origin.issued_at,
        site=origin.site,
        purpose=origin.purpose,
        method="order_statistic",
        rule=config.rule,
        target_sensitivity=target,
        confidence=confidence,
        unit=origin.unit,
        aggregation=config.aggregation,
        positives=everyone.positives,
        positives_abstained=everyone.positives_abstained,
        misses_allowed=everyone.misses_allowed,
        misses_seen=everyone.misses_seen,
        routes=count_routes(decisions),
        red_flags_counted=config.count_red_flags,
        threshold=policy.threshold,
        sensitivity_lower_bound=everyone.sensitivity_lower_bound,
        asked=config.groups,
        groups=rows,
        cases_sha256=cases_sha256(cases),
        predictions_sha256=origin.predictions_sha256,
        manifest_sha256=table.manifest_sha256 if not origin.site else None,
        splits_sha256=table.splits_sha256 if not origin.site else None,
        model_sha256=table.model_sha256,
        policy_sha256=policy.sha256(),
        assumptions=assumptions(
            origin.unit,
            config.rule,
            rows,
            len(origin.looks_at_these_cases),
            red_flags_counted=config.count_red_flags,
            unnamed_lesions=origin.unnamed_lesions,
            unnamed_photographs=origin.unnamed_photographs,
        ),
        ledger=origin.ledger,
        confidence_if_selected=selection_adjusted_confidence(
            [confidence, *(look.confidence for look in origin.looks_at_these_cases)]
        ),
    )


def selection_adjusted_confidence(confidences: Sequence[float]) -> float:
    """Confidence of a certificate selected among several on the same cases, by a union bound."""
    return max(0.0, round(1.0 - sum(1.0 - each for each in confidences), 12))


def band_limits(
    scores: NDArray[np.float64], shares: tuple[float, float, float], threshold: float
) -> tuple[float, float, float]:
    """Lowest score of bands 1, 2 and 3, so that they hold ``shares`` of the cases that have a score.

    The third limit is never above the threshold, so no case referred by its score is in the last band.
    """
    descending = np.sort(scores[np.isfinite(scores)])[::-1]
    last = np.clip(np.rint(np.cumsum(shares) * descending.size).astype(int), 1, descending.size) - 1
    first, second, third = (float(limit) for limit in descending[last])
    return first, second, min(third, threshold)


def count_routes(decisions: Sequence[Decision]) -> Routes:
    """Count cases by what sent them up; if several things did, by the first that ``_route`` tests."""
    counts = Counter(_route(decision) for decision in decisions)
    return Routes(**counts)


def _route(decision: Decision) -> str:
    if decision.score is None:
        return "not_scored"
    if ReasonCode.score_at_or_above_threshold in decision.reasons:
        return "score"
    if ReasonCode.uncertified_subgroup in decision.reasons:
        return "uncertified_subgroup"
    return "red_flag" if ReasonCode.red_flag in decision.reasons else "below_threshold"


def _referred(decisions: Sequence[Decision]) -> NDArray[np.float64]:
    """0 for every case that the whole policy leaves below the threshold, else 1."""
    return np.array([float(made.disposition is not Disposition.below_threshold) for made in decisions])


def _require_split(predictions: Predictions, expected: str) -> None:
    if predictions.split != expected:
        raise CalibrationError(
            f"expected the predictions of split '{expected}', found those of '{predictions.split}'; the "
            "calibrator is fitted on 'validation' and the threshold chosen on 'calibration', on nothing else."
        )


def _check_same_origin(validation: Predictions, calibration: Predictions) -> None:
    for name in ("manifest_sha256", "splits_sha256", "model_sha256"):
        found, expected = getattr(validation, name), getattr(calibration, name)
        if found != expected:
            raise CalibrationError(
                f"the predictions of 'validation' and 'calibration' differ in {name} ({found[:12]} and "
                f"{expected[:12]}); predict both from one manifest, one split and one model."
            )


def _check_disjoint(fitting: Sequence[Case], certifying: Sequence[Case]) -> None:
    for what, ours, theirs in (
        ("cases", {c.case_id for c in fitting}, {c.case_id for c in certifying}),
        ("patients or lesions", {c.unit_id for c in fitting}, {c.unit_id for c in certifying}),
    ):
        if shared := ours & theirs:
            raise CalibrationError(
                f"{len(shared)} {what} are in both 'validation' and 'calibration'; cases that fit the "
                "calibrator cannot certify the threshold; split again."
            )
