"""The certificate that a bundle came with, tested on a clinic's cases. Imports bundle, calibrate, cases."""

from __future__ import annotations

from dataclasses import dataclass

from lesion_triage.bundle.red_flags import NO_RED_FLAGS
from lesion_triage.calibrate.cases import units_of
from lesion_triage.calibrate.certificate import Verdict, verdict_on
from lesion_triage.calibrate.shares import clustered
from lesion_triage.calibrate.wording import in_percent
from lesion_triage.clinic.cases import LocalCases

_VERDICTS: dict[Verdict, str] = {
    "holds": "it HOLDS here: a lower sensitivity is refuted",
    "fails": "it FAILS here: the target is refuted; do not use the old threshold",
    "undecided": "UNDECIDED: these cases refute neither the target nor a lower sensitivity",
}


@dataclass(frozen=True, slots=True)
class OldCertificate:
    """How the certificate that a bundle came with fares at the site."""

    certificate_id: str
    misses: int
    """Positive units below the threshold; if the certificate counts no red flags, flagged ones too."""
    misses_with_red_flags: int
    """Those that the red flags do not send up either."""
    positives: int
    verdict: Verdict | None
    """None where the certificate counts what these cases do not tell apart, or tell apart otherwise."""
    confidence_if_selected: float
    """What is left of the certificate's for this verdict, if somebody looked until it came out so."""


def old_certificate(local: LocalCases, spent: float) -> OldCertificate | None:
    """Test the certificate that the bundle came with on the site's cases; None if they had a part in it.

    Args:
        local: the site's cases.
        spent: what earlier looks at them may be wrong by, all together; 0 if there were none.
    """
    if local.seen_before:
        return None
    certificate, policy = local.bundle.certificate, local.bundle.policy
    misses_with_flags, positives = local.missed_units(policy)
    misses = misses_with_flags
    if not certificate.red_flags_counted:  # the promise holds without a history, so it is tested without one
        misses, _ = local.missed_units(policy.model_copy(update={"red_flags": NO_RED_FLAGS}))
    verdict = None
    if _counted_alike(local):
        verdict = verdict_on(positives, misses, certificate.target_sensitivity, certificate.confidence)
    left = max(0.0, round(certificate.confidence - spent, 12))
    return OldCertificate(certificate.certificate_id(), misses, misses_with_flags, positives, verdict, left)


def told(old: OldCertificate | None, local: LocalCases) -> str:
    """The result in one line."""
    if old is None:
        return (
            "cases of this table had a part in the bundle's threshold, so they are no test of its certificate"
        )
    counts = local.bundle.certificate.unit
    said = (
        f"no verdict: it promises for {counts}s, and these cases count {local.unit}s, as a new one will"
        if old.verdict is None
        else _VERDICTS[old.verdict]
    )
    if old.verdict in ("holds", "fails") and old.confidence_if_selected < local.bundle.certificate.confidence:
        said += (
            f"; with {in_percent(old.confidence_if_selected)}% confidence only, if looked for until it did"
        )
    spared = old.misses - old.misses_with_red_flags
    flags = f" ({spared} of them sent up by a red flag, which it does not count)" if spared else ""
    return (
        f"the certificate {old.certificate_id} of this bundle: {old.misses} of {old.positives} positive "
        f"{local.unit}s missed at its threshold{flags}; {said}"
    )


def _counted_alike(local: LocalCases) -> bool:
    """Whether a miss here is one as the certificate means it: patients with one lesion each are lesions."""
    counts = local.bundle.certificate.unit
    return counts == local.unit or (counts == "lesion" and not clustered(units_of(local.positives)))
