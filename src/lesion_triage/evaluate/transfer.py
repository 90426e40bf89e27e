"""A bundle on a dataset that it was not made from: the policy and the score alone, side by side.

Imports bundle, calibrate, config, predictions and this package. The certificate is void for such cases.
Measured here is how they fare, and whether its promise would hold if it were read as a claim about them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.certificate import Unit
from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.cases import case_scores, gather_cases, unit_indices
from lesion_triage.calibrate.certificate import Verdict, sensitivity_verdict
from lesion_triage.calibrate.clustered_proportions import clustered_proportion
from lesion_triage.calibrate.metrics import Estimate, Proportion
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.config import Evaluate
from lesion_triage.evaluate.decided_cases import DecidedCases
from lesion_triage.evaluate.results import Results, evaluate
from lesion_triage.evaluate.slices import Outcomes, Slice, SliceResult, measure_slice, slices_of
from lesion_triage.predictions import Predictions

_VERDICTS: dict[Verdict, str] = {
    "holds": "it would hold, a lower sensitivity is refuted",
    "fails": "it would fail, the target is refuted",
    "undecided": "undecided, these cases refute neither the target nor a lower sensitivity",
}


@dataclass(frozen=True, slots=True)
class Excluded:
    """Numbers of the dataset's photographs that were not measured."""

    used: int
    """Labelled, but used to choose the bundle's model, calibrator or threshold: it has their fingerprints."""
    related: int
    """Labelled, but of the same patient or lesion as one of those, or a copy of it."""
    unlabelled: int


@dataclass(frozen=True, slots=True)
class Claim:
    """The certificate's promise, read as a claim about these cases: an exact test at its confidence."""

    misses: int
    positives: int
    """Units: patients where known, else lesions."""
    verdict: Verdict
    others_referred: int
    others: int
    """Cases that need no visit. If nearly all of these go up too, the few misses prove nothing."""


@dataclass(frozen=True, slots=True)
class SliceTransfer:
    """One slice; the results of the whole policy are in the slice of the same name of ``Results``."""

    name: str
    title: str
    cases: int
    refused_by_quality: Proportion | None
    """Cases without a photograph that passes the quality gate; None if the slice is empty."""
    refused_by_novelty: Proportion | None
    """Further cases, without a photograph that passes the novelty gate as well."""
    score_alone: SliceResult
    """Cases that pass the quality gate, at the same threshold: no novelty gate, no red flag."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How a bundle fares on another dataset."""

    results: Results
    """Of the whole policy, in the format of any evaluation."""
    excluded: Excluded
    target_sensitivity: float
    confidence: float
    policy_claim: Claim
    score_claim: Claim
    """Of the score alone, over the units with a case that passes the quality gate."""
    slices: tuple[SliceTransfer, ...]

    def to_json(self) -> str:
        """Canonical JSON text: the fields of the results, and the rest under ``transfer``."""
        rest = {name: value for name, value in asdict(self).items() if name != "results"}
        return canonical_json({"schema_version": 1, **asdict(self.results), "transfer": rest})


def measure_transfer(
    table: Predictions,
    bundle: Bundle,
    config: Evaluate,
    *,
    unit: Unit,
    excluded: Excluded,
    synthetic: bool = False,
) -> Transfer:
    """Measure a sealed bundle on cases of another dataset.

    Args:
        table: the bundle's own logits on split ``external``, before the novelty gate.
        bundle: policy, certificate and header.
        config: bootstrap draws and seed.
        unit: what is drawn independently in these cases.
        excluded: what was left out of the table.
        synthetic: whether these photographs were drawn by a program.

    Raises:
        PredictionsError: the table is of another model, or of a split that the bundle was made from.
        ScoringError: a logit that is not finite.
    """
    decided = DecidedCases.from_predictions(bundle, table)
    results = evaluate(table, bundle, config)
    cases = gather_cases(table)
    units, policy, certificate = unit_indices(cases), bundle.policy, bundle.certificate
    scores = case_scores(cases, policy.calibrator, policy.aggregation)
    thresholds = np.array([decide(policy, case.logits, case.history).threshold for case in cases])
    score_outcomes = Outcomes(scores, decided.positive, scores >= thresholds, units)
    scored = np.isfinite(scores)
    unfamiliar = scored & np.isposinf(decided.scores)

    def claim(referred: NDArray[np.bool_], members: NDArray[np.bool_]) -> Claim:
        positive = decided.positive & members
        misses = np.unique(units[positive & ~referred]).size
        positives = np.unique(units[positive]).size
        verdict = sensitivity_verdict(
            positives, misses, certificate.target_sensitivity, certificate.confidence
        )
        others = members & ~decided.positive
        return Claim(misses, positives, verdict, int(np.count_nonzero(others & referred)), int(others.sum()))

    return Transfer(
        results=replace(results, unit=unit, synthetic=results.synthetic or synthetic),
        excluded=excluded,
        target_sensitivity=certificate.target_sensitivity,
        confidence=certificate.confidence,
        policy_claim=claim(decided.referred, np.ones_like(scored)),
        score_claim=claim(score_outcomes.referred, scored),
        slices=tuple(
            _measure_slice_transfer(part, score_outcomes, scored, unfamiliar, config)
            for part in slices_of(cases)
        ),
    )


