"""Whether resources of FHIR R4 are of one person. Imports the resources.

Two photographs of two people make one case that is nobody's. So what a subject says is compared with what the
others say, and what cannot be seen to be the same person is another one.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from triage_server.fhir_resources import Found, Register, mapped, refusal


@dataclass(frozen=True, slots=True)
class _Person:
    """What one subject says of who it is."""

    reference: Hashable = None
    identifier: tuple[str, str] | None = None
    """System and value."""

    @property
    def marks(self) -> set[Hashable]:
        """Two that share one of them are one person. A name is none: two people may have the same."""
        said = {"reference": self.reference, "identifier": self.identifier}
        return {(way, mark) for way, mark in said.items() if mark is not None}


def check_one_person(bearers: Sequence[Found], register: Register, patient: str | None = None) -> None:
    """Refuse what is not, as far as can be seen, of one person.

    Args:
        bearers: resources with or without a subject; one without says nothing.
        register: of all resources.
        patient: reference to the one that they have to be of; None: that is open.

    Raises:
        RequestError: they are of several people, or it cannot be told.
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
        raise refusal("subject: the resources are of several people, or not to be seen to be of one")


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
    """Whether each shares a mark with another, and so all with all."""
    marks: set[Hashable] = set().union(*people[:1])
    apart = list(people[1:])
    while near := [one for one in apart if marks & one]:
        marks.update(*near)
        apart = [one for one in apart if not marks & one]
    return not apart
