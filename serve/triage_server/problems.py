"""All kinds of refusal, and the problem document for them. Imports the bundle's documents and the wire.

A detail never quotes what was sent. Codes are stable; docs/http-api.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from pydantic import Field

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from lesion_triage.errors import LesionTriageError
from triage_server.wire import (
    MAX_CASES_PER_BATCH,
    MAX_HISTORY_BYTES,
    MAX_JSON_DEPTH,
    MAX_JSON_VALUES,
    MULTIPART_TYPE,
    PICTURE_TYPES,
)


@dataclass(frozen=True, slots=True)
class ProblemType:
    """One kind of refusal."""

    status: HTTPStatus
    title: str
    detail: str
    """Sentence for people, with placeholders filled by ``RequestError``. It never quotes what was sent."""


_UNUSABLE_TITLE = "A photograph cannot be used"

PROBLEM_TYPES: dict[str, ProblemType] = {
    "not_authenticated": ProblemType(
        HTTPStatus.UNAUTHORIZED,
        "Not authenticated",
        "Expected one 'Authorization: Bearer' header with a key or token that is valid on this server now.",
    ),
    "not_allowed": ProblemType(
        HTTPStatus.FORBIDDEN,
        "Not allowed",
        "The key or token is valid but lacks permission for this request; ask the operator for one that has "
        "it.",
    ),
    "from_elsewhere": ProblemType(
        HTTPStatus.FORBIDDEN,
        "Host or origin not allowed",
        "This server asks for no key, so it answers only under localhost or a loopback address, and to "
        "no page of another site; set up keys (TRIAGE_API_KEYS_FILE), or set "
        "TRIAGE_BEHIND_AUTHENTICATING_PROXY if a proxy authenticates callers.",
    ),
    "rate_limited": ProblemType(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many requests",
        "More requests than this key may send in a minute; send this one again after a pause.",
    ),
    "authentication_unavailable": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Authentication unavailable",
        "The list of keys cannot be read at the moment; send the request again after a pause.",
    ),
    "audit_unavailable": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Answers cannot be recorded",
        "The audit log cannot be written, so no answer is given; the case must be read without a score, or "
        "sent again after a pause.",
    ),
    "head_too_large": ProblemType(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "The request's head is too large",
        "Expected at most {limit:,} bytes of request line and headers.",
    ),
    "head_not_received": ProblemType(
        HTTPStatus.REQUEST_TIMEOUT,
        "The request did not arrive in time",
        "The headers did not arrive completely within {seconds:g} seconds; send the request again.",
    ),
    "too_many_requests_ahead": ProblemType(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many requests on one connection",
        "Expected at most {most} requests waiting on one connection for the answer to an earlier one; "
        "send this one again once they are answered.",
    ),
    "repeated_differently": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The Idempotency-Key was used for another request",
        "Expected the same request as the first with this Idempotency-Key, found a difference in "
        "{differing}; use each key for one request only.",
    ),
    "idempotency_key_not_valid": ProblemType(
        HTTPStatus.BAD_REQUEST,
        "The Idempotency-Key is not valid",
        "Expected one Idempotency-Key of 16 to 64 letters, digits, '.', '_' and '-'.",
    ),
    "not_found": ProblemType(
        HTTPStatus.NOT_FOUND,
        "No such resource",
        "Nothing is served at this path; /openapi.json lists what is.",
    ),
    "method_not_allowed": ProblemType(
        HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed", "This path accepts {allowed} only."
    ),
    "request_not_valid": ProblemType(
        HTTPStatus.BAD_REQUEST, "The request is not valid", "The request could not be read."
    ),
    "body_not_received": ProblemType(
        HTTPStatus.REQUEST_TIMEOUT,
        "The request did not arrive in time",
        "The body did not arrive completely within {seconds:g} seconds; send it again.",
    ),
    "body_too_large": ProblemType(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "The request is too large",
        "Expected at most {limit:,} bytes in one request; send fewer or smaller files.",
    ),
    "media_type_not_supported": ProblemType(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "Media type not supported",
        "Expected one of the Content-Types that /openapi.json names for this path.",
    ),
    "transfer_coding_not_supported": ProblemType(
        HTTPStatus.NOT_IMPLEMENTED,
        "Transfer-Encoding not supported",
        "Expected a body with a Content-Length, or chunked without any other coding; send it uncompressed.",
    ),
    "content_encoding_not_supported": ProblemType(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "Content-Encoding not supported",
        "Expected a body without Content-Encoding; send it uncompressed.",
    ),
    "multipart_not_valid": ProblemType(
        HTTPStatus.BAD_REQUEST,
        "The form is not valid",
        f"The body is not complete {MULTIPART_TYPE} with the boundary given in Content-Type; send it again.",
    ),
    "json_not_valid": ProblemType(
        HTTPStatus.BAD_REQUEST,
        "The JSON is not valid",
        "Expected one JSON object in UTF-8, without duplicate keys, NaN or Infinity, with at most "
        f"{MAX_JSON_VALUES:,} values and {MAX_JSON_DEPTH} levels; send it again.",
    ),
    "document_not_valid": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The document is not valid",
        "The document does not match its schema in /openapi.json. At fault: {fields}.",
    ),
    "base64_not_valid": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} is not valid base64 (RFC 4648, section 4, padded; line breaks in FHIR only).",
    ),
    "too_many_cases": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The batch has too many cases",
        f"Expected 1 to {MAX_CASES_PER_BATCH} cases in one batch; send several batches.",
    ),
    "model_not_found": ProblemType(
        HTTPStatus.NOT_FOUND,
        "No such model",
        "This server serves one bundle; GET /v1/bundle has its name.",
    ),
    "photograph_by_address": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} is not in the request, and this server fetches nothing; send it inline as "
        "Attachment.data.",
    ),
    "content_type_not_supported": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        f"Photograph {{number}} has an unsupported Attachment.contentType; expected one of "
        f"{', '.join(PICTURE_TYPES)}, or none.",
    ),
    "prefetch_missing": ProblemType(
        HTTPStatus.PRECONDITION_FAILED,
        "The prefetch has no photographs",
        "Expected photographs in 'prefetch' as GET /cds-services describes it; this server asks no FHIR "
        "server for them.",
    ),
    "dicom_not_valid": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} is an incomplete or inconsistent DICOM file; send it again.",
    ),
    "dicom_not_supported": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} is a DICOM file with {found}; expected {expected}.",
    ),
    "dicom_not_available": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} is a DICOM file, which this server does not read; send a JPEG, PNG or WebP "
        "picture.",
    ),
    "unknown_part": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The form has an unknown part",
        "Expected file parts named 'image' and at most one part named 'history', found a part with "
        "another name. Silently ignoring it would mislead whoever reads the answer.",
    ),
    "history_not_valid": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The history is not valid",
        f"Expected at most one history of at most {MAX_HISTORY_BYTES:,} bytes: a JSON object with the "
        "fields of the schema History and no others. At fault: {fields}.",
    ),
    "callback_not_known": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "No such callback",
        "Expected at most one 'callback', the name of a callback to which this server delivers your "
        "answers; ask its operator.",
    ),
    "case_not_known": ProblemType(
        HTTPStatus.NOT_FOUND,
        "No such case",
        "Expected the id of a case that you sent with 'callback' in the last days.",
    ),
    "outbox_full": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Too many answers wait for delivery",
        "No room for another answer until callbacks accept theirs, or the operator retries or drops the "
        "failed deliveries; send this case without 'callback', or again after a pause.",
    ),
    "outbox_unavailable": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The outbox cannot be used",
        "The answer could not be stored for its callback; send this case without 'callback', or again "
        "after a pause.",
    ),
    "no_image": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The case has no photograph",
        f"Expected 1 to {MAX_IMAGES_PER_CASE} photographs, found none.",
    ),
    "too_many_images": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "The case has too many photographs",
        f"Expected at most {MAX_IMAGES_PER_CASE} photographs, found more; send the most telling ones.",
    ),
    "image_empty": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} has no bytes; send the file again.",
    ),
    "image_too_large": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} has more pixels or bytes than GET /v1/bundle allows; send a smaller copy.",
    ),
    "image_format_not_supported": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} is not a JPEG, PNG or WebP picture; convert it and send it again.",
    ),
    "image_animated": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} is animated; send a single still photograph.",
    ),
    "image_not_decodable": ProblemType(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        _UNUSABLE_TITLE,
        "Photograph {number} is damaged or incomplete; send the file again.",
    ),
    "busy": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The server is busy",
        "The server already holds as many cases as it may; send this one again after a pause.",
    ),
    "stopping": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The server is stopping",
        "The server stopped before this request was finished; send it again after a pause.",
    ),
    "not_answered_in_time": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The case was not scored in time",
        "No answer within {seconds:g} seconds; send the case again after a pause, or read it without a "
        "score.",
    ),
    "not_scored": ProblemType(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "The case could not be scored",
        "The model returned no usable number for this case; it must be read without a score.",
    ),
    "queue_unavailable": ProblemType(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "The reading queue cannot be used",
        "The database of the reading queue does not answer; nothing was stored, so try again after a pause.",
    ),
    "not_read_yet": ProblemType(
        HTTPStatus.CONFLICT,
        "Nobody has read this case",
        "Expected a case that a person has read; record a reading first.",
    ),
    "outcome_meanwhile": ProblemType(
        HTTPStatus.CONFLICT,
        "An outcome of this case was recorded in the meantime",
        "An outcome was recorded after the case was shown; look at it, then record yours if it still holds.",
    ),
    "read_meanwhile": ProblemType(
        HTTPStatus.CONFLICT,
        "Somebody has read this case in the meantime",
        "A reading was recorded after the case was shown; look at it, then record yours if it still holds.",
    ),
    "internal_error": ProblemType(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Internal error",
        "The server failed, and nothing is known about this case; it must be read without a score.",
    ),
}
_UNKNOWN_IMAGE_ERROR = ProblemType(
    HTTPStatus.UNPROCESSABLE_ENTITY, _UNUSABLE_TITLE, "Photograph {number} cannot be used; send another one."
)


class RequestError(LesionTriageError):
    """A request that is answered with a problem.

    Attributes:
        code: a key of ``PROBLEM_TYPES``, or the code of an ``ImageError``.
        problem_type: the entry of ``PROBLEM_TYPES``.
        index: position of the photograph at fault, from 0; None if the fault is elsewhere.
        headers: sent with the problem.
        placeholders: values of the detail's placeholders.
    """

    def __init__(
        self,
        code: str,
        *,
        index: int | None = None,
        headers: Mapping[str, str] | None = None,
        **placeholders: object,
    ) -> None:
        self.code = code
        self.problem_type = PROBLEM_TYPES.get(code, _UNKNOWN_IMAGE_ERROR)
        self.index = index
        self.headers = dict(headers or {})
        self.placeholders = placeholders
        super().__init__(self.problem_type.detail.format(number=(index or 0) + 1, **placeholders))


class Problem(Document):
    """An error in the form of RFC 9457. ``code`` is stable; ``detail`` is for people and may change."""

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    code: str
    request_id: str
    """Also in the X-Request-Id header and in the server's log."""
    index: int | None = Field(default=None, ge=0)
    """Position of the photograph at fault in the request, from 0; absent if the fault is elsewhere."""

    @classmethod
    def from_error(cls, refusal: RequestError, request_id: str) -> Problem:
        """The document that reports this refusal to the client."""
        return cls(
            type=f"urn:lesion-triage:problem:{refusal.code}",
            title=refusal.problem_type.title,
            status=refusal.problem_type.status,
            detail=str(refusal),
            code=refusal.code,
            request_id=request_id,
            index=refusal.index,
        )
