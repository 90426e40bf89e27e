"""Resources of FHIR R4 as they were sent: taken out of a Bundle or Parameters, and their references resolved.

Imports the problems. References are resolved as FHIR says: a relative one is on the server of the resource
that holds it, one with ``#`` inside that resource.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triage_server.problems import RequestError

Resource = Mapping[str, Any]

_RELATIVE = re.compile(r"[A-Za-z]{1,64}/[A-Za-z0-9.-]{1,64}")
_ABSOLUTE_URL = re.compile(r"(https?://.+)/([A-Za-z]{1,64})/[A-Za-z0-9.-]{1,64}")
MAX_ADDRESS_LENGTH = 2_048
"""Characters of a ``fullUrl``, of a server's address and of a reference. The address is kept with every
reference read from there, so a long one would cost its length many times over."""


@dataclass(frozen=True, slots=True)
class SentResource:
    """One resource and how others refer to it."""

    resource: Resource
    names: frozenset[str]
    server: str | None = None
    """Address of its server, from its ``fullUrl``; None if that does not say."""
    container: SentResource | None = None
    """The resource that contains it; None: it is not contained."""

    @property
    def resource_type(self) -> str:
        """Its resource type."""
        return str(self.resource.get("resourceType"))

    def may_be_version(self, version: str) -> bool:
        """Whether it may be this version of itself: it is, or it states none. Empty: any version will do."""
        meta = self.resource.get("meta")
        version_id = meta.get("versionId") if isinstance(meta, dict) else None
        return not version or version_id is None or version_id == version


class ReferenceResolver:
    """Resolves references to resources."""

    def __init__(self, found: Sequence[SentResource], server: str | None = None) -> None:
        """Register all resources.

        Args:
            found: all that were sent.
            server: of resources that do not name theirs; None: the server of all others, if it is only one.

        Raises:
            RequestError: a name is too long.
        """
        servers = {one.server for one in found if one.server}
        self._server = server.rstrip("/") if server else servers.pop() if len(servers) == 1 else None
        self._by_name: dict[Hashable, list[SentResource]] = {}
        for one in found:
            # ``fullUrl`` and ``Type/id`` are often one name; the resource is registered under it once.
            for name in {self._absolute(name, one) for name in one.names}:
                self._by_name.setdefault(name, []).append(one)

    def resolve(self, reference: str, referrer: SentResource | None = None) -> list[SentResource]:
        """The resources that a reference means.

        Args:
            reference: as written in a resource.
            referrer: that resource; None: it is not from a resource.

        Raises:
            RequestError: the reference is too long.
        """
        name, _, version = reference.partition("/_history/")
        found = self._by_name.get(self._absolute(name, referrer), [])
        return [one for one in found if one.may_be_version(version)]

    def relative(self, reference: str, referrer: SentResource) -> str:
        """The reference without the address of the server of ``referrer``, if it begins with that."""
        server = referrer.server or self._server
        return reference.removeprefix(f"{server}/") if server else reference

    def identity_key(self, reference: str, referrer: SentResource | None = None) -> Hashable:
        """Equal for two references that certainly mean the same; arguments and errors as for ``resolve``."""
        targets = self.resolve(reference, referrer)
        is_unambiguous = bool(targets) and all(one == targets[0] for one in targets)
        return id(targets[0].resource) if is_unambiguous else self._absolute(reference, referrer)

    def _absolute(self, reference: str, referrer: SentResource | None) -> Hashable:
        _check_length(reference)
        if reference.startswith("#"):
            return id((referrer.container or referrer).resource) if referrer else 0, reference
        if reference.startswith("urn:"):
            return reference.lower()
        server = (referrer and referrer.server) or self._server
        return f"{server}/{reference}" if server and _RELATIVE.fullmatch(reference) else reference


def parse_resources(tree: Resource, requested_count: int | None = None) -> list[SentResource]:
    """The resources of a Bundle or Parameters, contained ones included.

    Args:
        tree: as sent.
        requested_count: most resources that a search was to return; None: all.

    Raises:
        RequestError: it is neither, is only part of a search's result, or has a modifier.
    """
    refuse_modifiers(tree)
    match tree.get("resourceType"):
        case "Bundle":
            _check_complete(tree, requested_count)
            return [one for entry in list_member(tree, "entry") for one in _entry_resources(as_object(entry))]
        case "Parameters":
            parts = list_member(tree, "parameter")
            return [one for part in parts for one in _parameter_resources(as_object(part))]
        case _:
            raise invalid_document("resourceType: expected a Bundle or Parameters")


def refuse_modifiers(tree: Resource) -> None:
    """Refuse modifiers at any depth: FHIR forbids to go on without understanding them.

    Resources inside this one are not searched, since some of them are not read at all.

    Raises:
        RequestError: there is one.
    """
    nodes: list[Any] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            if node.get("modifierExtension") or node.get("implicitRules"):
                raise invalid_document("modifierExtension or implicitRules")
            nodes += [value for name, value in node.items() if name not in ("resource", "contained")]


def _check_complete(bundle: Resource, requested_count: int | None) -> None:
    """Refuse part of a search's result: what is on the next page would count as never said."""
    if bundle.get("type") in ("document", "message"):
        # Its first entry, a Composition or a MessageHeader, says what all of it means.
        raise invalid_document("Bundle.type: documents and messages are not supported; send a collection")
    entries = [as_object(entry) for entry in list_member(bundle, "entry")]
    matches = [one for one in entries if as_object(one.get("search") or {}).get("mode") in ("match", None)]
    total = bundle.get("total")
    if total is not None and type(total) is not int:
        raise invalid_document("Bundle.total: expected a whole number")
    has_next_page = any(as_object(link).get("relation") == "next" for link in list_member(bundle, "link"))
    if (has_next_page or (total or 0) > len(matches)) and len(matches) != requested_count:
        raise invalid_document("Bundle: an incomplete search result; send all of it")


