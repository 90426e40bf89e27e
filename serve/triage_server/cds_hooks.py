"""CDS Hooks 2.0: one service; its card addresses the clinician who orders. Imports the case pipeline.

Photographs come in the prefetch. No FHIR server is called, and an access token for one is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.schema import Answer, Disposition
from triage_server import json_body
from triage_server.case_pipeline import CaseParser, ParsedCase, ProtocolAdapter, read_json_body, respond
from triage_server.examples import ANSWERS, DISPOSITIONS, PICTURE
from triage_server.fhir_case import READ_TYPES, FhirCase, SelectedOrder, parse_case_resources
from triage_server.fhir_resources import MAX_ADDRESS_LENGTH, SentResource, invalid_document, parse_resources
from triage_server.openapi import (
    ACCESS_CODES,
    CASE_CODES,
    JSON_CODES,
    describe_case_operation,
    describe_read_operation,
)
from triage_server.pool import CaseSlot
from triage_server.problems import RequestError
from triage_server.service import service_of
from triage_server.wire import JSON_TYPE, document_response

router = APIRouter()

HOOK = "order-select"
SERVICE = "lesion-triage"
_MAX_SUMMARY_LENGTH = 139
"""CDS Hooks: fewer than 140 characters."""
_MAX_SEARCH_RESULTS = {"history": 1}
"""Most resources that a search of the prefetch asks for; a search that is not named here asks for all."""
_PREFETCH = {
    "photographs": "Media?patient={{context.patientId}}&status=completed&type=image",
    "history": "QuestionnaireResponse?patient={{context.patientId}}&questionnaire=urn:lesion-triage:history"
    f"&_sort=-authored&_count={_MAX_SEARCH_RESULTS['history']}",
    # No name and no address need come along.
    "patient": "Patient?_id={{context.patientId}}&_elements=birthDate,gender",
}


class _Context(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    patientId: str = Field(min_length=1)  # noqa: N815
    selections: list[str]
    draftOrders: dict[str, Any]  # noqa: N815


class CdsRequest(BaseModel):
    """What a client sends. Everything else is ignored, above all an access token for a FHIR server."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hook: Literal["order-select"]
    hookInstance: UUID  # noqa: N815
    context: _Context
    fhirServer: str | None = Field(default=None, max_length=MAX_ADDRESS_LENGTH)  # noqa: N815
    """Compared with the addresses in references; never called."""
    prefetch: dict[str, Any] = {}


class CdsSource(Document):
    """Source of the card."""

    label: str


class CdsCard(Document):
    """One card."""

    uuid: UUID
    summary: str
    indicator: Literal["info", "warning"]
    detail: str
    """Markdown: the answer's note in a code block, which keeps its lines, and the notice."""
    source: CdsSource


class CdsAnswer(Document):
    """One card for one case."""

    cards: tuple[CdsCard, ...]


class CdsService(Document):
    """What a client needs to know to call the service."""

    hook: str
    id: str
    title: str
    description: str
    prefetch: dict[str, str]


class CdsServices(Document):
    """The one service."""

    services: tuple[CdsService, ...]


def card_for(answer: Answer, disposition: str) -> CdsCard:
    """The card for an answer.

    Args:
        answer: of the case.
        disposition: the catalogue's sentence for its disposition.
    """
    summary = (
        disposition
        if len(disposition) <= _MAX_SUMMARY_LENGTH
        else disposition[: _MAX_SUMMARY_LENGTH - 1] + "…"
    )
    return CdsCard(
        uuid=uuid4(),
        summary=summary,
        indicator="info" if answer.disposition is Disposition.below_threshold else "warning",
        detail=f"```\n{answer.note}\n```\n\n{answer.notice}",
        source=CdsSource(
            label=f"lesion-triage, bundle {answer.bundle_name}, certificate {answer.certificate_id}"
        ),
    )


def _parse_case(cds_request: CdsRequest) -> FhirCase:
    """The photographs named by the one selected order; those of the prefetch if it names none."""
    orders = [one for one in cds_request.context.selections if one.startswith("ServiceRequest/")]
    if len(orders) != 1:
        raise RequestError("document_not_valid", fields="context.selections: expected one ServiceRequest")
    drafts = parse_resources(cds_request.context.draftOrders)
    # The rest are orders of other kinds.
    found = [one for one in drafts if (one.container or one).resource_type in READ_TYPES]
    for name, resource in cds_request.prefetch.items():
        found += _prefetched_resources(name, resource)
    found = [one for one in found if not _is_other_order(one.container or one, orders[0])]
    if not any(one.resource_type in ("Media", "DocumentReference") for one in found):
        raise RequestError("prefetch_missing")
    patient = f"Patient/{cds_request.context.patientId.removeprefix('Patient/')}"
    selected = SelectedOrder(orders[0], patient, cds_request.fhirServer)
    return parse_case_resources(found, datetime.now(UTC).date(), selected)


