"""A refusal in the format of the protocol that was used. Imports the wire.

Paths of a protocol with its own error format get that format; all others get a problem document.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.responses import Response

from triage_server.problems import Problem, RequestError
from triage_server.wire import PROBLEM_JSON

FHIR_TYPE = "application/fhir+json"
PROBLEM_SYSTEM = "urn:lesion-triage:problem"

_ISSUE_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "login",
    HTTPStatus.FORBIDDEN: "forbidden",
    HTTPStatus.NOT_FOUND: "not-found",
    HTTPStatus.METHOD_NOT_ALLOWED: "not-supported",
    HTTPStatus.REQUEST_TIMEOUT: "timeout",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too-long",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "not-supported",
    HTTPStatus.BAD_REQUEST: "structure",
    HTTPStatus.TOO_MANY_REQUESTS: "throttled",
    HTTPStatus.SERVICE_UNAVAILABLE: "transient",
    HTTPStatus.INTERNAL_SERVER_ERROR: "exception",
}
"""IssueType of FHIR R4, by status; ``invalid`` for all others."""


def response_to(refusal: RequestError, request_id: str, path: str) -> Response:
    """The response that refuses a request for ``path``."""
    problem = Problem.from_error(refusal, request_id)
    document, media_type = error_document(problem, path)
    return Response(json.dumps(document), problem.status, refusal.headers, media_type)


def error_document(problem: Problem, path: str) -> tuple[dict[str, object], str]:
    """A problem as a client of ``path`` expects it, and its media type."""
    if path.startswith("/fhir/"):
        return operation_outcome(problem), FHIR_TYPE
    document = problem.model_dump(mode="json", exclude_none=True)
    if path == "/v2" or path.startswith("/v2/"):
        document["error"] = problem.detail  # the member that the Open Inference Protocol asks for
    return document, PROBLEM_JSON


def operation_outcome(problem: Problem) -> dict[str, object]:
    """A problem as an OperationOutcome of FHIR R4."""
    coding = {"system": PROBLEM_SYSTEM, "code": problem.code, "display": problem.title}
    text = f"{problem.detail} (request {problem.request_id})"
    issue = {
        "severity": "error",
        "code": _ISSUE_TYPES.get(problem.status, "invalid"),
        "details": {"coding": [coding], "text": text},
    }
    return {"resourceType": "OperationOutcome", "issue": [issue]}
