"""What the headers of a request announce, and what of it is refused before anything is read."""

from __future__ import annotations

import gzip
from collections.abc import Callable
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
