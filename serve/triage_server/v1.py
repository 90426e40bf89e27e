"""The server's own interface: one case as a picture, a form or JSON, answered with the document ``Answer``.

Imports the case pipeline and the modules that read bodies.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.history import NO_HISTORY
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server import json_body
from triage_server.case_pipeline import CaseParser, ParsedCase, ProtocolAdapter, read_json_body, respond
from triage_server.examples import ANSWERS, HISTORY, PICTURE
from triage_server.intake import SentCase, check_photograph_count, media_type_of, read_body, read_form
from triage_server.openapi import CASE_CODES, JSON_CODES, describe_case_operation
from triage_server.pool import CaseSlot
from triage_server.service import service_of
from triage_server.wire import JSON_TYPE, MULTIPART_TYPE, PICTURE_TYPES, CaseStatus

router = APIRouter()


class JsonCase(Document):
    """One case as JSON."""

    images: list[Any]
    history: dict[str, Any] | None = None


def parse_case(tree: object) -> ParsedCase:
    """A case sent as JSON.

    Raises:
        RequestError: it is not a case, or a photograph is not in base64.
    """
    sent = json_body.validate_as(JsonCase, tree)
    check_photograph_count(len(sent.images))
    pictures = [json_body.decode_base64(text, index) for index, text in enumerate(sent.images)]
    return ParsedCase(SentCase(pictures, json_body.parse_history(sent.history)), answer_json)


def answer_json(answer: Answer) -> bytes:
    """The whole answer as JSON."""
    return answer.model_dump_json().encode()


async def _receive(request: Request, slot: CaseSlot) -> CaseParser:
    limit, media_type = service_of(request).settings.max_body_bytes, media_type_of(request)
    if media_type == JSON_TYPE:
        body = await read_json_body(request, slot)
        return lambda: parse_case(json_body.parse(body))
    if media_type == MULTIPART_TYPE:
        case = await read_form(request, max_body_bytes=limit, reserve=slot.reserve_bytes)
    else:
        case = SentCase(
            [await read_body(request, max_body_bytes=limit, reserve=slot.reserve_bytes)], NO_HISTORY
        )
    return lambda: ParsedCase(case, answer_json)


ADAPTER = ProtocolAdapter(
    "v1", (*PICTURE_TYPES, MULTIPART_TYPE, JSON_TYPE), _receive, supports_callbacks=True
)


_PATH = "/v1/triage"
_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": ["image"],
    "additionalProperties": False,
    "properties": {
        "image": {"type": "array", "items": _FILE, "minItems": 1, "maxItems": MAX_IMAGES_PER_CASE},
        "history": {"$ref": "#/components/schemas/History"},
    },
}
_JSON = {
    "schema": {"$ref": "#/components/schemas/JsonCase"},
    "examples": {"with_history": {"value": {"images": [PICTURE], "history": HISTORY}}},
}
SCHEMAS = {
    "JsonCase": {
        "title": "JsonCase",
        "type": "object",
        "required": ["images"],
        "additionalProperties": False,
        "properties": {
            "images": {
                "type": "array",
                "items": {"type": "string", "contentEncoding": "base64"},
                "minItems": 1,
                "maxItems": MAX_IMAGES_PER_CASE,
                "description": "The files of the photographs, in order, each in base64.",
            },
            "history": {"anyOf": [{"$ref": "#/components/schemas/History"}, {"type": "null"}]},
        },
    }
}
_CALLBACK_PARAMETERS = (
    {
        "name": "callback",
        "in": "query",
        "required": False,
        "description": "Name of a callback of this server, to which the answer is delivered; the "
        "response is then 202.",
        "schema": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,39}$"},
    },
    {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": "respond-async (RFC 7240): the same, if exactly one callback is open to this caller.",
        "schema": {"type": "string"},
    },
)
_ACCEPTED = {
    "model": CaseStatus,
    "description": "Scored and recorded; the answer will be delivered to the callback.",
    "headers": {"Location": {"description": "Path of the case's status.", "schema": {"type": "string"}}},
}
EXAMPLES = {_PATH: {name: answer.model_dump(mode="json") for name, answer in ANSWERS.items()}}
_DESCRIPTION = describe_case_operation(
    _PATH,
    {
        **{one: {"schema": _FILE} for one in PICTURE_TYPES},
        MULTIPART_TYPE: {"schema": _FORM},
        JSON_TYPE: _JSON,
    },
    {"model": Answer},
    (
        *(*CASE_CODES, *JSON_CODES, "multipart_not_valid", "unknown_part"),
        *("callback_not_known", "outbox_full", "outbox_unavailable"),
    ),
    f"One photograph; or up to {MAX_IMAGES_PER_CASE} of one lesion as parts 'image', with at most one part "
    "'history'; or the same as JSON.",
    _CALLBACK_PARAMETERS,
    _ACCEPTED,
)


@router.post(_PATH, **_DESCRIPTION)
async def triage(request: Request) -> Response:
    """Score the photographs of one lesion. The answer has its disposition and how soon to read the case."""
    return await respond(request, ADAPTER)
