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
from triage_server.intake import parse_history_json
from triage_server.problems import RequestError
from triage_server.wire import MAX_JSON_DEPTH, MAX_JSON_VALUES

NARROW_MEMORY_FACTOR, WIDE_MEMORY_FACTOR = 4, 9
"""Bytes in memory for each byte of the body: body, text, strings and photographs together. One character
beyond Latin-1 makes every character of a Python string four bytes wide."""
_WHITE_SPACE = b" \t\r\n"

Model = TypeVar("Model", bound=BaseModel)


def parsing_memory_bytes(body: bytes) -> int:
    """Bytes that parsing a body may take beside the body itself."""
    wide = not body.isascii() or b"\\u" in body
    return len(body) * ((WIDE_MEMORY_FACTOR if wide else NARROW_MEMORY_FACTOR) - 1)


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        RequestError: not an object, too deep, too many values, or a duplicate key.
    """
    if sum(body.count(mark) for mark in b",:[{") > MAX_JSON_VALUES:
        raise _invalid_json()
    try:
        tree = json.loads(
            body.decode("utf-8"), object_pairs_hook=_refuse_duplicate_keys, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise _invalid_json() from None
    if not isinstance(tree, dict) or _depth(tree) > MAX_JSON_DEPTH:
        raise _invalid_json()
    return tree


def validate_as(model: type[Model], tree: object) -> Model:
    """A part of a parsed body, validated as ``model``.

    Raises:
        RequestError: it is invalid. Names our fields, and nothing that was sent.
    """
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        known = _field_names(model)
        places = {_field_path(problem["loc"], known) for problem in error.errors(include_input=False)}
        raise RequestError("document_not_valid", fields=", ".join(sorted(places)[:8])) from None


def decode_base64(text: object, index: int, *, allow_white_space: bool = False) -> bytes:
    """The bytes of photograph ``index``, sent in base64.

    Args:
        text: as in the body.
        index: of the photograph, from 0.
        allow_white_space: whether white space is allowed.

    Raises:
        RequestError: it is not valid base64.
    """
    try:
        if not isinstance(text, str):
            raise TypeError
        data = text.encode("ascii")
        if allow_white_space:
            data = data.translate(None, _WHITE_SPACE)
        return binascii.a2b_base64(data, strict_mode=True)
    except (TypeError, ValueError):
        raise RequestError("base64_not_valid", index=index) from None


def parse_history(tree: Mapping[str, object] | None) -> History:
    """The history inside a parsed body; absent or null: an empty one.

    Raises:
        RequestError: it is not valid.
    """
    return NO_HISTORY if tree is None else parse_history_json(json.dumps(tree, ensure_ascii=True).encode())


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a duplicate key: which value counts would be a guess")
    return found


def _refuse_constant(word: str) -> None:
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
def _field_names(model: type[BaseModel]) -> frozenset[str]:
    """Names of all its fields, nested ones included."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for part in parts for name in part.get("properties", {}))


def _field_path(steps: tuple[int | str, ...], known: frozenset[str]) -> str:
    if any(isinstance(step, str) and step not in known for step in steps):
        return "an unknown field"
    return ".".join(str(step) for step in steps) or "not a JSON object"


def _invalid_json() -> RequestError:
    return RequestError("json_not_valid")
