"""Reading the photographs of a request: bounded, in memory, and nothing but photographs.

Imports the wire; no byte of a body is ever written to a disk here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.wire import MULTIPART_TYPE, PICTURE_TYPES, RequestError


def check_announcement(request: Request, max_body_bytes: int) -> None:
    """Refuse by the headers alone what need not be read.

    Raises:
        RequestError: another media type than photographs, or an announced length beyond the limit.
    """
    if _media_type(request)[0] not in (*PICTURE_TYPES, MULTIPART_TYPE):
        raise RequestError("media_type_not_supported")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise RequestError("body_too_large", limit=max_body_bytes)


async def read_photographs(
    request: Request, *, max_body_bytes: int, take: Callable[[int], None]
) -> list[bytes]:
    """The photographs of one case, in the order sent, each byte for byte as sent.

    Args:
        request: whose headers ``check_announcement`` has let pass.
        max_body_bytes: holds for chunked bodies too, which announce no length.
        take: told of every chunk before it is kept; may raise.

    Raises:
        RequestError: the body is too long, the form is broken, or it holds anything but photographs.
    """
    media_type, parameters = _media_type(request)
    chunks = _chunks(request, max_body_bytes, take)
    if media_type != MULTIPART_TYPE:
        async with aclosing(chunks):
            return [b"".join([chunk async for chunk in chunks])]
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
    return form.photographs()


class _Form:
    """Collects the parts of a form in memory. File names are never looked at."""

    def __init__(self) -> None:
        self._pictures: list[bytearray] = []
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
        if self._name != b"image":
            raise RequestError("unknown_part")
        if len(self._pictures) == MAX_IMAGES_PER_CASE:
            raise RequestError("too_many_images")
        self._pictures.append(bytearray())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._pictures[-1] += data[start:end]

    def on_end(self) -> None:
        self._whole = True

    def photographs(self) -> list[bytes]:
        if not self._whole:
            raise RequestError("multipart_not_valid")
        if not self._pictures:
            raise RequestError("no_image")
        return [bytes(picture) for picture in self._pictures]


async def _chunks(request: Request, limit: int, take: Callable[[int], None]) -> AsyncGenerator[bytes]:
    received = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > limit:
                raise RequestError("body_too_large", limit=limit)
            take(len(chunk))
            yield chunk


def _media_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    return media_type.decode("latin-1").lower(), parameters
