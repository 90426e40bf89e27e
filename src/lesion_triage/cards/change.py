"""The record of a change: what differs, how the results change, and whether it is a regression.

Imports the differences. The rule is fixed before any result is seen, so that no result can bend it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from lesion_triage.bundle.certificate import GroupRow
from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.cards.differences import (
    Difference,
    Measure,
    certified_groups,
    measures,
    same_cases,
    sections,
)
from lesion_triage.cards.evidence import BundleEvidence
from lesion_triage.errors import BundleError

FORMAT = 1
RULE = (
    "A new bundle is no regression if, on the same test cases: in every slice that the old one was "
    "measured in, its AUROC, sensitivity and specificity are not below the lower end of the old one's 95 "
    "% interval, nor its referral rate above the upper end; its certificate promises no lower sensitivity "
    "and no less confidence, and counts no red flags if the old one counts none; no group that was certified "
    "is lost; no decision differs between torch and onnxruntime; the audit is no worse; the self-test "
    "passes. What cannot be compared counts as a regression until somebody accepts it with a reason."
)
_AUDIT_ORDER = ("pass", "warn", "fail")


class Level(StrEnum):
    """Verdict of a line of the assessment."""

    FINE = "no worse"
    WORSE = "worse"
    UNKNOWN = "cannot be compared"


@dataclass(frozen=True, slots=True)
class AssessmentLine:
    """One line of the assessment."""

    code: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class BundleIdentity:
    """The identity of a bundle."""

    name: str
    bundle_sha256: str
    certificate_id: str
    created_at: str
    made_with: str
    synthetic: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A record of change; ``change-record.json``."""

    old: BundleIdentity
    new: BundleIdentity
    by: str
    why: str
    """Who changes it, and the reason; empty: not stated."""
    kinds: tuple[str, ...]
    differences: dict[str, tuple[Difference, ...]]
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    """Certified groups."""
    same_cases: bool | None
    measures: tuple[Measure, ...]
    lines: tuple[AssessmentLine, ...]

    @property
    def regressions(self) -> tuple[AssessmentLine, ...]:
        """Lines that count as a regression: worse, or not comparable."""
        return tuple(line for line in self.lines if line.level is not Level.FINE)

    def to_json(self) -> str:
        """Canonical JSON text."""
        head = {"format": FORMAT, "rule": RULE, "regression": bool(self.regressions)}
        return canonical_json({**head, **asdict(self)})


def compare(old: BundleEvidence, new: BundleEvidence, by: str = "", why: str = "") -> Change:
    """Compare a new bundle with the one that it is to replace.

    Args:
        old: the bundle in use.
        new: the bundle that is to replace it.
        by: who changes it; empty: not stated.
        why: the reason; empty: not stated.
    """
    differences = sections(old, new)
    before, after = certified_groups(old), certified_groups(new)
    gained, lost = _not_covered(after, before), _not_covered(before, after)
    same, rows = same_cases(old, new), measures(old, new)
    return Change(
        old=_identity(old),
        new=_identity(new),
        by=by,
        why=why,
        kinds=tuple(_kinds(old, new, differences, (*gained, *lost))),
        differences=differences,
        gained=gained,
        lost=lost,
        same_cases=same,
        measures=rows,
        lines=(
            *_compare_results(same, rows),
            _compare_certificates(old, new),
            _assess_lost_groups(lost),
            _assess_parity(new),
            _compare_audits(old, new),
            run_self_test(new),
        ),
    )


def _not_covered(groups: Mapping[str, GroupRow], by: Mapping[str, GroupRow]) -> tuple[str, ...]:
    """Certified groups that others do not cover: none has the name, or a merged one lacks a member."""
    return tuple(
        name
        for name, row in groups.items()
        if name not in by or not set(row.members) <= set(by[name].members)
    )


def run_self_test(evidence: BundleEvidence) -> AssessmentLine:
    """Score the bundle's own pictures on this machine."""
    try:
        Scorer(evidence.bundle).self_test()
    except BundleError as error:
        return AssessmentLine("self_test", Level.WORSE, f"The self-test fails here: {error}")
    return AssessmentLine("self_test", Level.FINE, "The self-test passes on this machine.")


def _identity(evidence: BundleEvidence) -> BundleIdentity:
    bundle = evidence.bundle
    return BundleIdentity(
        bundle.header.name,
        bundle.sha256,
        bundle.certificate.certificate_id(),
        bundle.header.created_at,
        bundle.header.made_with,
        bundle.header.synthetic,
    )


