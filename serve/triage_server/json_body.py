"""JSON that strangers send: bounded before it is read, strict while it is read, named by field when refused.

Imports pydantic, the intake and the wire. Base64 holds none of the characters that separate JSON's values, so
a count of those bounds what a body can grow to, however long its photographs are.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lesion_triage.bundle.history import NO_HISTORY, History
from triage_server.intake import history_of
from triage_server.problems import RequestError
from triage_server.wire import MAX_JSON_DEPTH, MAX_JSON_VALUES

NARROW, WIDE = 4, 9
"""Bytes in memory for one of the body: it, its text, its strings and the photographs in them at once. One
letter from beyond Latin-1 makes each letter of a text four bytes wide."""
_WHITE_SPACE = b" \t\r\n"

Shape = TypeVar("Shape", bound=BaseModel)


def further_memory(body: bytes) -> int:
    """Bytes that reading a body may take beside the body itself."""
    wide = not body.isascii() or b"\\u" in body
    return len(body) * ((WIDE if wide else NARROW) - 1)


def parse(body: bytes) -> dict[str, Any]:
    """The object that a body is.

    Raises:
        RequestError: it is none, is too deep or too rich, or holds a key twice.
    """
    if sum(body.count(mark) for mark in b",:[{") > MAX_JSON_VALUES:
        raise _not_valid()
    try:
        tree = json.loads(body.decode("utf-8"), object_pairs_hook=_once_each, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _not_valid() from None
    if not isinstance(tree, dict) or _depth(tree) > MAX_JSON_DEPTH:
        raise _not_valid()
    return tree


def shaped(shape: type[Shape], tree: object) -> Shape:
    """A part of a parsed body as a document.

    Raises:
        RequestError: it is of another shape. Names our fields, and nothing that was sent.
    """
    try:
        return shape.model_validate(tree)
    except ValidationError as error:
        known = _names(shape)
        places = {_place(problem["loc"], known) for problem in error.errors(include_input=False)}
        raise RequestError("document_not_valid", fields=", ".join(sorted(places)[:8])) from None


def picture(text: object, index: int, *, spaced: bool = False) -> bytes:
    """The bytes of photograph ``index``, which came in base64.

    Args:
        text: as it stands in the body.
        index: of the photograph.
        spaced: there may be white space in it.

    Raises:
        RequestError: it did not.
    """
    try:
        if not isinstance(text, str):
            raise TypeError
        data = text.encode("ascii")
        if spaced:
            data = data.translate(None, _WHITE_SPACE)
        return binascii.a2b_base64(data, strict_mode=True)
    except (TypeError, ValueError):
        raise RequestError("base64_not_valid", index=index) from None


def history_in(tree: Mapping[str, object] | None) -> History:
    """The history that stands inside a parsed body; absent and null are none.

    Raises:
        RequestError: it is not valid.
    """
    return NO_HISTORY if tree is None else history_of(json.dumps(tree, ensure_ascii=True).encode())


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice: which of the two counts would be anybody's guess")
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _depth(tree: object) -> int:
    level, depth = [tree], 0
    while level:
        depth += 1
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
        ]
    return depth


@cache
def _names(shape: type[BaseModel]) -> frozenset[str]:
    """Of all its fields, and of those inside them."""
    schema = shape.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for part in parts for name in part.get("properties", {}))


def _place(steps: tuple[int | str, ...], known: frozenset[str]) -> str:
    if any(isinstance(step, str) and step not in known for step in steps):
        return "a field that is not known"
    return ".".join(str(step) for step in steps) or "no JSON object"


def _not_valid() -> RequestError:
    return RequestError("json_not_valid")
