"""Reading what a browser sends: photographs and short fields; bounded, and in memory.

Imports python-multipart, the bundle's limits and the wire. A file's name is looked at only to tell an empty
choice from an empty file, and goes nowhere.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.wire import MULTIPART_TYPE, RequestError

SHORT_BYTES = 65_536
"""A form without photographs."""
_MOST_FIELDS = 64
_FIELD_BYTES = 16_384
TOKEN = "form_token"  # noqa: S105 - the name of a field


@dataclass(frozen=True)
class Sent:
    """A form."""

    fields: dict[str, str] = field(default_factory=dict)
    images: list[bytes] = field(default_factory=list)

    def get(self, name: str) -> str:
        """A field without the space around it; empty if it was not sent."""
        return self.fields.get(name, "").strip()


async def read_form(request: Request, max_body_bytes: int, take: Callable[[int], None]) -> Sent:
    """A form, whichever way the browser wrote it.

    Args:
        request: whose body has not been touched.
        max_body_bytes: of the whole form, whether its length was announced or not.
        take: told of every chunk before it is kept; may raise.

    Raises:
        RequestError: it is too long, broken, or no form.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise RequestError("body_too_large", limit=max_body_bytes)
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    chunks = _chunks(request, max_body_bytes, take)
    if media_type == b"application/x-www-form-urlencoded":
        async with aclosing(chunks):
            body = b"".join([chunk async for chunk in chunks])
        return _short(body)
    if media_type != MULTIPART_TYPE.encode():
        raise RequestError("request_not_valid")
    parts = _Parts()
    try:
        parser = MultipartParser(parameters.get(b"boundary", b""), parts.callbacks())  # type: ignore[arg-type]
        async with aclosing(chunks):
            async for chunk in chunks:
                parser.write(chunk)
    except FormParserError:
        raise RequestError("multipart_not_valid") from None
    return parts.sent()


def _short(body: bytes) -> Sent:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise RequestError("request_not_valid") from None
    if len(dict(pairs)) < len(pairs):
        raise RequestError("request_not_valid")
    return Sent(dict(pairs))


async def _chunks(request: Request, limit: int, take: Callable[[int], None]) -> AsyncGenerator[bytes]:
    received = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > limit:
                raise RequestError("body_too_large", limit=limit)
            take(len(chunk))
            yield chunk


class _Parts:
    """Collects the parts of a form."""

    def __init__(self) -> None:
        self._images: list[bytearray] = []
        self._fields: dict[str, bytearray] = {}
        self._header, self._value = bytearray(), bytearray()
        self._options: dict[bytes, bytes] = {}
        self._part = bytearray()
        self._unchosen: list[bytearray] = []
        self._whole = False

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """For the parser."""
        names = ("part_begin", "header_begin", "header_field", "header_value", "header_end")
        more = ("headers_finished", "part_data", "end")
        return {f"on_{name}": getattr(self, f"_{name}") for name in (*names, *more)}

    def sent(self) -> Sent:
        """The form, once all of it has come."""
        if not self._whole:
            raise RequestError("multipart_not_valid")
        try:
            fields = {name: bytes(value).decode() for name, value in self._fields.items()}
        except UnicodeDecodeError:
            raise RequestError("request_not_valid") from None
        unchosen = {id(part) for part in self._unchosen if not part}
        return Sent(fields, [bytes(image) for image in self._images if id(image) not in unchosen])

    def _part_begin(self) -> None:
        self._options = {}

    def _header_begin(self) -> None:
        self._header, self._value = bytearray(), bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._options = parse_options_header(bytes(self._value))[1]

    def _headers_finished(self) -> None:
        self._part = bytearray()
        name = self._options.get(b"name", b"").decode("utf-8", "replace")
        if name == "image":
            if len(self._images) == MAX_IMAGES_PER_CASE:
                raise RequestError("too_many_images")
            self._images.append(self._part)
            if not self._options.get(b"filename"):
                self._unchosen.append(self._part)
        elif not name or name in self._fields or len(self._fields) == _MOST_FIELDS:
            raise RequestError("request_not_valid")
        else:
            self._fields[name] = self._part

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        if len(self._part) > _FIELD_BYTES and not any(self._part is image for image in self._images):
            raise RequestError("request_not_valid")

    def _end(self) -> None:
        self._whole = True
