"""What a caller gives that cannot be sent: an error of the client's own, at once, and nothing sent."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from triage_client import AsyncClient, Client, History, UnansweredError
from triage_client.protocol import RetryPolicy

NEVER = RetryPolicy(retries=4, first_pause_s=600.0)
"""Whoever tries again waits longer than the test may take."""


@pytest.fixture
def untouched() -> Iterator[str]:
    """The address of a server that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(TimeoutError):
            listener.accept()


async def awaited(url: str, *case: Any) -> None:
    async with AsyncClient(url, retry_policy=NEVER) as client:
        await client.triage(*case)


CASES: dict[str, tuple[Any, ...]] = {
    "no photograph": ([],),
    "a path as text": (["photo.jpg"],),
    "one path as text": ("photo.jpg",),
    "one path": (Path("photo.jpg"),),
    "one photograph": (b"x",),
    "a file that is not there": ([b"x", Path("nobody-has-this.jpg")],),
    "a path that no file can have": ([b"x", Path("nobody-has-this\0.jpg")],),
    "a folder": ([Path()],),
    "numbers": ([7],),
    "a number": (7,),
    "a history as a dict": ([b"x"], {"bleeding": True}),
    "no history": ([b"x"], None),
}


@pytest.mark.parametrize("what", CASES)
def test_a_case_that_is_none_is_refused_before_anything_is_sent(what: str, untouched: str):
    case: Any = CASES[what]
    with Client(untouched, retry_policy=NEVER) as client:
        with pytest.raises(
            UnansweredError, match="nothing was sent, so queue the case as of band 1"
        ) as caught:
            client.triage(*case)
        assert "nobody-has-this" not in str(caught.value)
        with pytest.raises(UnansweredError, match="nothing was sent"):
            client.submit(*case, callback="ehr")
    with pytest.raises(UnansweredError, match="nothing was sent"):
        asyncio.run(awaited(untouched, *case))


@pytest.mark.parametrize("callback", [None, 7])
def test_a_case_for_no_callback_is_refused_before_anything_is_sent(callback: Any, untouched: str):
    async def awaited() -> None:
        async with AsyncClient(untouched, retry_policy=NEVER) as client:
            await client.submit([b"x"], callback=callback)

    refused = "^callback: .*nothing was sent, so queue the case as of band 1"
    with Client(untouched, retry_policy=NEVER) as client, pytest.raises(UnansweredError, match=refused):
        client.submit([b"x"], callback=callback)
    with pytest.raises(UnansweredError, match=refused):
        asyncio.run(awaited())


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("key", ["ltk_secret\n", "ltk_secret ", "lük_secret", "ltk\tsecret", b"ltk_secret"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_quoted(client: Any, key: Any):
    with pytest.raises(UnansweredError, match=r"^key: ") as caught:
        client("https://triage.example.org", key)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize(
    "url",
    [
        *(
            "127.0.0.1:8080",
            "localhost:8080",
            "triage.example.org",
            "ftp://x",
            "https://",
            "",
            None,
            "http://a:b",
        ),
        *(
            "https://triage..example.org",
            "https://.example.org",
            f"https://{64 * 'x'}.org",
            "https://xn--a.org",
        ),
    ],
)
def test_an_address_that_is_none_is_refused(client: Any, url: Any):
    with pytest.raises(UnansweredError, match=r"^url: "):
        client(url)


def test_a_language_that_cannot_stand_in_a_header_is_refused():
    with pytest.raises(UnansweredError, match=r"^language: "):
        Client("https://triage.example.org", language="de\n")


def test_what_only_http_itself_can_refuse_is_not_tried_again():
    spoilt = {"X-Clinic": "a\nb"}
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Client(f"http://127.0.0.1:{listener.getsockname()[1]}", retry_policy=NEVER, headers=spoilt) as client,
        pytest.raises(UnansweredError, match="cannot be sent"),
    ):
        client.triage([b"x"], History(bleeding=True))


def test_what_fails_below_httpx_is_an_error_of_the_client_s_too(untouched: str):
    closed = Client(untouched, retry_policy=NEVER)
    closed.close()
    with pytest.raises(UnansweredError, match="cannot be sent"):
        closed.triage([b"x"])


def test_a_request_that_cannot_be_made_is_an_error_of_the_client_s(untouched: str):
    with (
        Client(untouched, retry_policy=NEVER) as client,
        pytest.raises(UnansweredError, match="cannot be made"),
    ):
        client.case("case\n")


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_address_may_be_httpx_s_own(client: Any):
    made = client(httpx.URL("https://triage.example.org/behind"))
    assert made._http.base_url == "https://triage.example.org/behind/"
    asyncio.run(made.close()) if client is AsyncClient else made.close()


@pytest.mark.parametrize("url", ["http://x:65536", "https://x:99999/y", httpx.URL("http://x:65536")])
def test_port_that_there_is_none_of_is_refused_at_once(url: Any):
    with pytest.raises(UnansweredError, match="url: expected one such as"):
        Client(url)
    assert Client("http://x:65535")._http.base_url.port == 65535