def markdown(found: Transfer, dataset: str) -> str:
    """The result in a few lines and a table, as Markdown."""
    results, left_out = found.results, found.excluded
    unit = results.unit
    lines = [
        f"Bundle {results.bundle_name} ({results.bundle_sha256[:16]}) on {dataset}: {results.cases} cases, "
        f"{results.positives} positive, {results.photographs} photographs. Left out: {left_out.used} "
        f"photographs that the bundle was made from, {left_out.related} of the same patient or lesion or "
        f"copies of them, {left_out.unlabelled} without a label.",
        "",
        f"**Certificate {results.certificate_id} does not hold here**: these cases are not exchangeable with "
        f"those it was issued on. Its promise, sensitivity >= {found.target_sensitivity} at "
        f"{format_percent(found.confidence)}% confidence, read as a claim about these cases:",
        "",
        f"- whole policy: {_claim_text(found.policy_claim, unit)}. {results.positives_abstained} of "
        f"{results.positives} positive cases went up without a score.",
        f"- score alone: {_claim_text(found.score_claim, unit)}.",
        "",
        "| cases | (positive) | refused for quality | unfamiliar | AUROC of the score | sensitivity: policy "
        "| score alone | specificity: policy | score alone | referral rate |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *_rows(found),
        "",
        "Score alone: without the novelty gate and without red flags, at the same threshold, over the cases "
        f"that pass the quality gate. In brackets: 95 % intervals: AUROC bootstrapped by {unit}; the "
        f"others exact where a {unit} has one case of those counted, else by the effective number of cases.",
    ]
    return "\n".join(lines)


def _measure_slice_transfer(
    part: Slice,
    score_outcomes: Outcomes,
    scored: NDArray[np.bool_],
    unfamiliar: NDArray[np.bool_],
    config: Evaluate,
) -> SliceTransfer:
    members = part.members
    total = int(members.sum())

    def share(of: NDArray[np.bool_]) -> Proportion | None:
        return clustered_proportion(of[members], score_outcomes.units[members]) if total else None

    return SliceTransfer(
        name=part.name,
        title=part.title,
        cases=total,
        refused_by_quality=share(~scored),
        refused_by_novelty=share(unfamiliar),
        score_alone=measure_slice(replace(part, members=members & scored), score_outcomes, config),
    )


def _claim_text(claim: Claim, unit: str) -> str:
    return (
        f"{claim.misses} of {claim.positives} positive {unit}s missed, and {claim.others_referred} of "
        f"{claim.others} negative cases went up; {_VERDICTS[claim.verdict]}"
    )


def _rows(found: Transfer) -> Iterator[str]:
    for whole, part in zip(found.results.slices, found.slices, strict=True):
        score = part.score_alone
        cells: Sequence[Estimate | Proportion | None] = (
            part.refused_by_quality,
            part.refused_by_novelty,
            score.interval("auroc"),
            whole.interval("sensitivity"),
            score.interval("sensitivity"),
            whole.interval("specificity"),
            score.interval("specificity"),
            whole.interval("referral_rate"),
        )
        yield f"| {whole.title} | {whole.cases} ({whole.positives}) | {' | '.join(map(_cell, cells))} |"


def _cell(found: Estimate | Proportion | None) -> str:
    if found is None:
        return "too few"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
