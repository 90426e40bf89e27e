"""``lesion-triage pool``: one certificate for several clinics that exchange only counts.

Imports bundle, calibrate and this package; needs no training library.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from lesion_triage.bundle.certificate import ALL_UNITS, BY_SITE, Certificate, Look
from lesion_triage.bundle.document import canonical_json, first_problem, sha256_of, timestamp
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.calibrate import ledger, pooling
from lesion_triage.calibrate.groups import JointThresholds
from lesion_triage.calibrate.policy_fit import selection_adjusted_confidence
from lesion_triage.calibrate.pooling import Tally
from lesion_triage.calibrate.wording import assumptions, format_percent
from lesion_triage.clinic.arguments import add_target
from lesion_triage.clinic.looks import pooled_looks
from lesion_triage.clinic.new_bundle import seal_again, with_thresholds
from lesion_triage.clinic.tally import scoring_sha256
from lesion_triage.console import echo
from lesion_triage.errors import BundleError, CalibrationError

_POOLED = (
    "Several sites were pooled by their counts. The statement about everyone is about the mean sensitivity "
    "of these sites, weighed by their positive cases; a site by itself is covered only where its row says "
    "certified."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("bundle", type=Path, help="folder of the sealed bundle that all sites counted with")
    parser.add_argument(
        "tallies", type=Path, nargs="+", metavar="TALLY", help="files of `lesion-triage tally`"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new bundle; must not exist")
    add_target(parser)
    parser.add_argument(
        "--mean-only",
        action="store_true",
        help="certify only the mean of the sites (default: also each site that is large enough by itself)",
    )


def main(arguments: argparse.Namespace) -> int:
    """Certify on the counts of all sites."""
    bundle = open_bundle(arguments.bundle)
    tallies = [_read(path) for path in arguments.tallies]
    made = pool(
        bundle,
        tallies,
        arguments.out,
        target=arguments.target,
        confidence=arguments.confidence,
        each_site=not arguments.mean_only,
    )
    certificate = made.certificate
    echo(
        f"  threshold {certificate.threshold:.6f} certifies sensitivity >= "
        f"{certificate.target_sensitivity} at {format_percent(certificate.confidence)}% confidence: "
        f"{certificate.misses_seen} of {certificate.positives} missed, {certificate.misses_allowed} allowed"
    )
    if certificate.unit != bundle.certificate.unit:
        echo(f"  it counts {certificate.unit}s; the previous certificate counted {bundle.certificate.unit}s")
    for by in lost_groups(bundle.certificate):
        echo(f"  LOST: groups by {by} are no longer certified; counts cannot tell them apart")
    if certificate.rule != bundle.certificate.rule:
        echo("  LOST: a threshold for each group; `recertify` with this bundle uses one for all")
    for row in certificate.groups[1:]:
        by_itself = "certified by itself" if row.status == "certified" else "covered in the mean only"
        echo(f"    {row.group}: {row.misses_seen} of {row.positives} missed, {by_itself}")
    echo(f"  sealed {arguments.out} ({made.sha256[:16]}), certificate {certificate.certificate_id()}")
    return 0


def pool(
    bundle: Bundle,
    tallies: Sequence[Tally],
    out: Path,
    *,
    target: float | None = None,
    confidence: float | None = None,
    each_site: bool = True,
) -> Bundle:
    """Seal a new bundle with the pooled certificate.

    Args:
        bundle: the one that all sites counted with.
        tallies: of at least two sites.
        out: folder of the new bundle; must not exist.
        target: sensitivity; None takes that of the bundle.
        confidence: one-sided; None takes that of the bundle.
        each_site: each site that is large enough must reach the target by itself too.

    Raises:
        CalibrationError: counts that cannot be added, or too few.
        BundleError: ``out`` exists, or the sites counted with another model or scoring.
    """
    before = bundle.certificate
    pooling.check_tallies(tallies)
    first = tallies[0]
    _require_same_scorer(bundle, first)
    wanted = before.target_sensitivity if target is None else target
    level = before.confidence if confidence is None else confidence
    threshold, rows = pooling.pool(tallies, wanted, level, each_site=each_site)
    policy = with_thresholds(bundle.policy, JointThresholds(threshold, level, {}, ()))
    everyone = rows[0]
    assert everyone.misses_allowed is not None
    assert everyone.sensitivity_lower_bound is not None
    counts = canonical_json([each.model_dump(mode="json") for each in tallies])
    cases = sha256_of(canonical_json(sorted(each.cases_sha256 for each in tallies)).encode())
    known = (*before.ledger, ledger.look_from_certificate(before, before.policy_sha256))
    earlier = _earlier_confidences(known, tallies, cases)
    certificate = Certificate(
        issued_at=timestamp(),
        site=", ".join(each.site for each in tallies),
        purpose="certified on the counts of several sites",
        method="pooled_counts",
        rule="common_threshold",
        target_sensitivity=wanted,
        confidence=level,
        unit=first.unit,
        aggregation=policy.aggregation,
        positives=everyone.positives,
        positives_abstained=everyone.positives_abstained,
        misses_allowed=everyone.misses_allowed,
        misses_seen=everyone.misses_seen,
        routes=None,
        red_flags_counted=False,
        threshold=threshold,
        sensitivity_lower_bound=everyone.sensitivity_lower_bound,
        asked=before.asked,
        groups=rows,
        cases_sha256=cases,
        predictions_sha256=sha256_of(counts.encode()),
        manifest_sha256=None,
        splits_sha256=None,
        model_sha256=before.model_sha256,
        policy_sha256=policy.sha256(),
        assumptions=(
            _POOLED,
            *([_lost(lost)] if (lost := lost_groups(before)) else []),
            *assumptions(
                first.unit,
                "common_threshold",
                rows,
                len(earlier),
                red_flags_counted=False,
                unnamed_lesions=sum(each.unnamed_lesions for each in tallies),
                unnamed_photographs=sum(each.unnamed_photographs for each in tallies),
            ),
        ),
        ledger=known,
        confidence_if_selected=selection_adjusted_confidence([level, *earlier]),
    )
    return seal_again(bundle, out, policy, certificate)


def _require_same_scorer(bundle: Bundle, tally: Tally) -> None:
    for name, expected in (
        ("model_sha256", bundle.certificate.model_sha256),
        ("scoring_sha256", scoring_sha256(bundle.policy)),
    ):
        found = getattr(tally, name)
        if found != expected:
            raise BundleError(
                f"{bundle.folder}: the sites counted with another scorer ({name} {found[:12]}, here "
                f"{expected[:12]}); pool with the bundle that they used."
            )


def _earlier_confidences(known: Sequence[Look], tallies: Sequence[Tally], cases: str) -> list[float]:
    """The confidence of each threshold chosen on these sites' cases before, here or there."""
    at_these = {cases, *(one.cases_sha256 for one in tallies)}
    # An earlier pool of some of these sites, or of these and others, has another hash.
    pooled = pooled_looks(known, {one.site for one in tallies}, tallies[0].model_sha256)
    earlier = [look.confidence for look in known if look.cases_sha256 in at_these or look in pooled]
    return earlier + [each for one in tallies for each in one.looked_before]


def lost_groups(before: Certificate) -> tuple[str, ...]:
    """The dimensions of groups in the bundle's certificate: pooled counts cannot certify them."""
    spoken_of = (*(row.by for row in before.groups), *(each.by for each in before.asked))
    return tuple(dict.fromkeys(by for by in spoken_of if by not in (ALL_UNITS, BY_SITE)))


def _lost(dimensions: Sequence[str]) -> str:
    return (
        f"The certificate before looked at groups by {', '.join(dimensions)}. Counts of misses cannot tell "
        "these apart, so nothing is promised for any of them until a site certifies on its own cases."
    )


def _read(path: Path) -> Tally:
    try:
        return Tally.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise CalibrationError(
            f"{path}: not a file of `lesion-triage tally` ({first_problem(error)})."
        ) from None
