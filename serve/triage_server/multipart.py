"""Request bodies and the parts of forms, read in bounded memory. Imports python-multipart and the problems.

The caller decides which parts are allowed. What the sender calls a part is told to the caller alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from triage_server.problems import RequestError


class PartCollector(Protocol):
    """Collects the parts of a form."""

    def begin(self, options: Mapping[bytes, bytes]) -> bytearray:
        """The buffer for a part with these Content-Disposition options; raises RequestError."""

    def check(self, part: bytearray) -> None:
        """Called whenever a part has grown; raises RequestError if it is too large."""


async def read_parts(
    request: Request, max_body_bytes: int, reserve: Callable[[int], None], collector: PartCollector
) -> None:
    """Read a whole form.

    Args:
        request: whose body has not been read.
        max_body_bytes: of the whole form, whether or not its length was announced.
        reserve: called with the size of every chunk before it is kept; may raise.
        collector: collects the parts.

    Raises:
        RequestError: it is too long, broken or cut off, or goes on after its end, or ``collector`` refuses a
            part.
    """
    parameters = parse_options_header(request.headers.get("content-type", ""))[1]
    boundary = parameters.get(b"boundary", b"")
    chunks = read_chunks(request, max_body_bytes, reserve)
    callbacks = _ParserCallbacks(collector)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": callbacks.on_part_begin,
                "on_header_begin": callbacks.on_header_begin,
                "on_header_field": callbacks.on_header_field,
                "on_header_value": callbacks.on_header_value,
                "on_header_end": callbacks.on_header_end,
                "on_headers_finished": callbacks.on_headers_finished,
                "on_part_data": callbacks.on_part_data,
                "on_end": callbacks.on_end,
            },
        )
        end, recent, ended = b"\r\n--" + boundary + b"--", b"\r\n", False
        async with aclosing(chunks):
            async for chunk in chunks:
                after = chunk
                if not ended:
                    parser.write(chunk)
                    recent = recent[-len(end) :] + chunk  # the end may be split between chunks
                    ended = callbacks.is_complete
                    after = recent.partition(end)[2] if ended else b""
                if after.strip():  # the parser ignores it, and with it a photograph or a history
                    raise RequestError("multipart_not_valid")
    except FormParserError:
        raise RequestError("multipart_not_valid") from None
    if not callbacks.is_complete:
        raise RequestError("multipart_not_valid")


async def read_chunks(request: Request, limit: int, reserve: Callable[[int], None]) -> AsyncGenerator[bytes]:
    """The body in chunks; ``reserve`` is called with the size of each before it is kept, and may raise.

    Raises:
        RequestError: the body is longer than ``limit`` bytes, whatever it announced.
    """
    received = 0
    async with aclosing(request.stream()) as stream:
        async for chunk in stream:
            received += len(chunk)
            if received > limit:
                raise RequestError("body_too_large", limit=limit)
            reserve(len(chunk))
            yield chunk


class _ParserCallbacks:
    """Receives the parser's callbacks."""

    def __init__(self, collector: PartCollector) -> None:
        self._collector = collector
        self._field, self._value = bytearray(), bytearray()
        self._options: Mapping[bytes, bytes] = {}
        self._part = bytearray()
        self.is_complete = False

    def on_part_begin(self) -> None:
        self._options = {}

    def on_header_begin(self) -> None:
        self._field, self._value = bytearray(), bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._options = parse_options_header(bytes(self._value))[1]

    def on_headers_finished(self) -> None:
        self._part = self._collector.begin(self._options)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        self._collector.check(self._part)

    def on_end(self) -> None:
        self.is_complete = True
