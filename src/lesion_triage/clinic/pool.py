"""``lesion-triage tally`` and ``pool``: one certificate for several clinics that exchange only counts.

Imports bundle, calibrate and this package; needs no training library.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from lesion_triage.bundle.certificate import ALL_UNITS, BY_SITE, Certificate
from lesion_triage.bundle.document import canonical_json, first_problem, sha256_of, timestamp
from lesion_triage.bundle.schema import Policy
from lesion_triage.bundle.store import Bundle, open_bundle
from lesion_triage.calibrate import ledger, pooling
from lesion_triage.calibrate.groups import JointThresholds
from lesion_triage.calibrate.policy_fit import selection_adjusted_confidence
from lesion_triage.calibrate.pooling import Tally
from lesion_triage.calibrate.wording import assumptions, format_percent
from lesion_triage.clinic import cases as local_cases
from lesion_triage.clinic.arguments import add_target, require_place, save
from lesion_triage.clinic.cases import LocalCases
from lesion_triage.clinic.looks import pooled_looks
from lesion_triage.clinic.new_bundle import seal_again, with_thresholds
from lesion_triage.clinic.recertify import add_case_arguments
from lesion_triage.console import echo
from lesion_triage.errors import BundleError, CalibrationError

_POOLED = (
    "Several sites were pooled by their counts. The statement about everyone is about the mean sensitivity "
    "of these sites, weighed by their positive cases; a site by itself is covered only where its row says "
    "certified."
)


def add_tally_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tally``."""
    add_case_arguments(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="counts as JSON; names no case"
    )


def tally_main(arguments: argparse.Namespace) -> int:
    """Count the misses of one site."""
    if arguments.out.exists():
        raise CalibrationError(f"{arguments.out}: exists; counts are never overwritten, choose another name.")
    require_place("--out", arguments.out)
    ledger_path = arguments.cases.resolve().with_name(ledger.LEDGER_FILE_NAME)
    looked = any(look.counted and look.site == arguments.site for look in ledger.read(ledger_path))
    if arguments.cases.is_file() and not looked:  # repeating the same counts adds no line
        ledger.require_writable(ledger_path)
    local = local_cases.read(arguments.bundle, arguments.cases, arguments.images)
    made = tally_and_record(local, arguments.site, ledger_path)
    save("--out", arguments.out, made.to_json().encode())
    echo(
        f"  {made.positives} positive {made.unit}s of {made.site}, {made.positives_abstained} not scored; "
        f"their counts are in {arguments.out}, for `lesion-triage pool`"
    )
    if made.looked_before:
        echo(
            f"  {len(made.looked_before)} threshold(s) have been chosen here before, with this model or on "
            "these cases: the counts tell it, and lower confidence_if_selected of the pooled certificate"
        )
    return 0


