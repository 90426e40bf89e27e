"""The documents that are sent, and the limits of what is received. Problems are in ``problems``.

Imports the bundle's schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from starlette.responses import Response

from lesion_triage.bundle.certificate import Certificate
from lesion_triage.bundle.document import Document, Sha256
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Answer, ModelFacts, PixelSpec

PICTURE_TYPES = ("image/jpeg", "image/png", "image/webp", "application/dicom", "application/octet-stream")
MULTIPART_TYPE = "multipart/form-data"
JSON_TYPE = "application/json"
PROBLEM_JSON = "application/problem+json"
MAX_HISTORY_BYTES = 16_384
MAX_CASES_PER_BATCH = 32
MAX_JSON_VALUES = 20_000
MAX_JSON_DEPTH = 64


class RequestLimits(Document):
    """Limits of one request."""

    max_images: int
    max_cases_per_batch: int
    max_body_bytes: int
    media_types: tuple[str, ...]


class BundleFacts(Document):
    """The model that answers, and what it expects."""

    bundle_name: str
    bundle_sha256: Sha256
    created_at: str
    made_with: str
    synthetic: bool
    """True if the model saw drawn pictures only: never for use on people."""
    model: ModelFacts
    pixels: PixelSpec
    request_limits: RequestLimits
    languages: tuple[str, ...]
    """Languages of its answers; the header Accept-Language chooses."""
    red_flags: RedFlags
    """Rules by which a history sends a case up, and the clinicians who have reviewed them."""
    notice: str


class IssuedCertificate(Document):
    """The certificate of the threshold in use."""

    certificate_id: str
    """First 16 digits of the SHA-256 of the certificate's canonical JSON."""
    bundle_sha256: Sha256
    synthetic: bool
    certificate: Certificate


class CaseStatus(Document):
    """Status of a case whose answer is delivered to a callback."""

    case_id: str
    """Also the ``webhook-id`` of every delivery."""
    callback: str
    state: Literal["pending", "delivered", "undelivered"]
    """``undelivered``: given up; the operator can have it tried again."""
    accepted_at: str
    attempts: int = Field(ge=0)
    last_status: int | None
    """Status of the receiver's last reply; null: no reply, or none that is HTTP."""
    settled_at: str | None
    """When it was delivered or given up; null: not yet. Delivered cases are deleted some days later."""
    audit_hash: Sha256 | None
    """Hash of the answer's line in the audit log."""
    answer: Answer | None
    """Null if the secret that encrypted it is gone."""


class Health(Document):
    """Whether the process is running, and whether it would accept a case now."""

    status: Literal["live", "ready"]


def document_response(document: Document, headers: Mapping[str, str] | None = None) -> Response:
    """A document as compact JSON."""
    body = document.model_dump_json(by_alias=True)
    return Response(body, headers=dict(headers or {}), media_type="application/json")
