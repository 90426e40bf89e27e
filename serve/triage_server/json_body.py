"""JSON from untrusted senders: limits before parsing, strict parsing, refusals that name fields.

Imports pydantic, the intake and the wire. Base64 has none of the characters that separate JSON values, so
their count limits how large a parsed body can get, however long its photographs are.
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
"""Bytes in memory for each byte of the body: body, text, strings and photographs together. One character
beyond Latin-1 makes every character of a Python string four bytes wide."""
_WHITE_SPACE = b" \t\r\n"

Shape = TypeVar("Shape", bound=BaseModel)


def further_memory(body: bytes) -> int:
    """Bytes that parsing a body may take beside the body itself."""
    wide = not body.isascii() or b"\\u" in body
    return len(body) * ((WIDE if wide else NARROW) - 1)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        RequestError: not an object, too deep, too many values, or a duplicate key.
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
    """A part of a parsed body, validated as ``shape``.

    Raises:
        RequestError: it is invalid. Names our fields, and nothing that was sent.
    """
    try:
        return shape.model_validate(tree)
    except ValidationError as error:
        known = _names(shape)
        places = {_place(problem["loc"], known) for problem in error.errors(include_input=False)}
        raise RequestError("document_not_valid", fields=", ".join(sorted(places)[:8])) from None


def picture(text: object, index: int, *, spaced: bool = False) -> bytes:
    """The bytes of photograph ``index``, sent in base64.

    Args:
        text: as in the body.
        index: of the photograph, from 0.
        spaced: whether white space is allowed.

    Raises:
        RequestError: it is not valid base64.
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
    """The history inside a parsed body; absent or null: an empty one.

    Raises:
        RequestError: it is not valid.
    """
    return NO_HISTORY if tree is None else history_of(json.dumps(tree, ensure_ascii=True).encode())


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a duplicate key: which value counts would be a guess")
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


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
    """Names of all its fields, nested ones included."""
    schema = shape.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for part in parts for name in part.get("properties", {}))


def _place(steps: tuple[int | str, ...], known: frozenset[str]) -> str:
    if any(isinstance(step, str) and step not in known for step in steps):
        return "an unknown field"
    return ".".join(str(step) for step in steps) or "not a JSON object"


def _not_valid() -> RequestError:
    return RequestError("json_not_valid")
