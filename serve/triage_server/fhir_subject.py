"""Checks that resources of FHIR R4 concern one person, and finds their Patient. Imports the resources.

Photographs of two people would make one case that is nobody's. So the subjects are compared, and whatever
cannot be shown to be the same person counts as another.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from triage_server.fhir_resources import (
    ReferenceResolver,
    Resource,
    SentResource,
    as_object,
    invalid_document,
)


@dataclass(frozen=True, slots=True)
class _Person:
    """What one subject says about who it is."""

    reference: Hashable = None
    identifier: tuple[str, str] | None = None
    """System and value."""

    @property
    def identifiers(self) -> set[Hashable]:
        """Two subjects that share one of these are one person. A name is none: two people may share it."""
        said = {"reference": self.reference, "identifier": self.identifier}
        return {(way, mark) for way, mark in said.items() if mark is not None}


def check_same_person(
    resources: Sequence[SentResource], resolver: ReferenceResolver, patient: str | None = None
) -> None:
    """Refuse resources unless they can be shown to concern one person.

    Args:
        resources: resources with or without a subject; one without says nothing.
        resolver: of all resources.
        patient: reference to the person they must concern; None: anyone.

    Raises:
        RequestError: they concern several people, or it cannot be decided.
    """
    people = [
        _person(one.resource["subject"], one, resolver)
        for one in resources
        if one.resource.get("subject") is not None
    ]
    if patient is not None:
        people.append(_Person(reference=resolver.identity_key(patient)))
    references = {one.reference for one in people} - {None}
    identifiers = {one.identifier for one in people if one.identifier}
    systems = {system for system, _ in identifiers}
    if (
        len(references) > 1
        or len(systems) < len(identifiers)
        or not _all_connected([one.identifiers for one in people])
    ):
        raise invalid_document(
            "subject: the resources concern several people, or nothing shows that they concern one"
        )


def referenced_patients(
    resources: Sequence[SentResource], resolver: ReferenceResolver, patient: str | None = None
) -> list[Resource]:
    """The Patients that were sent and that the subjects refer to, in any version; arguments as above.

    One that only an identifier or nothing refers to is not among them.
    """
    found = [] if patient is None else resolver.resolve(patient)
    for one in resources:
        reference = (one.resource.get("subject") or {}).get("reference")
        if reference is not None:
            found += resolver.resolve(reference.partition("/_history/")[0], one)
    patients = [one.resource for one in found if one.resource_type == "Patient"]
    return list({id(one): one for one in patients}.values())


def _person(subject: object, referrer: SentResource, resolver: ReferenceResolver) -> _Person:
    if not isinstance(subject, dict):
        raise invalid_document("subject: expected a reference or an identifier")
    reference, identifier = subject.get("reference"), subject.get("identifier")
    value = as_object(identifier).get("value") if identifier is not None else None
    if reference is None and value is None:
        return _Person()
    if not isinstance(reference, str | None) or not isinstance(value, str | None):
        raise invalid_document("subject: expected a reference or an identifier")
    return _Person(
        None if reference is None else resolver.identity_key(reference.partition("/_history/")[0], referrer),
        None if value is None else (str(as_object(identifier).get("system")), value),
    )


def _all_connected(people: Sequence[set[Hashable]]) -> bool:
    """Whether all are connected, directly or through others, by shared marks."""
    marks: set[Hashable] = set().union(*people[:1])
    unconnected = list(people[1:])
    while connected := [one for one in unconnected if marks & one]:
        marks.update(*connected)
        unconnected = [one for one in unconnected if not marks & one]
    return not unconnected
