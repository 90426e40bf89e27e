"""For receivers of callbacks: verify that a delivery comes from the server, is unaltered and is recent.

Imports the schema of the answer and the format of a secret. Signatures follow the Standard Webhooks
specification 1.0.0, so any other library for it works too.
"""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import ValidationError

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.webhook_secret import MAX_BYTES, MIN_BYTES, PREFIX, decode_secret
from lesion_triage.errors import LesionTriageError

TOLERANCE_S = 300.0
"""Maximum age of a delivery, and of clock skew into the future."""


class ForgedError(LesionTriageError):
    """A delivery that is forged, altered, too old or of another version. Answer 400 and read no further."""


class AnsweredCase(Document):
    """The ``data`` of a delivery."""

    case_id: str
    """Also the ``webhook-id``, the same in every delivery of the case. Store it; act on each only once."""
    request_id: str
    """Of the request that brought the case; the operator finds it in the server's log."""
    audit_hash: str | None
    """Hash of the answer's line in the server's audit log; store it with the answer. None: no audit log."""
    answer: Answer


class _Message(Document):
    type: Literal["case.answered"]
    timestamp: str
    data: AnsweredCase


def verify_webhook(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> AnsweredCase:
    """Verify the signature of a delivery and return its case.

    Args:
        body: the bytes as received, before anything has parsed them as JSON.
        headers: of the request; their names are case-insensitive.
        secrets: shared with the server, ``whsec_...``; several during rotation.
        tolerance_s: a delivery signed longer ago, or as far in the future, is refused as a possible replay.
            Within that time, recognise repeated deliveries by ``case_id``.
        now: seconds since 1970; None: the system clock.

    Raises:
        ForgedError: no secret fits, a secret is malformed, the delivery is too old, or its message is not of
            this version.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12:
        raise ForgedError("The delivery has no timestamp (webhook-timestamp).")
    signed = _encode(f"{message_id}.{timestamp}.") + body
    signatures = given.get("webhook-signature", "").split()
    is_signed = False
    for secret in [secrets] if isinstance(secrets, str) else secrets:
        digest = hmac.digest(_key(secret), signed, "sha256")
        expected = f"v1,{base64.b64encode(digest).decode()}"
        is_signed |= any(hmac.compare_digest(_encode(one), expected.encode()) for one in signatures)
    if not is_signed:
        raise ForgedError("The delivery is not signed with a known secret (webhook-signature).")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance_s:
        raise ForgedError(
            f"The delivery was signed more than {tolerance_s:g} seconds before or after now; is the clock "
            "right?"
        )
    try:
        message = _Message.model_validate_json(body)
    except ValidationError:
        raise ForgedError(
            "The delivery cannot be read by this version of the library; install the version of the server."
        ) from None
    if message.data.case_id != message_id:
        raise ForgedError("The delivery names two cases.")
    return message.data


def _key(secret: str) -> bytes:
    if (key := decode_secret(secret)) is None:
        raise ForgedError(
            f"The secret is not {MIN_BYTES} to {MAX_BYTES} bytes in base64 after '{PREFIX}'; expected "
            "one that 'triage-server webhooks secret' created."
        )
    return key


def _encode(header: str) -> bytes:
    """Some frameworks pass bytes that are not UTF-8 on as surrogates; any other code would refuse those."""
    return header.encode("utf-8", "surrogatepass")
