"""Status of cases whose answer goes to a callback: ``GET /v1/cases/{case_id}``.

Imports the service and the description. The webhook sender itself is loaded only if it is switched on.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from triage_server import openapi
from triage_server.examples import ANSWERS
from triage_server.problems import RequestError
from triage_server.service import service_of
from triage_server.wire import JSON_TYPE, CaseStatus

router = APIRouter()

_PATH = "/v1/cases/{case_id}"
_STATUS = CaseStatus(
    case_id="case_5f3b5f3b5f3b5f3b5f3b5f3b5f3b5f3b",
    callback="ehr",
    state="pending",
    accepted_at="2026-01-31T12:00:00.000Z",
    attempts=0,
    last_status=None,
    settled_at=None,
    audit_hash="5f3b" * 16,
    answer=ANSWERS["below_threshold"],
)
EXAMPLES = [
    (path, method, status, _STATUS.model_dump(mode="json"))
    for path, method, status in ((_PATH, "get", "200"), ("/v1/triage", "post", "202"))
]
_CASE_ID = {
    "name": "case_id",
    "in": "path",
    "required": True,
    "description": "As in the Location header of the 202 response.",
    "schema": {"type": "string"},
}


@router.get(
    _PATH,
    **openapi.describe_read_operation(
        _PATH,
        {"model": CaseStatus},
        *openapi.ACCESS_CODES,
        "case_not_known",
        "outbox_unavailable",
        parameters=(_CASE_ID,),
    ),
)
async def case_status(request: Request) -> Response:
    """Status of a case that was sent with ``callback``, for the caller who sent it."""
    webhooks = service_of(request).webhooks
    if webhooks is None:
        raise RequestError("case_not_known")
    text = await webhooks.status(request.path_params["case_id"], request.state.caller.name)
    return Response(text, media_type=JSON_TYPE)
