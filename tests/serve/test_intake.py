"""What the headers of a request announce, what is refused before anything is read, and where a form ends."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.types import Message

from sent_cases import WAYS, as_tensors
from triage_server import tensors
from triage_server.intake import SentCase, read_form

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
JPEG = {"Content-Type": "image/jpeg"}


@pytest.mark.parametrize("said", ["gzip", "GZIP", "br", "identity, gzip"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_compressed_body_is_refused_by_its_encoding(
    way: Any, said: str, ask: Ask, make_app: MakeApp, draw: Any
):
    request = way.request(draw())
    headers = {**request["headers"], "Content-Encoding": said}
    body = gzip.compress(request["content"].encode())
    response = ask(make_app(), "POST", way.path, content=body, headers=headers)
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "identity"
    assert "content_encoding_not_supported" in response.text


@pytest.mark.parametrize("said", ["", "identity", "Identity"])
def test_a_body_that_is_said_to_be_as_it_is_is_read(said: str, ask: Ask, make_app: MakeApp, draw: Any):
    headers = {**JPEG, "Content-Encoding": said}
    assert ask(make_app(), "POST", "/v1/triage", content=draw(), headers=headers).status_code == 200


@pytest.mark.parametrize("piece_bytes", [1, 7, 2**20])
@pytest.mark.parametrize(
    ("after", "status"), [(b"\r\n", 200), (b" \r\n\r\n", 200), (b"\r\nbye", 400), (b"a second form", 400)]
)
def test_a_form_that_goes_on_after_its_end_is_refused(
    after: bytes, status: int, piece_bytes: int, ask: Ask, make_app: MakeApp, draw: Any
):
    part = b'--q\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    photograph = draw(48, 48)
    if after == b"a second form":
        after = b"\r\n" + part % (b"history", b'{"bleeding": true}') + b"--q--\r\n"
    form = part % (b"image", photograph) + b"--q--" + after

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(form), piece_bytes):
            yield form[start : start + piece_bytes]

    headers = {"Content-Type": "multipart/form-data; boundary=q"}
    response = ask(make_app(), "POST", "/v1/triage", content=pieces(), headers=headers)
    assert response.status_code == status
    assert status == 200 or response.json()["code"] == "multipart_not_valid"


def traced(work: Callable[[], Any]) -> tuple[Any, int, int]:
    """The result of ``work``, the bytes that it has kept, and the most that it held."""
    tracemalloc.start()
    try:
        return work(), *tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


def test_photographs_of_a_form_are_in_memory_once():
    part = b'--q\r\nContent-Disposition: form-data; name="image"\r\n\r\n%s\r\n'
    photographs = [bytes([number]) * 500_000 for number in range(10)]
    form = b"".join(part % one for one in photographs) + b"--q--\r\n"
    pieces = iter([form[start : start + 2**16] for start in range(0, len(form), 2**16)])

    async def receive() -> Message:
        piece = next(pieces, None)
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    headers = [(b"content-type", b"multipart/form-data; boundary=q")]
    request = Request({"type": "http", "headers": headers}, receive)

    read: list[SentCase] = []

    async def work() -> None:  # returns nothing: asyncio.run would write out what it returns
        read.append(await read_form(request, max_body_bytes=len(form), reserve=lambda _: None))

    _, _, most = traced(lambda: asyncio.run(work()))
    assert read[0].images == photographs
    assert most < 1.4 * len(form)


def test_base64_of_a_tensor_is_not_kept_until_the_answer():
    photograph = bytes(3_000_000)
    body = json.dumps(as_tensors(photograph)).encode()
    parsed, kept, _ = traced(lambda: tensors.parse_case(body, memoryview(b""), "tiny", "5f3b"))
    assert parsed.case.images == [photograph]
    assert kept < 1.1 * len(photograph)