def _is_other_order(one: SentResource, selected: str) -> bool:
    return one.resource_type == "ServiceRequest" and selected not in one.names


def _prefetched_resources(name: str, resource: object) -> list[SentResource]:
    """Resources in one value of the prefetch: null, a resource, or the Bundle that a search returned."""
    if resource is None:
        return []
    if isinstance(resource, Mapping) and resource.get("resourceType") == "OperationOutcome":
        raise invalid_document("prefetch: a failed search; send what it finds, or null if it finds nothing")
    if isinstance(resource, Mapping) and resource.get("resourceType") == "Bundle":
        return parse_resources(resource, _MAX_SEARCH_RESULTS.get(name))
    return parse_resources({"resourceType": "Parameters", "parameter": [{"resource": resource}]})


async def _receive(request: Request, slot: CaseSlot) -> CaseParser:
    body = await read_json_body(request, slot)
    languages = service_of(request).scorer.languages

    def parse_case() -> ParsedCase:
        sent = _parse_case(json_body.validate_as(CdsRequest, json_body.parse(body)))

        def render(answer: Answer) -> bytes:
            disposition = languages.catalogue(answer.language).dispositions[answer.disposition]
            return CdsAnswer(cards=(card_for(answer, disposition),)).model_dump_json().encode()

        return ParsedCase(sent.case, render)

    return parse_case


ADAPTER = ProtocolAdapter("cds-hooks", (JSON_TYPE,), _receive)

_DISCOVERY = "/cds-services"
_PATH = f"{_DISCOVERY}/{SERVICE}"
SCHEMAS = {
    "CdsRequest": CdsRequest.model_json_schema(ref_template="#/components/schemas/CdsRequest/$defs/{model}")
}
EXAMPLES = {
    _PATH: {
        name: CdsAnswer(cards=(card_for(answer, DISPOSITIONS[answer.disposition]),)).model_dump(mode="json")
        for name, answer in ANSWERS.items()
    }
}
_ORDER = {
    "resourceType": "ServiceRequest",
    "id": "order-1",
    "status": "draft",
    "intent": "order",
    "subject": {"reference": "Patient/1"},
}
_MEDIA = {
    "resourceType": "Media",
    "id": "photograph-1",
    "status": "completed",
    "content": {"contentType": "image/png", "data": PICTURE},
}
_SENT = {
    "schema": {"$ref": "#/components/schemas/CdsRequest"},
    "examples": {
        "order": {
            "value": {
                "hook": HOOK,
                "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
                "context": {
                    "userId": "Practitioner/1",
                    "patientId": "1",
                    "selections": ["ServiceRequest/order-1"],
                    "draftOrders": {
                        "resourceType": "Bundle",
                        "type": "collection",
                        "entry": [{"resource": _ORDER}],
                    },
                },
                "prefetch": {
                    "photographs": {
                        "resourceType": "Bundle",
                        "type": "searchset",
                        "entry": [{"resource": _MEDIA}],
                    }
                },
            }
        }
    },
}


@router.get(_DISCOVERY, **describe_read_operation(_DISCOVERY, {"model": CdsServices}, *ACCESS_CODES))
async def services(request: Request) -> Response:
    """List the services."""
    service = CdsService(
        hook=HOOK,
        id=SERVICE,
        title="Order of reading for a photographed skin lesion",
        description="Says whether the score of an order's photographs reaches the certified threshold for an "
        "in-person visit. A clinician reads every case, whatever the card says.",
        prefetch=_PREFETCH,
    )
    return document_response(CdsServices(services=(service,)))


@router.post(
    _PATH,
    **describe_case_operation(
        _PATH,
        {JSON_TYPE: _SENT},
        {"model": CdsAnswer},
        (*CASE_CODES, *JSON_CODES, "photograph_by_address", "content_type_not_supported", "prefetch_missing"),
        "A CDS Hooks request with photographs in the prefetch.",
    ),
)
async def cds_card(request: Request) -> Response:
    """Score the photographs of the selected order and answer with a card."""
    return await respond(request, ADAPTER)
