"""A case from resources of FHIR R4: an order, its photographs, and what is known of the lesion.

Imports the intake, the wire and the resources. Of a Patient only age and sex are read. Unknown resource types
are refused, and so is whatever would change the meaning of a known one: leaving it out silently would mislead
the reader of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from triage_server import json_body
from triage_server.fhir_history import history_from_resources
from triage_server.fhir_patient import complete_history
from triage_server.fhir_resources import (
    ReferenceResolver,
    Resource,
    SentResource,
    as_object,
    invalid_document,
    list_member,
    refuse_modifiers,
)
from triage_server.fhir_subject import check_same_person, referenced_patients
from triage_server.intake import SentCase, check_photograph_count
from triage_server.problems import RequestError
from triage_server.wire import PICTURE_TYPES

IGNORED_TYPES = frozenset(
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
"""Accepted and not read, except for what identifies them as targets of references, and for a subject's age
and sex."""

_MAX_RESOURCES = 256
"""Of all documents of a request together: photographs are compared with each other."""
_REFERENCE = re.compile(
    r"(?:[A-Za-z]{1,64}/[A-Za-z0-9.-]{1,64}|urn:uuid:[0-9a-fA-F-]{36})(?:/_history/[A-Za-z0-9.-]{1,64})?"
)
"""References that an answer may repeat. Not an address: it may reveal more than which resource is meant."""
_PHOTOGRAPH_TYPES = ("Media", "DocumentReference")
_HISTORY_TYPES = ("Observation", "QuestionnaireResponse")
READ_TYPES = frozenset({"ServiceRequest", *_PHOTOGRAPH_TYPES, *_HISTORY_TYPES})
"""Types that are read."""
_MUST_RESOLVE = re.compile(rf"#|urn:|(?:.*/)?(?:{'|'.join((*_PHOTOGRAPH_TYPES, *_HISTORY_TYPES))})[/?]")
"""References that must resolve: without a photograph or a history a case can only look less urgent."""
_REFERENCING_MEMBERS = ("supportingInfo", "reasonReference")
"""Members of an order that name photographs and observations of the lesion, in this order."""
_WITHDRAWN_STATUSES = frozenset(
    {"entered-in-error", "cancelled", "superseded", "not-done", "stopped", "revoked"}
)


@dataclass(frozen=True, slots=True)
class SelectedOrder:
    """The order meant among several, its patient and its server, as given beside the resources."""

    order: str
    """``ServiceRequest/id``."""
    patient: str
    """``Patient/id``."""
    server: str | None
    """Address of the server that holds both; None: not given."""


@dataclass(frozen=True, slots=True)
class FhirCase:
    """A case, and what an answer in FHIR refers to."""

    case: SentCase
    order: str | None
    """Reference to the ServiceRequest; None: there is none, or it cannot be referred to."""
    subject: str | None
    """Subject of the order, or else of the first resource that gives one. Never a name or an address."""
    patient: str | None
    """The same if it is a Patient; None for anything else, such as a Group."""
    names_subject: bool
    """Whether any resource names its subject, even in a way that no answer repeats."""
    photographs: tuple[str | None, ...]
    """References to the photographs, in the order of the case; None: cannot be referred to."""


def parse_case_resources(
    found: Sequence[SentResource], today: date, selected: SelectedOrder | None = None
) -> FhirCase:
    """The one case that these resources make up.

    Args:
        found: all resources sent.
        today: the day, in UTC, on which the request is answered.
        selected: the ServiceRequest that is meant; None: the only one.

    Raises:
        RequestError: they make up none, are too many, concern several people, or include something that is
            not read.
    """
    if len(found) > _MAX_RESOURCES:
        raise invalid_document(f"more than {_MAX_RESOURCES} resources")
    read = [one for one in found if one.resource_type not in IGNORED_TYPES]
    if any(one.resource_type not in READ_TYPES for one in read):
        raise invalid_document("a resource of an unsupported type")
    for one in read:
        _check_not_withdrawn(one.resource)
    if any(one.resource_type == "OperationOutcome" and _is_failed_search(one.resource) for one in found):
        raise invalid_document("OperationOutcome: a search that failed, at least in part")
    order = _order(read, selected)
    resolver = ReferenceResolver(found, selected.server if selected else None)
    photographs = _photographs(read, order, resolver, must_name_all=selected is None)
    check_photograph_count(len(photographs))
    images = [_image(one.resource, index) for index, one in enumerate(photographs)]
    history_resources = [one for one in read if one.resource_type in _HISTORY_TYPES]
    history = history_from_resources([one.resource for one in history_resources])
    with_subject = [*([order] if order else []), *photographs, *history_resources]
    selected_patient = selected.patient if selected else None
    check_same_person(with_subject, resolver, selected_patient)
    patients = referenced_patients(with_subject, resolver, selected_patient)
    history = complete_history(history, patients, today)
    subject, patient = _subject(with_subject, resolver)
    return FhirCase(
        SentCase(images, history),
        order=None if order is None else _first_reference(order.names),
        subject=subject,
        patient=patient,
        names_subject=any(_has_subject(one.resource.get("subject")) for one in with_subject),
        photographs=tuple(_first_reference(one.names) for one in photographs),
    )


def _order(read: Sequence[SentResource], selected: SelectedOrder | None) -> SentResource | None:
    orders = [one for one in read if one.resource_type == "ServiceRequest"]
    if selected is not None:
        orders = [one for one in orders if selected.order in one.names]
    if len(orders) > 1 or (selected is not None and not orders):
        raise invalid_document(
            "ServiceRequest: expected at most one, and the selected one if an order is selected"
        )
    return orders[0] if orders else None


def _check_not_withdrawn(resource: Resource) -> None:
    """Refuse modifiers, which FHIR forbids to ignore, and resources that were withdrawn."""
    refuse_modifiers(resource)
    if _WITHDRAWN_STATUSES & {str(resource.get("status")), str(resource.get("docStatus"))}:
        raise invalid_document("status: a resource that was withdrawn")
    if resource.get("doNotPerform"):
        raise invalid_document("ServiceRequest.doNotPerform")
    if resource.get("focus"):  # R4: who or what it is about where that is not the patient, such as a parent
        raise invalid_document("Observation.focus")


def _is_failed_search(outcome: Resource) -> bool:
    return any(as_object(one).get("severity") in ("fatal", "error") for one in list_member(outcome, "issue"))


def _photographs(
    read: Sequence[SentResource],
    order: SentResource | None,
    resolver: ReferenceResolver,
    *,
    must_name_all: bool,
) -> list[SentResource]:
    """The photographs that the order names, in its order; all that were sent if it names none.

    Args:
        read: resources that are read.
        order: None: there is none.
        resolver: of all resources.
        must_name_all: refuse a photograph that the order does not name, instead of leaving it out.
    """
    sent = _distinct_photographs(read)
    references = (
        []
        if order is None
        else [one for name in _REFERENCING_MEMBERS for one in list_member(order.resource, name)]
    )
    chosen_by_id: dict[int, SentResource] = {}
    """By identity: an order may name one thing thousands of times, and comparing resources is slow."""
    for reference_object in map(as_object, references):
        reference = reference_object.get("reference")
        targets = resolver.resolve(reference, order) if isinstance(reference, str) else []
        if not targets and _must_resolve(reference_object):
            raise invalid_document(
                "ServiceRequest.supportingInfo or reasonReference: refers to a resource that was not sent"
            )
        chosen_by_id.update((id(one), one) for one in targets)
    chosen = _distinct_photographs(tuple(chosen_by_id.values()))
    if chosen and must_name_all and len(chosen) < len(sent):
        raise invalid_document(
            "ServiceRequest.supportingInfo or reasonReference: does not name every photograph that was sent"
        )
    return chosen or sent


def _distinct_photographs(found: Sequence[SentResource]) -> list[SentResource]:
    """The photographs among them, each once: naming or sending one again does not add one."""
    photographs: list[SentResource] = []
    for one in found:
        if one.resource_type in _PHOTOGRAPH_TYPES and not (one.names and one in photographs):
            photographs.append(one)
    return photographs


def _must_resolve(reference: Resource) -> bool:
    """Whether a reference to something that was not sent is, or may be, to something that is read."""
    if reference.get("type") in (*_PHOTOGRAPH_TYPES, *_HISTORY_TYPES):
        return True
    if isinstance(reference.get("reference"), str):
        return _MUST_RESOLVE.match(reference["reference"]) is not None
    return reference.get("identifier") is not None and reference.get("type") is None


def _image(resource: Resource, index: int) -> bytes:
    if resource["resourceType"] == "Media":
        attachment = as_object(resource.get("content"))
    else:
        contents = list_member(resource, "content")
        if len(contents) != 1:
            raise invalid_document("DocumentReference.content: expected exactly one")
        attachment = as_object(as_object(contents[0]).get("attachment"))
    if attachment.get("data") is None:
        raise RequestError("photograph_by_address", index=index)
    if _media_type(attachment.get("contentType")) not in (*PICTURE_TYPES, None):
        raise RequestError("content_type_not_supported", index=index)
    # R4's base64Binary may have white space.
    return json_body.decode_base64(attachment["data"], index, allow_white_space=True)


def _media_type(content_type: object) -> object:
    """Without parameters and in lower case, as HTTP compares it; many programs write ``jpg`` for JPEG."""
    if not isinstance(content_type, str):
        return content_type
    media_type = content_type.partition(";")[0].strip().lower()
    return "image/jpeg" if media_type == "image/jpg" else media_type


def _subject(
    with_subject: Sequence[SentResource], resolver: ReferenceResolver
) -> tuple[str | None, str | None]:
    """The first subject that an answer may name, and the same again if it is a Patient."""
    for one in with_subject:
        subject = one.resource.get("subject")
        if reference := _reference(subject, one, resolver):
            kinds = [target.resource_type for target in resolver.resolve(reference, one)]
            kinds.append(as_object(subject).get("type", "Patient"))
            may_be = reference.startswith(("Patient/", "urn:"))
            return reference, reference if may_be and all(kind == "Patient" for kind in kinds) else None
    return None, None


def _reference(tree: object, referrer: SentResource, resolver: ReferenceResolver) -> str | None:
    value = tree.get("reference") if isinstance(tree, dict) else None
    reference = resolver.relative(value, referrer) if isinstance(value, str) else ""
    return reference if _REFERENCE.fullmatch(reference) else None


def _has_subject(tree: object) -> bool:
    return isinstance(tree, dict) and any(tree.get(way) for way in ("reference", "identifier", "display"))


def _first_reference(names: frozenset[str]) -> str | None:
    return min((name for name in names if _REFERENCE.fullmatch(name)), default=None)
