"""Reads the case in a request: photographs and at most one history; with limits, and in memory.

Imports the wire and the bundle; no byte of a body is written to disk here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from lesion_triage.bundle.history import NO_HISTORY, History, history_from_json
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.multipart import read_chunks, read_parts
from triage_server.problems import RequestError
from triage_server.wire import MAX_HISTORY_BYTES

_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._-]{16,64}")


def check_headers(request: Request, media_types: Collection[str], max_body_bytes: int) -> None:
    """Refuse by the headers alone what need not be read.

    Raises:
        RequestError: a media type not in ``media_types``, a compressed body, or an announced length above
            the limit.
    """
    if media_type_of(request) not in media_types:
        raise RequestError("media_type_not_supported")
    encodings = request.headers.getlist("content-encoding")
    if any(one.strip().lower() not in ("", "identity") for one in encodings):
        raise RequestError("content_encoding_not_supported", headers={"Accept-Encoding": "identity"})
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise RequestError("body_too_large", limit=max_body_bytes)


def parse_idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key: the same case under the same key gets the same answer. None: not sent.

    Raises:
        RequestError: malformed, or sent twice.
    """
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    if len(values) > 1 or not _IDEMPOTENCY_KEY.fullmatch(values[0]):
        raise RequestError("idempotency_key_not_valid")
    return values[0]


@dataclass(frozen=True, slots=True)
class SentCase:
    """A case as a platform sent it."""

    images: list[bytes]
    """In the order sent, each byte for byte."""
    history: History


def check_photograph_count(photographs: int) -> None:
    """Refuse a case with no photograph or too many.

    Raises:
        RequestError: it has.
    """
    if not photographs:
        raise RequestError("no_image")
    if photographs > MAX_IMAGES_PER_CASE:
        raise RequestError("too_many_images")


async def read_body(request: Request, *, max_body_bytes: int, reserve: Callable[[int], None]) -> bytes:
    """The whole body.

    Args:
        request: that has passed ``check_headers``.
        max_body_bytes: also limits chunked bodies, which announce no length.
        reserve: called with the size of every chunk before it is kept; may raise.

    Raises:
        RequestError: the body is too long.
    """
    chunks = read_chunks(request, max_body_bytes, reserve)
    async with aclosing(chunks):
        return b"".join([chunk async for chunk in chunks])


async def read_form(request: Request, *, max_body_bytes: int, reserve: Callable[[int], None]) -> SentCase:
    """The photographs of one case, and its history if there is one, from a form; arguments as above.

    Raises:
        RequestError: the body is too long, the form is broken, or it has any other part.
    """
    form = _CaseForm()
    await read_parts(request, max_body_bytes, reserve, form)
    return form.case()


class _CaseForm:
    """The parts of a case. File names are not read."""

    def __init__(self) -> None:
        self._pictures: list[bytearray] = []
        self._history: bytearray | None = None

    def begin(self, options: Mapping[bytes, bytes]) -> bytearray:
        part, name = bytearray(), options.get(b"name")
        if name == b"history":
            if self._history is not None:
                raise RequestError("history_not_valid", fields="more than one part named 'history'")
            self._history = part
        elif name != b"image":
            raise RequestError("unknown_part")
        elif len(self._pictures) == MAX_IMAGES_PER_CASE:
            raise RequestError("too_many_images")
        else:
            self._pictures.append(part)
        return part

    def check(self, part: bytearray) -> None:
        if part is self._history and len(part) > MAX_HISTORY_BYTES:
            raise RequestError("history_not_valid", fields="its length")

    def case(self) -> SentCase:
        if not self._pictures:
            raise RequestError("no_image")
        history = NO_HISTORY if self._history is None else parse_history_json(bytes(self._history))
        images = []
        while self._pictures:  # one at a time: all at once would be in memory twice
            images.append(bytes(self._pictures.pop(0)))
        return SentCase(images, history)


def parse_history_json(text: bytes) -> History:
    """The history in a JSON text.

    Raises:
        RequestError: invalid or too long; names the fields at fault, never their values.
    """
    if len(text) > MAX_HISTORY_BYTES:
        raise RequestError("history_not_valid", fields="its length")
    try:
        return history_from_json(text)
    except ValidationError as error:
        known = History.model_fields
        found = {str(problem["loc"][0]) if problem["loc"] else "" for problem in error.errors()}
        named = sorted(field for field in found if field in known)
        unknown = [] if found <= known.keys() else ["not a JSON object, or an unknown field"]
        raise RequestError("history_not_valid", fields=", ".join([*named, *unknown])) from None


def media_type_of(request: Request) -> str:
    """The media type in Content-Type, in lower case and without parameters; empty if there is none."""
    media_type, _ = parse_options_header(request.headers.get("content-type", ""))
    return media_type.decode("latin-1").lower()
