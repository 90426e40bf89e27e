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

SHORT_BYTES = 65_536
"""Limit for a form without photographs."""
_MOST_FIELDS = 64
_FIELD_BYTES = 16_384
TOKEN = "form_token"  # noqa: S105 - the name of a field


@dataclass(frozen=True)
class Sent:
    """A form."""

    fields: dict[str, str] = field(default_factory=dict)
    images: list[bytes] = field(default_factory=list)

    def get(self, name: str) -> str:
        """A field without surrounding white space; empty if it was not sent."""
        return self.fields.get(name, "").strip()


async def read_form(request: Request, max_body_bytes: int, take: Callable[[int], None]) -> Sent:
    """A form in either encoding that browsers use.

    Args:
        request: whose body has not been read.
        max_body_bytes: of the whole form, whether or not its length was announced.
        take: called with the size of every chunk before it is kept; may raise.

    Raises:
        RequestError: it is too long, broken, or not a form.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_body_bytes:
        raise RequestError("body_too_large", limit=max_body_bytes)
    media_type = media_type_of(request)
    if media_type == "application/x-www-form-urlencoded":
        return _short(await read_body(request, max_body_bytes=max_body_bytes, reserve=take))
    if media_type != MULTIPART_TYPE:
        raise RequestError("request_not_valid")
    parts = _Parts()
    await read_parts(request, max_body_bytes, take, parts)
    return parts.sent()


def _short(body: bytes) -> Sent:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise RequestError("request_not_valid") from None
    if len(dict(pairs)) < len(pairs):
        raise RequestError("request_not_valid")
    return Sent(dict(pairs))


class _Parts:
    """The parts of a form."""

    def __init__(self) -> None:
        self._images: list[bytearray] = []
        self._fields: dict[str, bytearray] = {}
        self._unchosen: list[bytearray] = []

    def begin(self, options: Mapping[bytes, bytes]) -> bytearray:
        part, name = bytearray(), options.get(b"name", b"").decode("utf-8", "replace")
        if name == "image":
            if len(self._images) == MAX_IMAGES_PER_CASE:
                raise RequestError("too_many_images")
            self._images.append(part)
            if not options.get(b"filename"):
                self._unchosen.append(part)
        elif not name or name in self._fields or len(self._fields) == _MOST_FIELDS:
            raise RequestError("request_not_valid")
        else:
            self._fields[name] = part
        return part

    def check(self, part: bytearray) -> None:
        if len(part) > _FIELD_BYTES and not any(part is image for image in self._images):
            raise RequestError("request_not_valid")

    def sent(self) -> Sent:
        """The form, once all of it has arrived."""
        try:
            fields = {name: bytes(value).decode() for name, value in self._fields.items()}
        except UnicodeDecodeError:
            raise RequestError("request_not_valid") from None
        unchosen = {id(part) for part in self._unchosen if not part}
        return Sent(fields, [bytes(image) for image in self._images if id(image) not in unchosen])
