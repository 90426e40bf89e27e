"""The same graph sealed with another policy and certificate. Imports bundle, calibrate and this package."""

from __future__ import annotations

from pathlib import Path

from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.novelty_gate import is_out_of_distribution
from lesion_triage.bundle.policy import decide
from lesion_triage.bundle.schema import Disposition, Policy, SelfTest, SelfTestCase
from lesion_triage.bundle.store import Bundle, seal
from lesion_triage.calibrate.groups import JointThresholds
from lesion_triage.calibrate.wording import format_percent, what_refers
from lesion_triage.clinic.cases import LocalCases


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


def _card_section(certificate: Certificate) -> str:
    return (
        f"## Certified again: {certificate.site}, {certificate.issued_at}\n\n"
        f"{what_refers(certificate)} {certificate.misses_seen} of {certificate.positives} "
        f"positive {certificate.unit}s were missed ({certificate.misses_allowed} allowed): with "
        f"{format_percent(certificate.confidence)}% confidence the sensitivity for future "
        f"{certificate.unit}s of the same kind is at least "
        f"{format_percent(certificate.target_sensitivity)}%. Certificate "
        f"{certificate.certificate_id()}. The threshold above no longer applies.\n"
    )
