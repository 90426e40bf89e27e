"""Test of a bundle's existing certificate on a clinic's cases. Imports bundle, calibrate, cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lesion_triage.bundle.certificate import Look
from lesion_triage.bundle.red_flags import NO_RED_FLAGS
from lesion_triage.calibrate.cases import unit_indices
from lesion_triage.calibrate.certificate import Verdict, sensitivity_verdict
from lesion_triage.calibrate.clustered_proportions import has_clusters
from lesion_triage.calibrate.policy_fit import selection_adjusted_confidence
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.clinic.cases import LocalCases

_VERDICTS: dict[Verdict, str] = {
    "holds": "it HOLDS here: a lower sensitivity is refuted",
    "fails": "it FAILS here: the target is refuted; do not use the old threshold",
    "undecided": "UNDECIDED: these cases refute neither the target nor a lower sensitivity",
}


@dataclass(frozen=True, slots=True)
class OldCertificate:
    """How the bundle's existing certificate fares at the site."""

    certificate_id: str
    misses: int
    """Positive units below the threshold. If the certificate does not count red flags, units that only a red
    flag sends up are included."""
    misses_with_red_flags: int
    """Those that no red flag sends up either."""
    positives: int
    verdict: Verdict | None
    """None if the certificate counts another unit than these cases."""
    confidence_if_selected: float
    """Confidence of the verdict if looks were repeated until it came out so, by a union bound."""


def old_certificate(local: LocalCases, earlier: Sequence[Look]) -> OldCertificate | None:
    """Test the bundle's existing certificate on the site's cases; None if it was issued on some of them.

    Args:
        local: the site's cases.
        earlier: looks at them. Each may have shown a verdict on the same threshold.
    """
    if local.seen_before:
        return None
    certificate, policy = local.bundle.certificate, local.bundle.policy
    misses_with_flags, positives = local.missed_units(policy)
    misses = misses_with_flags
    if not certificate.red_flags_counted:  # then the promise is one without red flags, and is tested so
        misses, _ = local.missed_units(policy.model_copy(update={"red_flags": NO_RED_FLAGS}))
    verdict = None
    if _counted_alike(local):
        verdict = sensitivity_verdict(
            positives, misses, certificate.target_sensitivity, certificate.confidence
        )
    # An earlier verdict erred at the confidence of this certificate, whatever that of its look's own choice.
    tests = [min(look.confidence, certificate.confidence) for look in earlier]
    left = selection_adjusted_confidence([certificate.confidence, *tests])
    return OldCertificate(certificate.certificate_id(), misses, misses_with_flags, positives, verdict, left)


def describe(old: OldCertificate | None, local: LocalCases) -> str:
    """The result in one line."""
    if old is None:
        return "the bundle's threshold was chosen on cases of this table, so they cannot test its certificate"
    counts = local.bundle.certificate.unit
    said = (
        f"no verdict: it counts {counts}s; these cases, and a new certificate, count {local.unit}s"
        if old.verdict is None
        else _VERDICTS[old.verdict]
    )
    if old.verdict in ("holds", "fails") and old.confidence_if_selected < local.bundle.certificate.confidence:
        said += (
            f"; with {format_percent(old.confidence_if_selected)}% confidence only, if looks were repeated "
            "until it did"
        )
    spared = old.misses - old.misses_with_red_flags
    flags = f" ({spared} of them referred by a red flag, which it does not count)" if spared else ""
    return (
        f"the certificate {old.certificate_id} of this bundle: {old.misses} of {old.positives} positive "
        f"{local.unit}s missed at its threshold{flags}; {said}"
    )


def _counted_alike(local: LocalCases) -> bool:
    """Whether these cases count the certificate's unit; patients with one positive lesion pass as lesions."""
    counts = local.bundle.certificate.unit
    return counts == local.unit or (counts == "lesion" and not has_clusters(unit_indices(local.positives)))
