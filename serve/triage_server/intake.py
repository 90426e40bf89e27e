"""Reading the case in a request: photographs and at most one history; bounded, and in memory.

Imports the wire and the bundle; no byte of a body is ever written to a disk here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from lesion_triage.bundle.history import NO_HISTORY, History
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.wire import MAX_HISTORY_BYTES, RequestError

_IDEMPOTENCY_KEY = re.compile(r"[A-Za-z0-9._-]{16,64}")


def check_announcement(request: Request, media_types: Collection[str], max_body_bytes: int) -> None:
    """Refuse by the headers alone what need not be read.

    Raises:
        RequestError: another media type than ``media_types``, or an announced length beyond the limit.
    """
    if media_type_of(request) not in media_types:
        raise RequestError("media_type_not_supported")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise RequestError("body_too_large", limit=max_body_bytes)


def idempotency_key(request: Request) -> str | None:
    """The word under which a client may send the same case again and get the same answer; None: not said.

    Raises:
        RequestError: of another form, or said twice.
    """
    said = request.headers.getlist("idempotency-key")
    if not said:
        return None
    if len(said) > 1 or not _IDEMPOTENCY_KEY.fullmatch(said[0]):
        raise RequestError("idempotency_key_not_valid")
    return said[0]


@dataclass(frozen=True, slots=True)
class SentCase:
    """What a platform sent."""

    images: list[bytes]
    """In the order sent, each byte for byte as sent."""
    history: History


def check_number(photographs: int) -> None:
    """Refuse a case of no photograph or of too many.

    Raises:
        RequestError: it is one.
    """
    if not photographs:
        raise RequestError("no_image")
    if photographs > MAX_IMAGES_PER_CASE:
        raise RequestError("too_many_images")


async def read_body(request: Request, *, max_body_bytes: int, take: Callable[[int], None]) -> bytes:
    """The whole body.

    Args:
        request: whose headers ``check_announcement`` has let pass.
        max_body_bytes: holds for chunked bodies too, which announce no length.
        take: told of every chunk before it is kept; may raise.

    Raises:
        RequestError: the body is too long.
    """
    chunks = _chunks(request, max_body_bytes, take)
    async with aclosing(chunks):
        return b"".join([chunk async for chunk in chunks])


async def read_form(request: Request, *, max_body_bytes: int, take: Callable[[int], None]) -> SentCase:
    """The photographs of one case, and its history if there is one, from a form; arguments as above.

    Raises:
        RequestError: the body is too long, the form is broken, or it holds anything else.
    """
    parameters = parse_options_header(request.headers.get("content-type", ""))[1]
    chunks = _chunks(request, max_body_bytes, take)
    form = _Form()
    try:
        parser = MultipartParser(
            parameters.get(b"boundary", b""),
            {
                "on_part_begin": form.on_part_begin,
                "on_header_begin": form.on_header_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_headers_finished": form.on_headers_finished,
                "on_part_data": form.on_part_data,
                "on_end": form.on_end,
            },
        )
        async with aclosing(chunks):
            async for chunk in chunks:
                parser.write(chunk)
    except FormParserError:
        raise RequestError("multipart_not_valid") from None
    return form.case()


class _Form:
    """Collects the parts of a form in memory. File names are never looked at."""

    def __init__(self) -> None:
        self._pictures: list[bytearray] = []
        self._history: bytearray | None = None
        self._part = bytearray()
        self._field = bytearray()
        self._value = bytearray()
        self._name: bytes | None = None
        self._whole = False

    def on_part_begin(self) -> None:
        self._name = None

    def on_header_begin(self) -> None:
        self._field, self._value = bytearray(), bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._name = parse_options_header(bytes(self._value))[1].get(b"name")

    def on_headers_finished(self) -> None:
        self._part = bytearray()
        if self._name == b"history":
            if self._history is not None:
                raise RequestError("history_not_valid", fields="the part stands twice")
            self._history = self._part
        elif self._name != b"image":
            raise RequestError("unknown_part")
        elif len(self._pictures) == MAX_IMAGES_PER_CASE:
            raise RequestError("too_many_images")
        else:
            self._pictures.append(self._part)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        if self._part is self._history and len(self._history) > MAX_HISTORY_BYTES:
            raise RequestError("history_not_valid", fields="its length")

    def on_end(self) -> None:
        self._whole = True

    def case(self) -> SentCase:
        if not self._whole:
            raise RequestError("multipart_not_valid")
        if not self._pictures:
            raise RequestError("no_image")
        history = NO_HISTORY if self._history is None else history_of(bytes(self._history))
        return SentCase([bytes(picture) for picture in self._pictures], history)


def history_of(text: bytes) -> History:
    """The history in a JSON text.

    Raises:
        RequestError: it is none, or too long; names the fields at fault, and never what stands in them.
    """
    if len(text) > MAX_HISTORY_BYTES:
        raise RequestError("history_not_valid", fields="its length")
    try:
        return History.model_validate_json(text)
    except ValidationError as error:
        known = History.model_fields
        found = {str(problem["loc"][0]) if problem["loc"] else "" for problem in error.errors()}
        named = sorted(field for field in found if field in known)
        strange = [] if found <= known.keys() else ["no JSON object, or a field that is not known"]
        raise RequestError("history_not_valid", fields=", ".join([*named, *strange])) from None


async def _chunks(request: Request, limit: int, take: Callable[[int], None]) -> AsyncGenerator[bytes]:
    received = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > limit:
                raise RequestError("body_too_large", limit=limit)
            take(len(chunk))
            yield chunk


def media_type_of(request: Request) -> str:
    """What Content-Type says, without parameters, in small letters; empty if it says nothing."""
    media_type, _ = parse_options_header(request.headers.get("content-type", ""))
    return media_type.decode("latin-1").lower()
