"""Reads a browser's form: photographs and short fields; with limits, and in memory.

Imports the readers of bodies and parts, the bundle's limits and the wire. A file name is used only to tell a
field without a choice from an empty file, and is then dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from starlette.requests import Request

from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE
from triage_server.intake import media_type_of, read_body
from triage_server.multipart import read_parts
from triage_server.problems import RequestError
from triage_server.wire import MULTIPART_TYPE

MAX_SHORT_FORM_BYTES = 65_536
"""Limit for a form without photographs."""
_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 16_384
CSRF_FIELD = "form_token"


@dataclass(frozen=True)
class Form:
    """A form."""

    fields: dict[str, str] = field(default_factory=dict)
    images: list[bytes] = field(default_factory=list)
    """At most one more than a case may have: then there were too many, and not all are here."""

    def get(self, name: str) -> str:
        """A field without surrounding white space; empty if it was not sent."""
        return self.fields.get(name, "").strip()


async def read_form(request: Request, max_body_bytes: int, reserve: Callable[[int], None]) -> Form:
    """A form in either encoding that browsers use.

    Args:
        request: whose body has not been read.
        max_body_bytes: of the whole form, whether or not its length was announced.
        reserve: called with the size of every chunk before it is kept; may raise.

    Raises:
        RequestError: it is too long, broken, or not a form.
    """
    content_length = request.headers.get("content-length", "")
    if content_length.isdecimal() and int(content_length) > max_body_bytes:
        raise RequestError("body_too_large", limit=max_body_bytes)
    media_type = media_type_of(request)
    if media_type == "application/x-www-form-urlencoded":
        return _parse_urlencoded(await read_body(request, max_body_bytes=max_body_bytes, reserve=reserve))
    if media_type != MULTIPART_TYPE:
        raise RequestError("request_not_valid")
    parts = _Parts()
    await read_parts(request, max_body_bytes, reserve, parts)
    return parts.form()


def _parse_urlencoded(body: bytes) -> Form:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise RequestError("request_not_valid") from None
    if len(dict(pairs)) < len(pairs):
        raise RequestError("request_not_valid")
    return Form(dict(pairs))


class _Parts:
    """The parts of a form."""

    def __init__(self) -> None:
        self._images: list[tuple[bytearray, bool]] = []
        """Each with whether a file was chosen."""
        self._fields: dict[str, bytearray] = {}

    def begin(self, options: Mapping[bytes, bytes]) -> bytearray:
        part, name = bytearray(), options.get(b"name", b"").decode("utf-8", "replace")
        if name == "image":
            del self._images[MAX_IMAGES_PER_CASE:]
            self._images.append((part, bool(options.get(b"filename"))))
        elif not name or name in self._fields or len(self._fields) == _MAX_FIELDS:
            raise RequestError("request_not_valid")
        else:
            self._fields[name] = part
        return part

    def check(self, part: bytearray) -> None:
        if len(part) > _MAX_FIELD_BYTES and not any(part is image for image, _ in self._images):
            raise RequestError("request_not_valid")

    def form(self) -> Form:
        """The form, once all of it has arrived."""
        try:
            fields = {name: bytes(value).decode() for name, value in self._fields.items()}
        except UnicodeDecodeError:
            raise RequestError("request_not_valid") from None
        return Form(fields, [bytes(image) for image, is_chosen in self._images if image or is_chosen])
