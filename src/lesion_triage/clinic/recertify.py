"""``lesion-triage recertify``: issue a bundle's certificate again on a clinic's own confirmed cases.

Graph, pixel path and calibrator stay the same; thresholds, certificate and seal are new.
Imports bundle, calibrate and this package; needs no training library.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_triage.bundle.certificate import Certificate, Look
from lesion_triage.bundle.document import canonical_json, sha256_of, timestamp
from lesion_triage.bundle.novelty_gate import is_out_of_distribution
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition, Policy, SelfTest, SelfTestCase
from lesion_triage.bundle.store import Bundle, seal
from lesion_triage.calibrate import ledger
from lesion_triage.calibrate.certificate import minimum_positives
from lesion_triage.calibrate.groups import JointThresholds
from lesion_triage.calibrate.policy_fit import CaseProvenance, certify_cases
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.clinic import cases as local_cases
from lesion_triage.clinic.arguments import add_site, add_target, one_line, require_place, save
from lesion_triage.clinic.cases import LocalCases
from lesion_triage.clinic.existing_certificate import describe, old_certificate
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
    spent = sum(1.0 - look.confidence for look in earlier)
    old = None if _counted(local, ledger.read(ledger_path)) else old_certificate(local, spent)
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
            or a ledger that cannot be written.
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
    again = _repeated(read, local, site, settings) is not None
    with nullcontext(read) if again else ledger.locked(ledger_path) as looks:
        repeated = _repeated(looks, local, site, settings)
        earlier = _earlier(local, looks if repeated is None else looks[: looks.index(repeated)])
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
            ledger=_distinct(
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


def with_thresholds(policy: Policy, joint: JointThresholds) -> Policy:
    """The same policy at other thresholds; no case referred by its score is in the last band."""
    first, second, third = policy.band_limits
    return Policy(
        **{
            **dict(policy),
            "threshold": joint.threshold,
            "groupings": joint.groupings,
            "band_limits": (first, second, min(third, joint.threshold)),
        }
    )


def seal_again(
    bundle: Bundle, out: Path, policy: Policy, certificate: Certificate, local: LocalCases | None = None
) -> Bundle:
    """Seal the same graph with another policy and certificate.

    Args:
        bundle: the old one.
        out: folder of the new one; must not exist.
        policy: the new one.
        certificate: issued for it.
        local: the cases that it rests on; None if they stayed at their sites.
    """
    header = bundle.header
    cases = tuple(
        case.model_copy(update={"disposition": _disposition(policy, case)}) for case in bundle.selftest.cases
    )
    return seal(
        out,
        name=header.name,
        model=header.model,
        pixels=header.pixels,
        policy=policy,
        certificate=certificate,
        graph=bundle.graph,
        model_card=f"{bundle.model_card.rstrip()}\n\n{_card_section(certificate)}",
        selftest=SelfTest(tolerance_logit=bundle.selftest.tolerance_logit, cases=cases),
        selftest_pictures=bundle.selftest_pictures,
        synthetic=header.synthetic or (local is not None and local.synthetic),
        data_citation=tuple(dict.fromkeys((*header.data_citation, *(local.citation if local else ())))),
        used_pictures=bundle.used_pictures
        if local is None
        else bundle.used_pictures.with_certified(local.table.fingerprints()),
    )


def _disposition(policy: Policy, case: SelfTestCase) -> Disposition:
    refused = case.logit is None or is_out_of_distribution(case.novelty, policy.novelty_limit)
    return decide(policy, [None if refused else case.logit]).disposition


def _repeated(
    looks: tuple[ledger.Entry, ...], local: LocalCases, site: str, settings: str
) -> ledger.Entry | None:
    """The earlier look that this one repeats, if any. Under another site's name it is another look."""
    of_site = [look for look in looks if look.site == site]
    return ledger.find_repeated_look(of_site, local.sha256, local.bundle.certificate.model_sha256, settings)


def _counted(local: LocalCases, looks: tuple[ledger.Entry, ...]) -> bool:
    """Whether earlier tallies of this site may have chosen the bundle's pooled threshold."""
    before = local.bundle.certificate
    return before.method == "pooled_counts" and any(
        look.counted and look.model_sha256 == before.model_sha256 for look in looks
    )


def _earlier(local: LocalCases, looks: tuple[ledger.Entry, ...]) -> tuple[Look, ...]:
    """Earlier looks at any of these cases, or with this model at any earlier state of the site's table.

    The looks of the bundle's own ledger are included if its threshold was chosen on some of these cases.
    """
    certificate = local.bundle.certificate
    at_site = _distinct(
        ledger.looks_at_pictures(
            looks,
            local.sha256,
            local.files_sha256,
            local.table.fingerprints(),
            certificate.model_sha256,
        )
    )
    inherited = (*certificate.ledger, ledger.look_from_certificate(certificate, certificate.policy_sha256))
    return _distinct((*inherited, *at_site)) if local.seen_before else at_site


def _distinct(looks: Sequence[Look]) -> tuple[Look, ...]:
    """Each look once. A bundle and a ledger may both record it, with different hashes of the settings.

    The last record of a look is kept, so that the order follows the ledger and the latest look comes last.
    """
    kept: dict[tuple[object, ...], Look] = {}
    for look in looks:
        kept.pop(_key(look), None)
        kept[_key(look)] = look
    return tuple(kept.values())


def _key(look: Look) -> tuple[object, ...]:
    """Everything but the settings. Not the time alone: two looks may be made within a second."""
    return tuple(getattr(look, name) for name in Look.model_fields if name != "settings_sha256")


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


def _card_section(certificate: Certificate) -> str:
    return (
        f"## Certified again: {certificate.site}, {certificate.issued_at}\n\n"
        f"Score >= {certificate.threshold:.6f} refers. {certificate.misses_seen} of {certificate.positives} "
        f"positive {certificate.unit}s were missed ({certificate.misses_allowed} allowed): with "
        f"{format_percent(certificate.confidence)}% confidence the sensitivity for future "
        f"{certificate.unit}s of the same kind is at least "
        f"{format_percent(certificate.target_sensitivity)}%. Certificate "
        f"{certificate.certificate_id()}. The threshold above no longer applies.\n"
    )
