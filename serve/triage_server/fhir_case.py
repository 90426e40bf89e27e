"""A case from resources of FHIR R4: an order, its photographs, and what is known of the lesion.

Imports the intake, the wire and the resources. Nothing of a Patient is read. Unknown resource types are
refused, and so is whatever would change the meaning of a known one: leaving it out silently would mislead
the reader of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from triage_server import json_body
from triage_server.fhir_history import told_in
from triage_server.fhir_resources import Found, Register, Resource, check_unmodified, listed, mapped, refusal
from triage_server.fhir_subject import check_one_person
from triage_server.intake import SentCase, check_photograph_count
from triage_server.problems import RequestError
from triage_server.wire import PICTURE_TYPES

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
"""Accepted and not read, except for what identifies them as targets of references."""

_REFERENCE = re.compile(
    r"(?:[A-Za-z]{1,64}/[A-Za-z0-9.-]{1,64}|urn:uuid:[0-9a-fA-F-]{36})(?:/_history/\w{1,64})?"
)
"""References that an answer may repeat. Not an address: it may reveal more than which resource is meant."""
_PHOTOGRAPHS = ("Media", "DocumentReference")
_TOLD = ("Observation", "QuestionnaireResponse")
READ = frozenset({"ServiceRequest", *_PHOTOGRAPHS, *_TOLD})
"""Types that are read."""
_NEEDED = re.compile(rf"#|urn:|(?:.*/)?(?:{'|'.join((*_PHOTOGRAPHS, *_TOLD))})[/?]")
"""References that must resolve: without a photograph or a history a case can only look less urgent."""
_NAMING = ("supportingInfo", "reasonReference")
"""Members of an order that name photographs and observations of the lesion, in this order."""
_WITHDRAWN = frozenset({"entered-in-error", "cancelled", "superseded", "not-done", "stopped", "revoked"})


@dataclass(frozen=True, slots=True)
class Selected:
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
    named: bool
    """Whether any resource names its subject, even in a way that no answer repeats."""
    photographs: tuple[str | None, ...]
    """References to the photographs, in the order of the case; None: cannot be referred to."""


def case_in(found: Sequence[Found], selected: Selected | None = None) -> FhirCase:
    """The one case that these resources make up.

    Args:
        found: all resources sent.
        selected: the ServiceRequest that is meant; None: the only one.

    Raises:
        RequestError: they make up none, concern several people, or include something that is not read.
    """
    read = [one for one in found if one.kind not in PASSED_OVER]
    if any(one.kind not in READ for one in read):
        raise refusal("a resource of an unsupported type")
    for one in read:
        _check_meaning(one.resource)
    if any(one.kind == "OperationOutcome" and _failed(one.resource) for one in found):
        raise refusal("OperationOutcome: a search that failed, at least in part")
    order = _order(read, selected)
    register = Register(found, selected.server if selected else None)
    photographs = _photographs(read, order, register, all_of_them=selected is None)
    check_photograph_count(len(photographs))
    images = [_image(one.resource, index) for index, one in enumerate(photographs)]
    told = [one for one in read if one.kind in _TOLD]
    history = told_in([one.resource for one in told])
    bearers = [*([order] if order else []), *photographs, *told]
    check_one_person(bearers, register, selected.patient if selected else None)
    subject, patient = _subject(bearers, register)
    return FhirCase(
        SentCase(images, history),
        order=None if order is None else _first(order.names),
        subject=subject,
        patient=patient,
        named=any(_names_somebody(one.resource.get("subject")) for one in bearers),
        photographs=tuple(_first(one.names) for one in photographs),
    )


def _order(read: Sequence[Found], selected: Selected | None) -> Found | None:
    orders = [one for one in read if one.kind == "ServiceRequest"]
    if selected is not None:
        orders = [one for one in orders if selected.order in one.names]
    if len(orders) > 1 or (selected is not None and not orders):
        raise refusal("ServiceRequest: expected at most one, and the selected one if an order is selected")
    return orders[0] if orders else None


def _check_meaning(resource: Resource) -> None:
    """Refuse modifiers, which FHIR forbids to ignore, and resources that were withdrawn."""
    check_unmodified(resource)
    if _WITHDRAWN & {str(resource.get("status")), str(resource.get("docStatus"))}:
        raise refusal("status: a resource that was withdrawn")
    if resource.get("doNotPerform"):
        raise refusal("ServiceRequest.doNotPerform")
    if resource.get("focus"):  # R4: who or what it is about where that is not the patient, such as a parent
        raise refusal("Observation.focus")


def _failed(outcome: Resource) -> bool:
    return any(mapped(one).get("severity") in ("fatal", "error") for one in listed(outcome, "issue"))


def _photographs(
    read: Sequence[Found], order: Found | None, register: Register, *, all_of_them: bool
) -> list[Found]:
    """The photographs that the order names, in its order; all that were sent if it names none.

    Args:
        read: resources that are read.
        order: None: there is none.
        register: of all resources.
        all_of_them: refuse a photograph that the order does not name, instead of leaving it out.
    """
    sent = _once(read)
    naming = [] if order is None else [one for name in _NAMING for one in listed(order.resource, name)]
    meant_by_it: dict[int, Found] = {}
    """By identity: an order may name one thing thousands of times, and comparing resources is slow."""
    for named in map(mapped, naming):
        reference = named.get("reference")
        meant = register.meant(reference, order) if isinstance(reference, str) else []
        if not meant and _needed(named):
            raise refusal(
                "ServiceRequest.supportingInfo or reasonReference: refers to a resource that was not sent"
            )
        meant_by_it.update((id(one), one) for one in meant)
    chosen = _once(tuple(meant_by_it.values()))
    if chosen and all_of_them and len(chosen) < len(sent):
        raise refusal(
            "ServiceRequest.supportingInfo or reasonReference: does not name every photograph that was sent"
        )
    return chosen or sent


def _once(found: Sequence[Found]) -> list[Found]:
    """The photographs among them, each once: naming or sending one again does not add one."""
    photographs: list[Found] = []
    for one in found:
        if one.kind in _PHOTOGRAPHS and not (one.names and one in photographs):
            photographs.append(one)
    return photographs


def _needed(named: Resource) -> bool:
    """Whether a reference to something that was not sent is, or may be, to something that is read."""
    if named.get("type") in (*_PHOTOGRAPHS, *_TOLD):
        return True
    if isinstance(named.get("reference"), str):
        return _NEEDED.match(named["reference"]) is not None
    return named.get("identifier") is not None and named.get("type") is None


def _image(resource: Resource, index: int) -> bytes:
    if resource["resourceType"] == "Media":
        attachment = mapped(resource.get("content"))
    else:
        contents = listed(resource, "content")
        if len(contents) != 1:
            raise refusal("DocumentReference.content: expected exactly one")
        attachment = mapped(mapped(contents[0]).get("attachment"))
    if attachment.get("data") is None:
        raise RequestError("photograph_by_address", index=index)
    if _media_type(attachment.get("contentType")) not in (*PICTURE_TYPES, None):
        raise RequestError("content_type_not_supported", index=index)
    # R4's base64Binary may have white space.
    return json_body.decode_base64(attachment["data"], index, allow_white_space=True)


def _media_type(said: object) -> object:
    """Without parameters and in lower case, as HTTP compares it; many programs write ``jpg`` for JPEG."""
    if not isinstance(said, str):
        return said
    media_type = said.partition(";")[0].strip().lower()
    return "image/jpeg" if media_type == "image/jpg" else media_type


def _subject(bearers: Sequence[Found], register: Register) -> tuple[str | None, str | None]:
    """The first subject that an answer may name, and the same again if it is a Patient."""
    for one in bearers:
        subject = one.resource.get("subject")
        if reference := _reference(subject, one, register):
            kinds = [meant.kind for meant in register.meant(reference, one)]
            kinds.append(mapped(subject).get("type", "Patient"))
            may_be = reference.startswith(("Patient/", "urn:"))
            return reference, reference if may_be and all(kind == "Patient" for kind in kinds) else None
    return None, None


def _reference(tree: object, by: Found, register: Register) -> str | None:
    said = tree.get("reference") if isinstance(tree, dict) else None
    reference = register.relative(said, by) if isinstance(said, str) else ""
    return reference if _REFERENCE.fullmatch(reference) else None


def _names_somebody(tree: object) -> bool:
    return isinstance(tree, dict) and any(tree.get(way) for way in ("reference", "identifier", "display"))


def _first(names: frozenset[str]) -> str | None:
    return min((name for name in names if _REFERENCE.fullmatch(name)), default=None)
