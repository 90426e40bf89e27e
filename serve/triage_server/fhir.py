"""FHIR R4: one operation, resources in, resources out. Imports the case pipeline.

Errors are OperationOutcomes. No address in a request is ever called.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from lesion_triage.bundle.history import NO_HISTORY
from lesion_triage.bundle.schema import Answer
from triage_server import json_body
from triage_server.case_pipeline import CaseParser, ParsedCase, ProtocolAdapter, read_json_body, respond
from triage_server.error_responses import FHIR_TYPE
from triage_server.examples import ANSWERS, DISPOSITIONS, HISTORY, PICTURE
from triage_server.fhir_bundle import Resource, answer_bundle
from triage_server.fhir_case import FhirCase, parse_case_resources
from triage_server.fhir_history import HISTORY_SYSTEM
from triage_server.fhir_resources import parse_resources
from triage_server.intake import SentCase
from triage_server.openapi import (
    ACCESS_CODES,
    CASE_CODES,
    JSON_CODES,
    describe_case_operation,
    describe_read_operation,
    json_response,
)
from triage_server.pool import CaseSlot
from triage_server.service import service_of
from triage_server.wire import JSON_TYPE

router = APIRouter()

_PATH = "/fhir/$triage"
_METADATA = "/fhir/metadata"


async def _receive(request: Request, slot: CaseSlot) -> CaseParser:
    body = await read_json_body(request, slot)
    languages = service_of(request).scorer.languages

    def parse_case() -> ParsedCase:
        sent = parse_case_resources(parse_resources(json_body.parse(body)), datetime.now(UTC).date())

        def render(answer: Answer) -> bytes:
            disposition = languages.catalogue(answer.language).dispositions[answer.disposition]
            return json.dumps(answer_bundle(answer, sent, datetime.now(UTC), disposition)).encode()

        return ParsedCase(sent.case, render, echoed=echoed_references(sent))

    return parse_case


def echoed_references(sent: FhirCase) -> bytes:
    """What an answer in FHIR repeats of its request; empty if nothing."""
    references = (sent.order, sent.subject, sent.patient, sent.names_subject, *sent.photographs)
    return json.dumps(references).encode() if any(references) else b""


ADAPTER = ProtocolAdapter("fhir", (FHIR_TYPE, JSON_TYPE), _receive, FHIR_TYPE)


def _sent_example() -> Resource:
    order = {
        "resourceType": "ServiceRequest",
        "id": "order-1",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/1"},
        "supportingInfo": [{"reference": "Media/photograph-1"}],
    }
    photograph = {
        "resourceType": "Media",
        "id": "photograph-1",
        "status": "completed",
        "subject": {"reference": "Patient/1"},
        "content": {"contentType": "image/png", "data": PICTURE},
    }
    items = [
        {"linkId": "age_years", "answer": [{"valueDecimal": HISTORY["age_years"]}]},
        {"linkId": "bleeding", "answer": [{"valueBoolean": HISTORY["bleeding"]}]},
    ]
    questionnaire_response = {"resourceType": "QuestionnaireResponse", "status": "completed", "item": items}
    entries = [{"resource": one} for one in (order, photograph, questionnaire_response)]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


_SENT = {
    "schema": {"$ref": "#/components/schemas/FhirCase"},
    "examples": {"bundle": {"value": _sent_example()}},
}
_RESOURCE = {
    "type": "object",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string"}},
}
SCHEMAS = {
    "FhirCase": {
        "title": "FhirCase",
        "description": "A Bundle or Parameters of FHIR R4: at most one ServiceRequest, 1 to 16 photographs "
        "as Media or DocumentReference with Attachment.data, and what is known of the lesion as Observations "
        f"with a code of {HISTORY_SYSTEM} or as a QuestionnaireResponse whose linkIds are such codes. "
        "Age and sex may also come as birthDate and gender of the Patient who is the subject.",
        **_RESOURCE,
        "properties": {"resourceType": {"enum": ["Bundle", "Parameters"]}},
    },
    "FhirAnswer": {
        "title": "FhirAnswer",
        "description": "A FHIR R4 Bundle with a Task, a RiskAssessment, DetectedIssues and a Provenance.",
        **_RESOURCE,
        "properties": {"resourceType": {"const": "Bundle"}},
    },
    "CapabilityStatement": {"title": "CapabilityStatement", **_RESOURCE},
}
_EXAMPLE_CASE = FhirCase(
    SentCase([], NO_HISTORY),
    order="ServiceRequest/order-1",
    subject="Patient/1",
    patient="Patient/1",
    names_subject=True,
    photographs=("Media/photograph-1",) * 2,
)
EXAMPLES = {
    _PATH: {
        name: answer_bundle(
            answer, _EXAMPLE_CASE, datetime(2026, 1, 31, 12, tzinfo=UTC), DISPOSITIONS[answer.disposition]
        )
        for name, answer in ANSWERS.items()
    }
}


@router.post(
    _PATH,
    **describe_case_operation(
        _PATH,
        {FHIR_TYPE: _SENT, JSON_TYPE: _SENT},
        json_response({"$ref": "#/components/schemas/FhirAnswer"}, FHIR_TYPE),
        (*CASE_CODES, *JSON_CODES, "photograph_by_address", "content_type_not_supported"),
        "One case as FHIR R4 resources.",
    ),
)
async def fhir_triage(request: Request) -> Response:
    """Score one case sent as FHIR R4, and answer in FHIR R4."""
    return await respond(request, ADAPTER)


@router.get(
    _METADATA,
    **describe_read_operation(
        _METADATA,
        json_response({"$ref": "#/components/schemas/CapabilityStatement"}, FHIR_TYPE),
        *ACCESS_CODES,
    ),
)
async def capabilities(request: Request) -> Response:
    """What this face can do, as a CapabilityStatement."""
    statement = {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": service_of(request).bundle.header.created_at,
        "kind": "instance",
        "implementation": {"description": "lesion-triage: orders the reading queue"},
        "fhirVersion": "4.0.1",
        "format": [FHIR_TYPE],
        "rest": [
            {
                "mode": "server",
                "operation": [{"name": "triage", "definition": "urn:lesion-triage:operation:triage"}],
            }
        ],
    }
    return Response(json.dumps(statement), media_type=FHIR_TYPE)
