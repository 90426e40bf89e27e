"""The certificate as a document. What it promises and why: ``calibrate.certificate``.

Imports pydantic and the document.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lesion_triage.bundle.document import Document, Fraction, Sha256


class Certificate(Document):
    """A one-sided exact statement about the sensitivity of the whole policy.

    With probability at least ``confidence`` over the draw of the calibration cases, the policy refers
    or abstains on at least ``target_sensitivity`` of future positive cases that are exchangeable with them.
    """

    target_sensitivity: Fraction
    confidence: Fraction
    unit: Literal["lesion", "patient"]
    aggregation: Literal["max", "mean"]
    positives: int = Field(ge=1)
    """Positive units in the calibration data."""
    positives_abstained: int = Field(ge=0)
    """Of these, ungradable: they go up, and count as referred."""
    misses_allowed: int = Field(ge=0)
    misses_seen: int = Field(ge=0)
    """Positive calibration units below the threshold; at most ``misses_allowed``."""
    threshold: Fraction
    sensitivity_lower_bound: Fraction
    """Clopper-Pearson, one-sided at ``confidence``, for the misses allowed: it holds for tied scores too."""
    manifest_sha256: Sha256
    splits_sha256: Sha256
    predictions_sha256: Sha256
    model_sha256: Sha256
    calibrator_sha256: Sha256
    assumptions: tuple[str, ...]

    def certificate_id(self) -> str:
        """Short name of this certificate: the first 16 digits of its hash."""
        return self.sha256()[:16]
