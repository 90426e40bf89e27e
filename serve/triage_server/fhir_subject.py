"""Checks that resources of FHIR R4 concern one person. Imports the resources.

Photographs of two people would make one case that is nobody's. So the subjects are compared, and whatever
cannot be shown to be the same person counts as another.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from triage_server.fhir_resources import Found, Register, mapped, refusal


@dataclass(frozen=True, slots=True)
class _Person:
    """What one subject says about who it is."""

    reference: Hashable = None
    identifier: tuple[str, str] | None = None
    """System and value."""

    @property
    def marks(self) -> set[Hashable]:
        """Two subjects that share one of these are one person. A name is none: two people may share it."""
        said = {"reference": self.reference, "identifier": self.identifier}
        return {(way, mark) for way, mark in said.items() if mark is not None}


def check_one_person(bearers: Sequence[Found], register: Register, patient: str | None = None) -> None:
    """Refuse resources unless they can be shown to concern one person.

    Args:
        bearers: resources with or without a subject; one without says nothing.
        register: of all resources.
        patient: reference to the person they must concern; None: anyone.

    Raises:
        RequestError: they concern several people, or it cannot be decided.
    """
    people = [
        _person(one.resource["subject"], one, register)
        for one in bearers
        if one.resource.get("subject") is not None
    ]
    if patient is not None:
        people.append(_Person(reference=register.identity(patient)))
    references = {one.reference for one in people} - {None}
    identifiers = {one.identifier for one in people if one.identifier}
    systems = {system for system, _ in identifiers}
    if len(references) > 1 or len(systems) < len(identifiers) or not _joined([one.marks for one in people]):
        raise refusal("subject: the resources concern several people, or nothing shows that they concern one")


def _person(subject: object, by: Found, register: Register) -> _Person:
    if not isinstance(subject, dict):
        raise refusal("subject: expected a reference or an identifier")
    reference, identifier = subject.get("reference"), subject.get("identifier")
    said = mapped(identifier).get("value") if identifier is not None else None
    if reference is None and said is None:
        return _Person()
    if not isinstance(reference, str | None) or not isinstance(said, str | None):
        raise refusal("subject: expected a reference or an identifier")
    return _Person(
        None if reference is None else register.identity(reference.partition("/_history/")[0], by),
        None if said is None else (str(mapped(identifier).get("system")), said),
    )


def _joined(people: Sequence[set[Hashable]]) -> bool:
    """Whether all are connected, directly or through others, by shared marks."""
    marks: set[Hashable] = set().union(*people[:1])
    apart = list(people[1:])
    while near := [one for one in apart if marks & one]:
        marks.update(*near)
        apart = [one for one in apart if not marks & one]
    return not apart
