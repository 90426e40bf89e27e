"""``lesion-triage recertify``: issue a bundle's certificate again on a clinic's own confirmed cases.

Graph, pixel path and calibrator stay the same; thresholds, certificate and seal are new.
Imports bundle, calibrate and this package; needs no training library.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.certificate import Look
from lesion_triage.bundle.document import canonical_json, sha256_of, timestamp
from lesion_triage.bundle.schema import Policy
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate import ledger
from lesion_triage.calibrate.certificate import minimum_positives
from lesion_triage.calibrate.groups import JointThresholds
from lesion_triage.calibrate.policy_fit import CaseProvenance, certify_cases
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.clinic import cases as local_cases
from lesion_triage.clinic.arguments import add_site, add_target, one_line, require_place, save
from lesion_triage.clinic.cases import LocalCases
from lesion_triage.clinic.existing_certificate import describe, old_certificate
from lesion_triage.clinic.looks import distinct_looks, earlier_looks, may_have_been_pooled, repeated_look
from lesion_triage.clinic.new_bundle import seal_again, with_thresholds
from lesion_triage.config import Calibrate
from lesion_triage.console import echo
from lesion_triage.errors import BundleError, CalibrationError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    add_case_arguments(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new bundle; must not exist")
    add_target(parser)
    parser.add_argument(
        "--second-look",
        type=one_line,
        default="",
        metavar="WHY",
        help="the reason for using these cases again; is recorded",
    )
    parser.add_argument(
        "--count-red-flags",
        action=argparse.BooleanOptionalAction,
        help="count cases that only a red flag refers as referred; the certificate then holds only where the "
        "same questions are asked (default: as in the bundle)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")


def add_case_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every verb that reads a clinic's cases."""
    parser.add_argument("bundle", type=Path, help="folder of a sealed bundle")
    parser.add_argument(
        "--cases",
        type=Path,
        required=True,
        metavar="CSV",
        help="confirmed cases: image, needs_in_person, and lesion_id, patient_id, sex, age_approx, ...",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images, if not the table's")
    add_site(parser)


def warn_if_none_is_below(local: LocalCases) -> None:
    """Say so where the cases look like those that the bundle referred: such a table cannot hold a miss."""
    if local.none_is_below(local.bundle.policy):
        echo(
            "  WARNING: this bundle leaves no case of the table below its threshold. If outcomes were "
            "confirmed of referred cases alone, no miss can be among them, and nothing is promised; confirm "
            "others too"
        )


def main(arguments: argparse.Namespace) -> int:
    """Certify again, print the result, and write it as JSON if asked. Returns 0."""
    require_place("--out", arguments.out, folder=True)
    if arguments.json:
        require_place("--json", arguments.json)
    ledger_path = arguments.cases.resolve().with_name(ledger.LEDGER_FILE_NAME)
    looked = any(look.site == arguments.site for look in ledger.read(ledger_path))
    if arguments.cases.is_file() and not looked:  # repeating the same look adds no line
        ledger.require_writable(ledger_path)
    local = local_cases.read(arguments.bundle, arguments.cases, arguments.images)
    bundle, earlier = recertify(
        local,
        arguments.out,
        site=arguments.site,
        ledger_path=ledger_path,
        target=arguments.target,
        confidence=arguments.confidence,
        second_look=arguments.second_look,
        count_red_flags=arguments.count_red_flags,
    )
    certificate = bundle.certificate
    # A verdict is a look too, so it is shown only after this look has its line in the ledger.
    pooled = may_have_been_pooled(local, ledger.read(ledger_path))
    old = None if pooled else old_certificate(local, earlier)
    echo(f"  {describe(old, local)}")
    echo(
        f"  threshold {certificate.threshold:.6f} (was {local.bundle.policy.threshold:.6f}) certifies "
        f"sensitivity >= {certificate.target_sensitivity} at {format_percent(certificate.confidence)}% "
        f"confidence for {certificate.site}: {certificate.misses_seen} of {certificate.positives} missed, "
        f"{certificate.misses_allowed} allowed"
    )
    before, after = (
        local.referred_without_need(local.bundle.policy),
        local.referred_without_need(bundle.policy),
    )
    echo(
        f"  cases of the table that need no visit: {after[0]} of {after[1]} referred or not scored (before: "
        f"{before[0]})"
    )
    warn_if_none_is_below(local)
    echo(f"  sealed {arguments.out} ({bundle.sha256[:16]}), certificate {certificate.certificate_id()}")
    if arguments.json:
        result = {
            "old_certificate": asdict(old) if old else None,
            "certificate_id": certificate.certificate_id(),
            "bundle_sha256": bundle.sha256,
            "certificate": certificate.model_dump(mode="json"),
        }
        save("--json", arguments.json, canonical_json(result).encode())
    return 0


def recertify(
    local: LocalCases,
    out: Path,
    *,
    site: str,
    ledger_path: Path,
    target: float | None = None,
    confidence: float | None = None,
    second_look: str = "",
    count_red_flags: bool | None = None,
) -> tuple[Bundle, tuple[Look, ...]]:
    """Seal a new bundle with the site's certificate.

    Args:
        local: the site's cases, scored by the old bundle.
        out: folder of the new bundle; must not exist.
        site: name of the clinic.
        ledger_path: the site's ledger. A second look is detected by this ledger and by that of the bundle.
        target: sensitivity; None takes that of the old certificate.
        confidence: one-sided; None takes that of the old certificate.
        second_look: the reason for using cases that have chosen a threshold before; empty: refused.
        count_red_flags: whether a positive case that only a red flag sends up counts as referred; None: as
            in the old certificate.

    Returns:
        The new bundle, and the earlier looks at its cases.

    Raises:
        CalibrationError: too few positives (the message says how many more), a second look without a reason,
            red flags to count in a bundle without any, or a ledger that cannot be written.
        BundleError: ``out`` exists.
    """
    bundle = local.bundle
    before = bundle.certificate
    if out.exists():  # checked before a look is spent
        raise BundleError(f"{out}: exists; a sealed bundle is never overwritten, choose another folder.")
    config = _config(bundle, target, confidence, count_red_flags)
    _require_enough(local, config)
    # The table's hash has the outcomes: a corrected table is another look at the same pictures.
    facts = [config.model_dump(mode="json"), bundle.policy.sha256(), _table_sha256(local), local.unit]
    settings = sha256_of(canonical_json(facts).encode())

    def make_policy(joint: JointThresholds, scores: NDArray[np.float64]) -> Policy:
        return with_thresholds(bundle.policy, joint)

    read = ledger.read(ledger_path)
    # Repeating the same look adds no line, so it works even if the ledger cannot be written.
    again = repeated_look(read, local, site, settings) is not None
    with nullcontext(read) if again else ledger.locked(ledger_path) as looks:
        repeated = repeated_look(looks, local, site, settings)
        earlier = earlier_looks(local, looks if repeated is None else looks[: looks.index(repeated)])
        if earlier and repeated is None and not second_look:
            raise CalibrationError(
                f"{len(earlier)} threshold(s) have been chosen with this model on these cases or on some of "
                f"them, last on {earlier[-1].looked_at}. Choosing again spends confidence: give the reason "
                "with --second-look '...'; it is recorded in the certificate."
            )
        origin = CaseProvenance(
            issued_at=repeated.looked_at if repeated else timestamp(),
            unit=local.unit,
            unnamed_lesions=local.unnamed_lesions,
            unnamed_photographs=local.unnamed_photographs,
            predictions_sha256=_table_sha256(local),
            site=site,
            purpose=repeated.purpose if repeated else second_look or "certified again at a site",
            ledger=distinct_looks(
                (*before.ledger, ledger.look_from_certificate(before, before.policy_sha256), *earlier)
            ),
            looks_at_these_cases=earlier,
        )
        policy, certificate = certify_cases(
            local.cases, local.table, bundle.policy.calibrator, config, origin, make_policy
        )
        if repeated is None:
            ledger.append(
                ledger_path,
                ledger.entry_from_certificate(
                    certificate, settings, local.files_sha256, local.table.fingerprints()
                ),
            )
    return seal_again(bundle, out, policy, certificate, local), earlier


def _config(
    bundle: Bundle, target: float | None, confidence: float | None, count_red_flags: bool | None
) -> Calibrate:
    """The settings of the bundle's own certificate, but for those that are given."""
    before, policy = bundle.certificate, bundle.policy
    if count_red_flags and not policy.red_flags.flags:
        raise CalibrationError("the bundle has no red flags to count; leave out --count-red-flags.")
    return Calibrate(
        target_sensitivity=before.target_sensitivity if target is None else target,
        confidence=before.confidence if confidence is None else confidence,
        groups=before.asked,
        rule=before.rule,
        aggregation=before.aggregation,
        quality=policy.quality,
        red_flags=policy.red_flags,
        count_red_flags=before.red_flags_counted if count_red_flags is None else count_red_flags,
    )


def _require_enough(local: LocalCases, config: Calibrate) -> None:
    positives = local.positive_scores().size
    needed = minimum_positives(config.target_sensitivity, config.confidence)
    if positives < needed:
        raise CalibrationError(
            f"{positives} positive {local.unit}s; certifying sensitivity {config.target_sensitivity} at "
            f"confidence {config.confidence} takes at least {needed} with no miss: {needed - positives} "
            "more. Until then refer every case: the old certificate is tested only when a new one is issued. "
            "`lesion-triage plan` shows what more cases would gain, `lesion-triage pool` combines sites."
        )


def _table_sha256(local: LocalCases) -> str:
    rows = (
        (
            row.pixel_fingerprint,
            row.logit,
            row.needs_in_person,
            row.case_id,
            row.unit_id,
            row.diagnosis,
            row.source,
            row.sex,
            row.age_approx,
            row.anatom_site_general,
            row.fitzpatrick_skin_type,
            row.history,
        )
        for row in local.table.rows
    )
    return sha256_of(canonical_json(sorted([str(cell) for cell in row] for row in rows)).encode())
