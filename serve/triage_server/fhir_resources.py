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
_ON_A_SERVER = re.compile(r"(https?://.+)/([A-Za-z]{1,64})/[A-Za-z0-9.-]{1,64}")
_MOST_RESOURCES = 256
LONGEST_ADDRESS = 2_048
"""Characters of a ``fullUrl``, of a server's address and of a reference. The address is kept with every
reference read from there, so a long one would cost its length many times over."""


@dataclass(frozen=True, slots=True)
class Found:
    """One resource and how others refer to it."""

    resource: Resource
    names: frozenset[str]
    server: str | None = None
    """Address of its server, from its ``fullUrl``; None if that does not say."""
    holder: Found | None = None
    """The resource that contains it; None: it is not contained."""

    @property
    def kind(self) -> str:
        """Its resource type."""
        return str(self.resource.get("resourceType"))

    def may_be_version(self, version: str) -> bool:
        """Whether it may be this version of itself: it is, or it states none. Empty: any version will do."""
        meta = self.resource.get("meta")
        said = meta.get("versionId") if isinstance(meta, dict) else None
        return not version or said is None or said == version


class Register:
    """Resolves references to resources."""

    def __init__(self, found: Sequence[Found], server: str | None = None) -> None:
        """Register all resources.

        Args:
            found: all that were sent.
            server: of resources that do not name theirs; None: the server of all others, if it is only one.

        Raises:
            RequestError: a name is too long.
        """
        servers = {one.server for one in found if one.server}
        self._server = server.rstrip("/") if server else servers.pop() if len(servers) == 1 else None
        self._by_name: dict[Hashable, list[Found]] = {}
        for one in found:
            # ``fullUrl`` and ``Type/id`` are often one name; the resource is registered under it once.
            for name in {self._whole(name, one) for name in one.names}:
                self._by_name.setdefault(name, []).append(one)

    def meant(self, reference: str, by: Found | None = None) -> list[Found]:
        """The resources that a reference means.

        Args:
            reference: as written in a resource.
            by: that resource; None: it is not from a resource.

        Raises:
            RequestError: the reference is too long.
        """
        name, _, version = reference.partition("/_history/")
        found = self._by_name.get(self._whole(name, by), [])
        return [one for one in found if one.may_be_version(version)]

    def relative(self, reference: str, by: Found) -> str:
        """The reference without the address of the server of ``by``, if it begins with that."""
        server = by.server or self._server
        return reference.removeprefix(f"{server}/") if server else reference

    def identity(self, reference: str, by: Found | None = None) -> Hashable:
        """Equal for two references that certainly mean the same; arguments and errors as for ``meant``."""
        meant = self.meant(reference, by)
        one_alone = bool(meant) and all(one == meant[0] for one in meant)
        return id(meant[0].resource) if one_alone else self._whole(reference, by)

    def _whole(self, reference: str, by: Found | None) -> Hashable:
        _check_length(reference)
        if reference.startswith("#"):
            return id((by.holder or by).resource) if by else 0, reference
        if reference.startswith("urn:"):
            return reference.lower()
        server = (by and by.server) or self._server
        return f"{server}/{reference}" if server and _RELATIVE.fullmatch(reference) else reference


def resources_in(tree: Resource, asked: int | None = None) -> list[Found]:
    """The resources of a Bundle or Parameters, contained ones included.

    Args:
        tree: as sent.
        asked: most resources that a search was to return; None: all.

    Raises:
        RequestError: it is neither, has too many resources, is only part of a search's result, or has a
            modifier.
    """
    check_unmodified(tree)
    match tree.get("resourceType"):
        case "Bundle":
            _check_whole(tree, asked)
            found = [one for entry in listed(tree, "entry") for one in _of_entry(mapped(entry))]
        case "Parameters":
            found = [one for part in listed(tree, "parameter") for one in _of_parameter(mapped(part))]
        case _:
            raise refusal("resourceType: expected a Bundle or Parameters")
    if len(found) > _MOST_RESOURCES:
        raise refusal(f"more than {_MOST_RESOURCES} resources")
    return found


def check_unmodified(tree: Resource) -> None:
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
                raise refusal("modifierExtension or implicitRules")
            nodes += [value for name, value in node.items() if name not in ("resource", "contained")]


def _check_whole(bundle: Resource, asked: int | None) -> None:
    """Refuse part of a search's result: what is on the next page would count as never said."""
    if bundle.get("type") in ("document", "message"):
        # Its first entry, a Composition or a MessageHeader, says what all of it means.
        raise refusal("Bundle.type: documents and messages are not supported; send a collection")
    entries = [mapped(entry) for entry in listed(bundle, "entry")]
    matches = [one for one in entries if mapped(one.get("search") or {}).get("mode") in ("match", None)]
    total = bundle.get("total")
    if total is not None and type(total) is not int:
        raise refusal("Bundle.total: expected a whole number")
    goes_on = any(mapped(link).get("relation") == "next" for link in listed(bundle, "link"))
    if (goes_on or (total or 0) > len(matches)) and len(matches) != asked:
        raise refusal("Bundle: an incomplete search result; send all of it")


def _of_entry(entry: Resource) -> Iterator[Found]:
    if entry.get("resource") is None:
        raise refusal("Bundle.entry without a resource, such as a deletion; send only entries with one")
    yield from _with_contained(entry["resource"], entry.get("fullUrl"))


def _of_parameter(part: Resource) -> Iterator[Found]:
    resource = part.get("resource")
    if not part.keys() <= {"name", "resource", "id", "extension"}:
        raise refusal("parameter: expected a resource and nothing else")
    if isinstance(resource, dict) and resource.get("resourceType") == "Bundle":
        yield from resources_in(resource)
    elif resource is not None:
        yield from _with_contained(resource, None)
    else:
        raise refusal("parameter.resource")


def _with_contained(resource: object, full_url: object) -> Iterator[Found]:
    tree = mapped(resource)
    if isinstance(full_url, str):
        _check_length(full_url)
    names = {full_url} if isinstance(full_url, str) else set()
    if isinstance(tree.get("id"), str):
        names.add(f"{tree.get('resourceType')}/{tree['id']}")
    place = _ON_A_SERVER.fullmatch(full_url) if isinstance(full_url, str) else None
    server = place[1] if place and place[2] == tree.get("resourceType") else None
    holder = Found(tree, frozenset(names), server)
    yield holder
    for inner in listed(tree, "contained"):
        inner_tree = mapped(inner)
        if inner_tree.get("contained"):
            raise refusal("contained inside contained")
        yield Found(inner_tree, frozenset({f"#{inner_tree.get('id')}"}), server, holder)


def _check_length(address: str) -> None:
    if len(address) > LONGEST_ADDRESS:
        raise refusal(f"fullUrl or a reference: more than {LONGEST_ADDRESS:,} characters")


def listed(tree: Resource, name: str) -> list[Any]:
    """A member that is a list; empty if it is absent.

    Raises:
        RequestError: it is not a list.
    """
    value = tree.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise refusal(f"{name}: expected a list")
    return value


def mapped(value: object) -> Resource:
    """A value that is an object.

    Raises:
        RequestError: it is not an object.
    """
    if not isinstance(value, dict):
        raise refusal("an object was expected")
    return value


def refusal(fields: str) -> RequestError:
    """The refusal of a malformed document; ``fields`` are our words, never the sender's."""
    return RequestError("document_not_valid", fields=fields)