def _kinds(
    old: BundleEvidence,
    new: BundleEvidence,
    differences: dict[str, tuple[Difference, ...]],
    groups: tuple[str, ...],
) -> Iterator[str]:
    if old.bundle.certificate.model_sha256 != new.bundle.certificate.model_sha256:
        yield "another network: trained again, or with another recipe or other data"
    elif differences["certificate"]:
        yield "the same network under another certificate"
    if differences["input"]:
        yield "input: pixels or quality limits"
    if differences["policy"]:
        yield "policy: threshold, calibrator, bands or gates"
    if groups:
        yield "groups of people that the certificate covers"
    if differences["intended use"]:
        yield "INTENDED USE: the text of the card differs"


def _compare_results(same: bool | None, rows: tuple[Measure, ...]) -> Iterator[AssessmentLine]:
    if same is None:
        yield AssessmentLine("results", Level.UNKNOWN, "One of the two has no results on a test split.")
        return
    if not same:
        yield AssessmentLine(
            "results", Level.UNKNOWN, "They were not tested on the same cases: manifest or splits differ."
        )
        return
    measured = [(row, row.old) for row in rows if row.old is not None]
    if not measured:
        yield AssessmentLine("results", Level.UNKNOWN, "The old one was measured in no slice: too few cases.")
    for row, old in measured:
        if row.new is None:
            yield AssessmentLine(
                f"{row.measure}: {row.slice}", Level.UNKNOWN, f"{row.title}: no longer measured."
            )
            continue
        limit, worse = _limit(row.measure, old, row.new["value"])
        yield AssessmentLine(
            f"{row.measure}: {row.slice}",
            Level.WORSE if worse else Level.FINE,
            f"{row.title}: {row.measure} {old['value']:.3f} before, {row.new['value']:.3f} now, limit "
            f"{limit:.3f}.",
        )


def _limit(measure: str, old: dict[str, float], new: float) -> tuple[float, bool]:
    if measure == "referral_rate":
        return old["high"], not new <= old["high"]
    return old["low"], not new >= old["low"]  # NaN is worse


def _compare_certificates(old: BundleEvidence, new: BundleEvidence) -> AssessmentLine:
    before, after = old.bundle.certificate, new.bundle.certificate
    less = after.target_sensitivity < before.target_sensitivity or after.confidence < before.confidence
    text = (
        f"Sensitivity {before.target_sensitivity} at confidence {before.confidence} before, "
        f"{after.target_sensitivity} at {after.confidence} now."
    )
    if after.red_flags_counted and not before.red_flags_counted:
        less = True
        text += " Red flags count now: it holds only where the same questions are asked."
    return AssessmentLine("certificate", Level.WORSE if less else Level.FINE, text)


def _assess_lost_groups(lost: tuple[str, ...]) -> AssessmentLine:
    if lost:
        return AssessmentLine("groups", Level.WORSE, f"Certified before and not now: {', '.join(lost)}.")
    return AssessmentLine("groups", Level.FINE, "No certified group is lost.")


def _assess_parity(new: BundleEvidence) -> AssessmentLine:
    parity = (new.results() or {}).get("parity")
    if not parity or parity["decision_flips"] is None:
        return AssessmentLine("parity", Level.UNKNOWN, "No record of how far torch and onnxruntime differ.")
    flips = parity["decision_flips"]
    return AssessmentLine(
        "parity",
        Level.WORSE if flips != 0 else Level.FINE,
        f"{flips} decisions differ between torch and onnxruntime on {parity['images']} photographs.",
    )


def _compare_audits(old: BundleEvidence, new: BundleEvidence) -> AssessmentLine:
    audits = [one.audit() or {} for one in (old, new)]
    before, after = (audit.get("verdict") for audit in audits)
    if after is None or before is None:
        missing = "new" if after is None else "old"
        return AssessmentLine(
            "audit", Level.UNKNOWN, f"There is no audit of the {missing} bundle's data and model."
        )
    of_the_model = [audit.get("facts", {}).get("with_model", False) for audit in audits]
    if of_the_model == [True, False]:
        text = "The new bundle's audit is of its data alone, the old one's of data and model."
        return AssessmentLine("audit", Level.UNKNOWN, text)
    worse = _AUDIT_ORDER.index(after) > _AUDIT_ORDER.index(before)
    return AssessmentLine(
        "audit", Level.WORSE if worse else Level.FINE, f"Audit: {before} before, {after} now."
    )
