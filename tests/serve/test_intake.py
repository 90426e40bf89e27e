"""What the headers of a request announce, what is refused before anything is read, and where a form ends."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from sent_cases import WAYS

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
