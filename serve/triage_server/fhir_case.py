"""The case in resources of FHIR R4: an order, its photographs, and what is known of the lesion.

Imports the intake and the wire. Of a Patient nothing is read. A resource of a type that is not read, and
whatever would change the meaning of one that is, is refused: what is silently left out would mislead whoever
reads the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lesion_triage.bundle.history import History
from triage_server import json_body
from triage_server.dicom import DICOM_TYPE
from triage_server.intake import SentCase, check_number
from triage_server.problems import RequestError
from triage_server.wire import PICTURE_TYPES

HISTORY_SYSTEM = "urn:lesion-triage:history"
"""Code system whose codes are the fields of the schema History."""
PASSED_OVER = frozenset(
    {
        "Patient",
        "Practitioner",
        "PractitionerRole",
        "Organization",
        "Encounter",
        "Location",
        "OperationOutcome",
    }
)
"""May be there, and are not looked into."""

Resource = Mapping[str, Any]

_REFERENCE = re.compile(
    r"(?:[A-Za-z]{1,64}/[A-Za-z0-9.-]{1,64}|urn:uuid:[0-9a-fA-F-]{36})(?:/_history/\w{1,64})?"
)
_LOCAL = re.compile(r"#|urn:uuid:|(?:.*/)?(?:Media|DocumentReference)/")
_PHOTOGRAPHS = ("Media", "DocumentReference")
_UNITS = {"age_years": "a", "duration_weeks": "wk", "diameter_mm": "mm"}
"""UCUM. A centimetre that is taken for a millimetre is not seen in the answer."""
_WITHDRAWN = frozenset({"entered-in-error", "cancelled", "superseded", "not-done", "stopped", "revoked"})
_MOST_RESOURCES = 256


@dataclass(frozen=True, slots=True)
class Found:
    """One resource and how others refer to it."""

    resource: Resource
    names: frozenset[str]

    @property
    def kind(self) -> str:
        """Its type."""
        return str(self.resource.get("resourceType"))


@dataclass(frozen=True, slots=True)
class FhirCase:
    """A case, and what an answer in FHIR refers to."""

    case: SentCase
    order: str | None
    """Reference to the ServiceRequest; None: there is none, or it cannot be referred to."""
    subject: str | None
    """Reference that the order, or else a photograph, gives as its subject. Never a name."""
    photographs: tuple[str | None, ...]
    """References to the photographs, in the order of the case."""


def resources_in(tree: Resource) -> list[Found]:
    """The resources of a Bundle or of Parameters, those they contain included.

    Raises:
        RequestError: it is neither, or holds more than is read.
    """
    match tree.get("resourceType"):
        case "Bundle":
            found = [
                one
                for entry in _list(tree, "entry")
                for one in _with_contained(_mapping(entry).get("resource"), _mapping(entry).get("fullUrl"))
            ]
        case "Parameters":
            found = [one for part in _list(tree, "parameter") for one in _of_parameter(_mapping(part))]
        case _:
            raise _refusal("resourceType: expected a Bundle or Parameters")
    if len(found) > _MOST_RESOURCES:
        raise _refusal(f"more than {_MOST_RESOURCES} resources")
    return found


def case_in(found: Sequence[Found], order_id: str | None = None) -> FhirCase:
    """The one case that these resources make.

    Args:
        found: all that were sent.
        order_id: the ServiceRequest that is meant, as ``ServiceRequest/id``; None: the only one.

    Raises:
        RequestError: they make none, or hold what is not read.
    """
    read = [one for one in found if one.kind not in PASSED_OVER]
    kinds = {"ServiceRequest", "Media", "DocumentReference", "Observation", "QuestionnaireResponse"}
    if any(one.kind not in kinds for one in read):
        raise _refusal("a resource of a type that is not read")
    for one in read:
        _check_meaning(one.resource)
    orders = [one for one in read if one.kind == "ServiceRequest"]
    if order_id is not None:
        orders = [one for one in orders if order_id in one.names]
    if len(orders) > 1 or (order_id is not None and not orders):
        raise _refusal("ServiceRequest: expected the one that is meant")
    order = orders[0] if orders else None
    photographs = _photographs(read, order, all_of_them=order_id is None)
    check_number(len(photographs))
    images = [_image(one.resource, index) for index, one in enumerate(photographs)]
    told = [one.resource for one in read if one.kind in ("Observation", "QuestionnaireResponse")]
    history = _history(told)
    bearers = [one.resource for one in ([order] if order else []) + photographs] + told
    subjects = {_reference(one.get("subject")) for one in bearers} - {None}
    if len(subjects) > 1:
        raise _refusal("subject: the resources are of several people")
    return FhirCase(
        SentCase(images, history),
        order=None if order is None else _first(order.names),
        subject=next(iter(subjects), None),
        photographs=tuple(_first(one.names) for one in photographs),
    )


def _of_parameter(part: Resource) -> Iterator[Found]:
    resource = part.get("resource")
    if isinstance(resource, dict) and resource.get("resourceType") == "Bundle":
        yield from resources_in(resource)
    elif resource is not None:
        yield from _with_contained(resource, None)
    else:
        raise _refusal("parameter.resource")


def _with_contained(resource: object, full_url: object) -> Iterator[Found]:
    tree = _mapping(resource)
    names = {full_url} if isinstance(full_url, str) else set()
    if isinstance(tree.get("id"), str):
        names.add(f"{tree.get('resourceType')}/{tree['id']}")
    yield Found(tree, frozenset(names))
    for inner in _list(tree, "contained"):
        inner_tree = _mapping(inner)
        if inner_tree.get("contained"):
            raise _refusal("contained inside contained")
        yield Found(inner_tree, frozenset({f"#{inner_tree.get('id')}"}))


def _check_meaning(resource: Resource) -> None:
    """FHIR: who does not understand a modifier must not go on."""
    if resource.get("modifierExtension") or resource.get("implicitRules"):
        raise _refusal("modifierExtension or implicitRules")
    if _WITHDRAWN & {str(resource.get("status")), str(resource.get("docStatus"))}:
        raise _refusal("status: a resource that was withdrawn")
    if resource.get("doNotPerform"):
        raise _refusal("ServiceRequest.doNotPerform")


def _photographs(read: Sequence[Found], order: Found | None, *, all_of_them: bool) -> list[Found]:
    """Those that the order names, in its order; all that were sent if it names none.

    Args:
        read: whatever was sent.
        order: None: there is none.
        all_of_them: one that was sent and is not named is refused, not left out.
    """
    sent = [one for one in read if one.kind in _PHOTOGRAPHS]
    supporting = [] if order is None else _list(order.resource, "supportingInfo")
    chosen: list[Found] = []
    for reference in (_mapping(one).get("reference") for one in supporting):
        meant = [one for one in read if reference in one.names] if isinstance(reference, str) else []
        if not meant and isinstance(reference, str) and _LOCAL.match(reference):
            raise _refusal("ServiceRequest.supportingInfo: names what was not sent")
        chosen += [one for one in meant if one.kind in _PHOTOGRAPHS and one not in chosen]
    if chosen and all_of_them and len(chosen) < len(sent):
        raise _refusal("ServiceRequest.supportingInfo: does not name every photograph that was sent")
    return chosen or sent


def _image(resource: Resource, index: int) -> bytes:
    if resource["resourceType"] == "Media":
        attachment = _mapping(resource.get("content"))
    else:
        contents = _list(resource, "content")
        if len(contents) != 1:
            raise _refusal("DocumentReference.content: expected one")
        attachment = _mapping(_mapping(contents[0]).get("attachment"))
    if attachment.get("data") is None:
        raise RequestError("photograph_by_address", index=index)
    if attachment.get("contentType") not in (*PICTURE_TYPES, DICOM_TYPE, None):
        raise RequestError("image_format_not_supported", index=index)
    return json_body.picture(attachment["data"], index)


def _history(resources: Sequence[Resource]) -> History:
    said: dict[str, object] = {}
    for resource in resources:
        answers = _observed(resource) if resource["resourceType"] == "Observation" else _items(resource)
        for field, value in answers:
            if field not in History.model_fields:
                raise RequestError("history_not_valid", fields="a question that is not known")
            if said.setdefault(field, value) != value:
                raise RequestError("history_not_valid", fields=f"{field}, said in two ways")
    return json_body.history_in(said)


def _observed(resource: Resource) -> Iterator[tuple[str, object]]:
    codings = [_mapping(one) for one in _list(_mapping(resource.get("code")), "coding")]
    ours = [one.get("code") for one in codings if one.get("system") == HISTORY_SYSTEM]
    if len(ours) != 1 or not isinstance(ours[0], str) or resource.get("component"):
        raise RequestError("history_not_valid", fields=f"an Observation without one code of {HISTORY_SYSTEM}")
    if not resource.get("dataAbsentReason"):
        yield ours[0], _value(resource, ours[0])


def _items(tree: Resource) -> Iterator[tuple[str, object]]:
    """What the items of a questionnaire, of a group or of an answer say."""
    for item in _list(tree, "item"):
        question = _mapping(item)
        answers = [_mapping(answer) for answer in _list(question, "answer")]
        if len(answers) > 1 or (answers and question.get("item")):
            raise RequestError("history_not_valid", fields="an item with several answers")
        for answer in answers:
            field = str(question.get("linkId"))
            yield field, _value(answer, field)
            yield from _items(answer)  # R4 has what is asked further there, not beside the answer (qrs-1)
        yield from _items(question)


def _value(resource: Resource, field: str) -> object:
    """What is said, of the few types that a history has."""
    given = [name for name in resource if name.startswith("value")]
    if len(given) != 1:
        raise RequestError(
            "history_not_valid", fields="expected one value, and null is said by leaving it out"
        )
    value = resource[given[0]]
    match given[0]:
        case "valueBoolean" | "valueInteger" | "valueDecimal" | "valueString":
            return value
        case "valueQuantity":
            quantity = _mapping(value)
            if quantity.get("comparator") or quantity.get("code") != _UNITS.get(field, ""):
                raise RequestError(
                    "history_not_valid", fields=f"a quantity that is not in UCUM's unit of {_UNITS}"
                )
            return quantity.get("value")
        case "valueCoding":
            return _mapping(value).get("code")
        case "valueCodeableConcept":
            codings = _list(_mapping(value), "coding")
            return _mapping(codings[0]).get("code") if len(codings) == 1 else _mapping(value).get("text")
    raise RequestError("history_not_valid", fields="a value of another type")


def _reference(tree: object) -> str | None:
    reference = tree.get("reference") if isinstance(tree, dict) else None
    return reference if isinstance(reference, str) and _REFERENCE.fullmatch(reference) else None


def _first(names: frozenset[str]) -> str | None:
    return min((name for name in names if _REFERENCE.fullmatch(name)), default=None)


def _list(tree: Resource, name: str) -> list[Any]:
    value = tree.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _refusal(f"{name}: expected a list")
    return value


def _mapping(value: object) -> Resource:
    if not isinstance(value, dict):
        raise _refusal("an object was expected")
    return value


def _refusal(fields: str) -> RequestError:
    return RequestError("document_not_valid", fields=fields)