def _entry_resources(entry: Resource) -> Iterator[SentResource]:
    if entry.get("resource") is None:
        raise invalid_document(
            "Bundle.entry without a resource, such as a deletion; send only entries with one"
        )
    yield from _with_contained(entry["resource"], entry.get("fullUrl"))


def _parameter_resources(part: Resource) -> Iterator[SentResource]:
    resource = part.get("resource")
    if not part.keys() <= {"name", "resource", "id", "extension"}:
        raise invalid_document("parameter: expected a resource and nothing else")
    if isinstance(resource, dict) and resource.get("resourceType") == "Bundle":
        yield from parse_resources(resource)
    elif resource is not None:
        yield from _with_contained(resource, None)
    else:
        raise invalid_document("parameter.resource")


def _with_contained(resource: object, full_url: object) -> Iterator[SentResource]:
    tree = as_object(resource)
    if isinstance(full_url, str):
        _check_length(full_url)
    names = {full_url} if isinstance(full_url, str) else set()
    if isinstance(tree.get("id"), str):
        names.add(f"{tree.get('resourceType')}/{tree['id']}")
    match = _ABSOLUTE_URL.fullmatch(full_url) if isinstance(full_url, str) else None
    server = match[1] if match and match[2] == tree.get("resourceType") else None
    container = SentResource(tree, frozenset(names), server)
    yield container
    for inner in list_member(tree, "contained"):
        inner_tree = as_object(inner)
        if inner_tree.get("contained"):
            raise invalid_document("contained inside contained")
        yield SentResource(inner_tree, frozenset({f"#{inner_tree.get('id')}"}), server, container)


def _check_length(address: str) -> None:
    if len(address) > MAX_ADDRESS_LENGTH:
        raise invalid_document(f"fullUrl or a reference: more than {MAX_ADDRESS_LENGTH:,} characters")


def list_member(tree: Resource, name: str) -> list[Any]:
    """A member that is a list; empty if it is absent.

    Raises:
        RequestError: it is not a list.
    """
    value = tree.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid_document(f"{name}: expected a list")
    return value


def as_object(value: object) -> Resource:
    """A value that is an object.

    Raises:
        RequestError: it is not an object.
    """
    if not isinstance(value, dict):
        raise invalid_document("an object was expected")
    return value


def invalid_document(fields: str) -> RequestError:
    """The refusal of a malformed document; ``fields`` are our words, never the sender's."""
    return RequestError("document_not_valid", fields=fields)
