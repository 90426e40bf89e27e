"""CDS Hooks 2.0: one service; its card addresses the clinician who orders. Imports the case pipeline.

Photographs come in the prefetch. No FHIR server is called, and an access token for one is not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lesion_triage.bundle.document import Document
from lesion_triage.bundle.schema import Answer, Disposition
from triage_server import json_body
from triage_server.case_pipeline import CaseParser, ParsedCase, ProtocolAdapter, read_json_body, respond
from triage_server.examples import ANSWERS, DISPOSITIONS, PICTURE
from triage_server.fhir_case import READ, FhirCase, Selected, case_in
from triage_server.fhir_resources import LONGEST_ADDRESS, Found, refusal, resources_in
from triage_server.openapi import (
    ACCESS_CODES,
    CASE_CODES,
    JSON_CODES,
    describe_case_operation,
    describe_read_operation,
)
from triage_server.pool import Place
from triage_server.problems import RequestError
from triage_server.service import service_of
from triage_server.wire import JSON_TYPE, document_response

router = APIRouter()

HOOK = "order-select"
SERVICE = "lesion-triage"
_LONGEST_SUMMARY = 139
"""CDS Hooks: fewer than 140 characters."""
_ASKED = {"history": 1}
"""Most resources that a search of the prefetch asks for; a search that is not named here asks for all."""
_PREFETCH = {
    "photographs": "Media?patient={{context.patientId}}&status=completed&type=image",
    "history": "QuestionnaireResponse?patient={{context.patientId}}&questionnaire=urn:lesion-triage:history"
    f"&_sort=-authored&_count={_ASKED['history']}",
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
    fhirServer: str | None = Field(default=None, max_length=LONGEST_ADDRESS)  # noqa: N815
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
        disposition if len(disposition) <= _LONGEST_SUMMARY else disposition[: _LONGEST_SUMMARY - 1] + "…"
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


def _case(said: CdsRequest) -> FhirCase:
    """The photographs named by the one selected order; those of the prefetch if it names none."""
    orders = [one for one in said.context.selections if one.startswith("ServiceRequest/")]
    if len(orders) != 1:
        raise RequestError("document_not_valid", fields="context.selections: expected one ServiceRequest")
    drafts = resources_in(said.context.draftOrders)
    found = [one for one in drafts if (one.holder or one).kind in READ]  # the rest are orders of other kinds
    for name, resource in said.prefetch.items():
        found += _brought(name, resource)
    found = [one for one in found if not _of_another_order(one.holder or one, orders[0])]
    if not any(one.kind in ("Media", "DocumentReference") for one in found):
        raise RequestError("prefetch_missing")
    patient = f"Patient/{said.context.patientId.removeprefix('Patient/')}"
    return case_in(found, Selected(orders[0], patient, said.fhirServer))


def _of_another_order(one: Found, selected: str) -> bool:
    return one.kind == "ServiceRequest" and selected not in one.names


def _brought(name: str, resource: object) -> list[Found]:
    """Resources in one value of the prefetch: null, a resource, or the Bundle that a search returned."""
    if resource is None:
        return []
    if isinstance(resource, Mapping) and resource.get("resourceType") == "OperationOutcome":
        raise refusal("prefetch: a failed search; send what it finds, or null if it finds nothing")
    if isinstance(resource, Mapping) and resource.get("resourceType") == "Bundle":
        return resources_in(resource, _ASKED.get(name))
    return resources_in({"resourceType": "Parameters", "parameter": [{"resource": resource}]})


async def _receive(request: Request, place: Place) -> CaseParser:
    body = await read_json_body(request, place)
    languages = service_of(request).scorer.languages

    def parse_case() -> ParsedCase:
        sent = _case(json_body.validate_as(CdsRequest, json_body.parse(body)))

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
