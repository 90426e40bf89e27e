"""What a bundle must pass before an alias points at it. Imports the evidence, the bundle and the errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lesion_triage.bundle.signing import read_trusted_keys, verify
from lesion_triage.cards.change import Level, run_self_test
from lesion_triage.cards.dossier import AUDIT_MODEL, CONFIG, RESULTS
from lesion_triage.cards.evidence import BundleEvidence
from lesion_triage.errors import PromotionError

_DEFAULT_PARITY_TOLERANCE = 1e-4
"""Default of ``export.parity_tolerance``, for a run whose configuration does not state it."""


def check(evidence: BundleEvidence, *, allow_synthetic: bool, trusted: Path | None) -> list[str]:
    """Let a bundle pass, or say what it lacks.

    Args:
        evidence: the bundle and its evidence. That its certificate is for this policy and this graph was
            checked when it was opened.
        allow_synthetic: let a bundle made from drawn pictures pass, for a demonstration.
        trusted: file or folder of public keys, one of which must have signed it; None: it need not be signed.

    Returns:
        The findings, a sentence each.

    Raises:
        PromotionError: no record of parity, or none within the tolerance; no audit of data and graph, or a
            failed one; a failed self-test; or a synthetic bundle that was not allowed.
        SignatureError: it is not signed by a trusted key, or no key can be read.
    """
    certificate = evidence.bundle.certificate
    where = evidence.bundle.folder
    if evidence.bundle.header.synthetic and not allow_synthetic:
        raise PromotionError(
            f"{where}: made from drawn pictures, which is never for use on people; --synthetic promotes it "
            "for a demonstration."
        )
    passed = [
        f"certificate {certificate.certificate_id()}: sensitivity {certificate.target_sensitivity} at "
        f"confidence {certificate.confidence}, {certificate.positives} positives",
        _parity(evidence),
        _audit(evidence),
    ]
    self_test = run_self_test(evidence)
    if self_test.level is not Level.FINE:
        raise PromotionError(f"{where}: {self_test.text}")
    passed.append(self_test.text)
    if trusted is not None:
        signature = verify(evidence.bundle, read_trusted_keys(trusted))
        passed.append(f"signed with key {signature.key_id[:16]}")
    return passed


def _parity(evidence: BundleEvidence) -> str:
    """Parity of this graph. A recertified bundle has that of the run that made the graph."""
    found = evidence.results_of_run() or {}
    parity: dict[str, Any] = found.get("parity") or {}
    if not parity or found.get("model_sha256") != evidence.bundle.certificate.model_sha256:
        raise PromotionError(
            f"{evidence.bundle.folder}: no record of how far torch and onnxruntime differ on this graph, "
            f"expected one in {RESULTS} of its run; `lesion-triage evaluate` writes it, --run names the "
            "run."
        )
    tolerance = float(evidence.dossier.get(CONFIG, "export.parity_tolerance", _DEFAULT_PARITY_TOLERANCE))
    largest, flips = parity["largest_score_difference"], parity["decision_flips"]
    if flips != 0 or not largest <= tolerance:  # NaN does not pass
        raise PromotionError(
            f"{evidence.bundle.folder}: torch and onnxruntime differ by {largest:.1e} in a score (at most "
            f"{tolerance:.0e}) and in {flips} decisions (none allowed); export it again."
        )
    return (
        f"parity on {parity['images']} photographs: largest score difference {largest:.1e}, no decision "
        "differs"
    )


def _audit(evidence: BundleEvidence) -> str:
    audit = evidence.audit()
    if audit is None or not audit.get("facts", {}).get("with_model"):
        raise PromotionError(
            f"{evidence.bundle.folder}: no audit of this bundle's data and graph, expected {AUDIT_MODEL} in "
            "its run; `lesion-triage audit` writes it, --run names the run."
        )
    if audit.get("verdict") not in ("pass", "warn"):
        failed = ", ".join(one["code"] for one in audit["findings"] if one["counts_as"] == "fail")
        raise PromotionError(
            f"{evidence.bundle.folder}: the audit fails on {failed}; correct the data, or accept the "
            "finding by name and with a reason in audit.accept."
        )
    accepted = [one["code"] for one in audit["findings"] if one.get("accepted")]
    suffix = f", accepted: {', '.join(accepted)}" if accepted else ""
    return f"audit of data and model: {audit['verdict']}{suffix}"