def add_pool_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pool``."""
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


def pool_main(arguments: argparse.Namespace) -> int:
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


def tally(local: LocalCases, site: str, looks: Sequence[ledger.Entry] = ()) -> Tally:
    """What a site may pass on: how many positive units lie below each threshold of the common grid.

    Args:
        local: the site's cases, scored by the bundle.
        site: name of the clinic.
        looks: the site's ledger. Its own choices of a threshold are told; what came of counts is not known.

    Raises:
        CalibrationError: some pictures have chosen a threshold of this bundle before, its policy sends groups
            up by their history, or pictures were drawn by a program and the model's were not.
    """
    if local.synthetic and not local.bundle.header.synthetic:
        raise CalibrationError(
            "some of these photographs were drawn by a program (their source begins with 'synthetic'). "
            "Counts do not tell, so a certificate for people would be made from them; leave them out."
        )
    if local.seen_before:
        raise CalibrationError(
            "some of these photographs were already used to choose a threshold of this bundle; count with "
            "the bundle as it was before that, or leave them out."
        )
    if local.bundle.policy.groupings:
        raise CalibrationError(
            "this bundle has a threshold for each group, or some of its groups always go up, and counts of "
            "misses cannot tell groups apart; recertify at each site instead."
        )
    scores = local.positive_scores()
    model = local.bundle.certificate.model_sha256
    chosen = [look for look in looks if not look.counted]
    return Tally(
        site=site,
        counted_at=timestamp(),
        unit=local.unit,
        unnamed_lesions=local.unnamed_lesions,
        unnamed_photographs=local.unnamed_photographs,
        model_sha256=model,
        scoring_sha256=_scoring_sha256(local.bundle.policy),
        cases_sha256=local.sha256,
        positives=scores.size,
        positives_abstained=int(np.count_nonzero(np.isposinf(scores))),
        misses=pooling.count_misses(scores),
        looked_before=tuple(
            look.confidence
            for look in ledger.looks_at_pictures(
                chosen, local.sha256, local.files_sha256, local.table.fingerprints(), model
            )
        ),
    )


def tally_and_record(local: LocalCases, site: str, ledger_path: Path) -> Tally:
    """Count, and record it in the site's ledger unless it is there: the cases will choose a threshold.

    Args:
        local: the site's cases, scored by the bundle.
        site: name of the clinic.
        ledger_path: the site's ledger.

    Raises:
        CalibrationError: as ``tally``, or the ledger cannot be read or written.
    """
    read = ledger.read(ledger_path)
    # Repeating the same counts adds no line, so it works even if the ledger cannot be written.
    again = _is_recorded(_entry(tally(local, site, read), local), read)
    with nullcontext(read) if again else ledger.locked(ledger_path) as looks:
        made = tally(local, site, looks)
        entry = _entry(made, local)
        if not _is_recorded(entry, looks):
            ledger.append(ledger_path, entry)
    return made


def _entry(made: Tally, local: LocalCases) -> ledger.Entry:
    """The line that a tally leaves in the ledger."""
    counts = made.model_dump(mode="json", exclude={"counted_at", "looked_before"})
    before = local.bundle.certificate
    return ledger.Entry(
        looked_at=made.counted_at,
        purpose="counted for a pooled threshold; the one named here was in use",
        site=made.site,
        cases_sha256=made.cases_sha256,
        positives=made.positives,
        target_sensitivity=before.target_sensitivity,
        confidence=before.confidence,
        threshold=local.bundle.policy.threshold,
        model_sha256=made.model_sha256,
        settings_sha256=sha256_of(canonical_json(counts).encode()),
        files_sha256=local.files_sha256,
        pictures=tuple(sorted(local.table.fingerprints())),
        counted=True,
    )


def _is_recorded(entry: ledger.Entry, looks: Sequence[ledger.Entry]) -> bool:
    wanted = (entry.cases_sha256, entry.model_sha256, entry.settings_sha256)
    return ledger.find_repeated_look(looks, *wanted) is not None


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
    for name, expected in (
        ("model_sha256", before.model_sha256),
        ("scoring_sha256", _scoring_sha256(bundle.policy)),
    ):
        if getattr(first, name) != expected:
            raise BundleError(
                f"{bundle.folder}: the sites counted with another scorer ({name} "
                f"{getattr(first, name)[:12]}, here {expected[:12]}); pool with the bundle that they used."
            )
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
    at_these = {cases, *(one.cases_sha256 for one in tallies)}
    # An earlier pool of some of these sites, or of these and others, has another hash.
    pooled = pooled_looks(known, {one.site for one in tallies}, before.model_sha256)
    earlier = [look.confidence for look in known if look.cases_sha256 in at_these or look in pooled]
    earlier += [each for one in tallies for each in one.looked_before]
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


def lost_groups(before: Certificate) -> tuple[str, ...]:
    """The dimensions of groups in the bundle's certificate: pooled counts cannot certify them."""
    spoken_of = (*(row.by for row in before.groups), *(each.by for each in before.asked))
    return tuple(dict.fromkeys(by for by in spoken_of if by not in (ALL_UNITS, BY_SITE)))


def _lost(dimensions: Sequence[str]) -> str:
    return (
        f"The certificate before looked at groups by {', '.join(dimensions)}. Counts of misses cannot tell "
        "these apart, so nothing is promised for any of them until a site certifies on its own cases."
    )


def _scoring_sha256(policy: Policy) -> str:
    """Hash of everything between a logit and a score; recertifying at a site does not change it."""
    parts = policy.model_dump(mode="json", include={"calibrator", "aggregation", "quality", "novelty_limit"})
    return sha256_of(canonical_json(parts).encode())


def _read(path: Path) -> Tally:
    try:
        return Tally.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise CalibrationError(
            f"{path}: not a file of `lesion-triage tally` ({first_problem(error)})."
        ) from None
