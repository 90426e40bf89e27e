"""What a hostile network can do to a server: heads without end, clients without haste, odd paths; and TLS."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import shutil
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn
import uvloop
from PIL import Image
from uvicorn.server import ServerState

import httpx_60s
from lesion_triage.bundle import signing
from lesion_triage.bundle.store import open_bundle
from triage_server import lingering_close
from triage_server.api_keys import new_key
from triage_server.protocol import make_protocol_class
from triage_server.settings import Settings
from triage_server.telemetry import Telemetry
from triage_server.tls import TlsListener

JPEG = {"Content-Type": "image/jpeg"}
PATIENCE_S = 180.0
"""Longer than the server gives any case, so that it is the one to give up on a slow day."""


def talk(server: Any, *pieces: bytes, pause_s: float = 0.0) -> tuple[int, bytes]:
    """Send the pieces, then listen until the server closes; status and everything behind the head."""
    with socket.create_connection(server.address, timeout=PATIENCE_S) as connection:
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                break
            time.sleep(pause_s)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionError:
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


@pytest.fixture(scope="module")
def strict(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Any]) -> Any:
    folder = tmp_path_factory.mktemp("strict")
    limits = {"TRIAGE_HEAD_TIMEOUT_S": "0.5", "TRIAGE_MAX_HEAD_BYTES": "2048", "TRIAGE_BODY_TIMEOUT_S": "0.5"}
    with start(tiny_bundle, folder, **limits) as running:
        yield running


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nCookie: " + b"c" * 4000 + b"\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"GET /" + b"p" * 4000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nX: " + b"endless" * 100_000,
    ],
    ids=["one header", "many headers", "path", "endless header"],
)
def test_head_beyond_the_limit_is_refused(head: bytes, strict: Any):
    status, body = talk(strict, head)
    assert (status, json.loads(body)["code"]) == (431, "head_too_large")


def test_head_that_never_ends_is_cut_off_without_being_kept(strict: Any):
    pieces = [b"GET /health/live HTTP/1.1\r\nX: ", *[b"drop" * 100] * 20]
    assert talk(strict, *pieces, pause_s=0.01)[0] == 431


@pytest.mark.parametrize("sent", [b"", b"GET /health", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"])
def test_head_that_does_not_come_ends_the_connection(sent: bytes, strict: Any):
    began = time.monotonic()
    status, body = talk(strict, sent)
    assert (status, json.loads(body)["code"]) == (408, "head_not_received")
    assert time.monotonic() - began < 10


def test_head_that_drips_ends_the_connection(strict: Any):
    pieces = [
        bytes([letter]) for letter in b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200
    ]
    assert talk(strict, *pieces, pause_s=0.02)[0] == 408


def test_second_request_of_a_connection_has_the_same_limits(strict: Any):
    good = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    status, body = talk(strict, good, b"GET /health/li", pause_s=0.1)
    assert status == 200
    assert b"HTTP/1.1 408" in body
    status, body = talk(strict, good, good[:-2] + b"Cookie: " + b"c" * 4000 + b"\r\n\r\n", pause_s=0.1)
    assert status == 200
    assert b"HTTP/1.1 431" in body


def test_empty_line_behind_an_answer_keeps_no_connection_open(strict: Any):
    began, good = time.monotonic(), b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert answers_to(strict, good, b"\r\n", pause_s=0.2) == [200]
    assert time.monotonic() - began < 30


def test_body_that_drips_is_given_up(strict: Any):
    head, _ = post_of(bytes(500), b"")
    status, body = talk(strict, head, *[b"x"] * 50, pause_s=0.02)
    assert (status, json.loads(body)["code"]) == (408, "body_not_received")


def request_of(content: bytes, media_type: bytes, path: bytes = b"/v1/triage") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Type: " + media_type]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(content), b"", b""]) + content


def answers_to(server: Any, *pieces: bytes, pause_s: float = 0.0) -> list[int]:
    """The statuses that one connection is answered with, until it is closed."""
    status, rest = talk(server, *pieces, pause_s=pause_s)
    return [status, *(int(one) for one in re.findall(rb"HTTP/1\.1 (\d+) ", rest))]


@pytest.mark.parametrize(
    "broken",
    [
        b"\x00\x01 no head\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nCookie: " + b"c" * 4000 + b"\r\n\r\n",
        b"POST /v1/triage HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
    ],
    ids=["no head", "long head", "broken body"],
)
def test_case_is_answered_before_what_is_broken_behind_it_is_refused(broken: bytes, strict: Any, draw: Any):
    case, refusal = request_of(draw(), b"image/jpeg"), 431 if b"Cookie" in broken else 400
    assert answers_to(strict, case + broken) == [200, refusal]
    assert answers_to(strict, case + case + broken) == [200, 200, refusal]
    assert answers_to(strict, case + broken, b"and more of it", pause_s=0.01) == [200, refusal]


def test_case_is_answered_before_a_head_behind_it_is_refused_for_not_coming(strict: Any):
    plain = io.BytesIO()  # of few bytes, and long to decode
    Image.new("RGB", (4000, 3000), (200, 150, 130)).save(plain, "PNG")
    pictures = [base64.b64encode(plain.getvalue()).decode()] * 16
    case = request_of(json.dumps({"images": pictures}).encode(), b"application/json")
    began = time.monotonic()
    assert answers_to(strict, case + b"GET /health/li") == [200, 408]
    assert time.monotonic() - began > 0.6  # else it was answered before the head was late


INNER = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: within-the-body\r\n\r\n"
NEXT = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    "at the end": b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n",
}


def post_of(content: bytes, fields: bytes, *, chunked: bool = False) -> tuple[bytes, bytes]:
    """Head and body of a case."""
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(content)
    head = b"POST /v1/triage HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n" + framing + b"\r\n"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content) if chunked else content
    return head + fields + b"\r\n", body


def soon_answered(server: Any, *pieces: bytes) -> list[int]:
    """The statuses of the answers that come soon after the pieces; does not wait for the connection's end."""
    with socket.create_connection(server.address, timeout=60) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.05)
        answer = b""
        with suppress(TimeoutError, ConnectionError):
            while chunk := connection.recv(65536):
                answer += chunk
                connection.settimeout(0.5)
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d+) ", answer)]


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("chunked", [False, True])
def test_body_behind_an_offer_of_another_protocol_is_no_request(
    offer: bytes, chunked: bool, strict: Any, draw: Any
):
    """Whoever stands in front of this server has let it pass as a body."""
    for content, status in ((INNER, 422), (draw(), 200)):
        head, body = post_of(content, offer, chunked=chunked)
        for pieces in ((head, body), (head + body,), (head[:-2], head[-2:] + body[:20], body[20:])):
            assert soon_answered(strict, *pieces) == [status]
        assert "within-the-body" not in strict.text()
    behind = [] if b"close" in offer else [200]
    assert soon_answered(strict, head, body + NEXT) == [200, *behind]


def test_request_behind_an_offer_without_a_body_is_answered(strict: Any):
    offering = NEXT[:-2] + OFFERS["h2c"] + b"\r\n"
    assert soon_answered(strict, offering + NEXT + offering + NEXT) == [200, 200, 200, 200]


@pytest.mark.parametrize("fields", [b"", b"Content-Length: 5\r\n"])
def test_tunnel_is_refused_and_nothing_behind_it_read(fields: bytes, strict: Any):
    asked = b"CONNECT x:80 HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n"
    assert answers_to(strict, asked, INNER, pause_s=0.05) == [400]
    assert answers_to(strict, asked + INNER) == [400]


def test_field_behind_a_body_is_no_header(launch: Callable[..., Any], tmp_path: Path, draw: Any):
    path = tmp_path / "keys"
    key = new_key(path, "platform", "score")
    shown = b"Authorization: Bearer " + key.encode() + b"\r\n"
    with launch(TRIAGE_API_KEYS_FILE=str(path)) as server:
        head, body = post_of(draw(), b"Connection: close\r\n", chunked=True)
        assert answers_to(server, head + body[:-2] + shown + b"\r\n") == [401]
        head, body = post_of(draw(), b"Connection: close\r\n" + shown, chunked=True)
        assert answers_to(server, head + body[:-2] + b"Content-Type: text/plain\r\n\r\n") == [200]


@pytest.mark.parametrize("endless", [b"0\r\nX-Endless: ", b"0;endless="], ids=["trailer", "chunk extension"])
def test_what_never_ends_behind_a_body_is_cut_off_without_being_kept(endless: bytes, launch: Any):
    with launch(TRIAGE_MAX_HEAD_BYTES="2048") as server:
        head, _ = post_of(b"", b"", chunked=True)
        began = time.monotonic()
        status, body = talk(server, head, endless, *[b"x" * 1000] * 3000)
        assert (status, json.loads(body)["code"]) == (431, "head_too_large")
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("codings", "status"),
    [
        ((b"chunked",), 200),
        ((b"Chunked",), 200),
        ((b"gzip, chunked",), 501),
        ((b"gzip", b"chunked"), 501),
        ((b"identity, chunked",), 501),
        ((b"chunked, chunked",), 400),
        ((b"chunked;q=1",), 400),
        ((b"gzip",), 400),
        ((b"chunked, gzip",), 400),
    ],
    ids=lambda said: b" & ".join(said).decode() if isinstance(said, tuple) else str(said),
)
def test_body_in_a_coding_that_is_not_undone_is_not_read_as_if_it_were(
    codings: tuple[bytes, ...], status: int, strict: Any, draw: Any
):
    fields = b"".join(b"Transfer-Encoding: " + one + b"\r\n" for one in codings)
    head, body = post_of(draw(), b"Connection: close\r\n", chunked=True)
    plain = b"Transfer-Encoding: chunked\r\n"
    assert answers_to(strict, head.replace(plain, fields) + body) == [status]
    case = request_of(draw(), b"image/jpeg")
    assert answers_to(strict, case + head.replace(plain, fields) + body) == [200, status]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n", 400),
        (b"GET /health/live HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nHost:\r\n", 200),
        (b"GET /health/live HTTP/1.0\r\n", 200),
    ],
)
def test_request_says_once_by_which_name_it_asks(head: bytes, status: int, strict: Any):
    assert talk(strict, head + b"Connection: close\r\n\r\n")[0] == status


def test_only_so_many_requests_wait_behind_another(strict: Any):
    assert answers_to(strict, NEXT * 12 + NEXT[:-2] + b"Connection: close\r\n\r\n") == [200] * 13
    assert answers_to(strict, NEXT * 4_000) == [200] * 17 + [429]


def test_many_long_heads_that_come_together_are_none_too_long(strict: Any):
    one = NEXT[:-2] + b"Cookie: " + b"c" * 1_000 + b"\r\n\r\n"
    head, body = post_of(b"", one[len(NEXT) - 2 : -2] + b"Connection: close\r\n")
    assert answers_to(strict, NEXT, one * 10 + head[:-2], head[-2:] + body, pause_s=0.05) == [200] * 11 + [
        422
    ]


def test_body_that_comes_together_with_the_next_head_is_no_part_of_that_head(launch: Any):
    """A photograph is larger than any head may be."""
    with launch(TRIAGE_MAX_HEAD_BYTES="4096") as server:
        head, body = post_of(b"no photograph" * 5_000, b"")
        assert answers_to(
            server, head + body + NEXT[:20], NEXT[20:-2] + b"Connection: close\r\n\r\n", pause_s=0.1
        ) == [
            422,
            200,
        ]


LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
ENCRYPTED = pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
Address = tuple[str, int]
T = TypeVar("T")


@asynccontextmanager
async def serving(
    app: Any, certificate: tuple[Path, Path] | None, send_buffer: int | None = None, **limits: Any
) -> AsyncIterator[tuple[Address, ServerState]]:
    """An application of the test's own behind the server's protocol, on this event loop."""
    settings = Settings(bundle=Path("none"), allow_unsigned=True, **limits)
    protocol = make_protocol_class(settings, Telemetry("bundle", "certificate"))
    config = uvicorn.Config(app, http=protocol, log_config=None, lifespan="off")
    config.load()
    listener, state = socket.create_server(("127.0.0.1", 0)), ServerState()
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    server: Any
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server = TlsListener(listener, context, lambda: protocol(config, state, {}), 5.0)
    else:
        made = asyncio.get_running_loop().create_server(lambda: protocol(config, state, {}), sock=listener)
        server = await made
    try:
        yield listener.getsockname(), state
    finally:
        server.close()
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        await asyncio.sleep(0.05)  # the loop closes their sockets in its next turns


def run_on(loop: str, story: Coroutine[Any, Any, T]) -> T:
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(asyncio.wait_for(story, 60))


@LOOPS
def test_bodies_ahead_are_not_read_while_a_request_is_answered(loop: str):
    """Else a connection held sixteen of them in memory."""
    head, body = post_of(b"b" * 60_000, b"")

    async def story() -> None:
        answered = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await answered.wait()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})

        async with serving(app, None) as (address, state):
            _, writer = await asyncio.open_connection(*address)
            for whole in (NEXT, *[head + body] * 12):
                writer.write(whole)
                await asyncio.sleep(0.1)
            (connection,) = state.connections
            waiting = sum(len(cycle.body) for cycle, _ in connection.pipeline)  # type: ignore[union-attr]
            assert waiting < 6 * len(body)  # asyncio takes 256 KiB at once
            answered.set()
            writer.close()

    run_on(loop, story())


def lines_of(server: Any) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "request"]


SCANS = {
    "head_too_large": (431, (NEXT[:-2] + b"Cookie: Mustermann" + b"c" * 4000 + b"\r\n\r\n",)),
    "head_not_received": (408, (b"GET /Mustermann HTTP/1.1\r\nX: ",)),
    "request_not_valid": (400, (b"\x16\x03\x01Mustermann\r\n\r\n",)),
    "transfer_coding_not_supported": (
        501,
        (b"POST /Mustermann HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",),
    ),
    "too_many_requests_ahead": (429, (NEXT * 40,)),
}


def test_what_is_refused_unread_has_a_line_and_a_count_and_nothing_that_was_sent(launch: Callable[..., Any]):
    limits = {"TRIAGE_HEAD_TIMEOUT_S": "0.5", "TRIAGE_MAX_HEAD_BYTES": "2048"}
    with launch(**limits) as server:
        told = {}
        for code, (status, pieces) in SCANS.items():
            _, rest = talk(server, *pieces)
            problem = json.loads(rest[rest.rindex(b"{") :])
            assert (problem["code"], problem["status"]) == (code, status)
            told[code] = problem["request_id"]
        page = httpx_60s.get(f"{server.url}/metrics").text.splitlines()
        for code, (status, _) in SCANS.items():
            assert f'triage_requests_total{{method="none",route="none",status="{status}"}} 1.0' in page
            assert f'triage_problems_total{{code="{code}"}} 1.0' in page
        assert server.stop() == 0
        assert "Mustermann" not in server.text()
        unread = [line for line in lines_of(server) if line["method"] is None]
        assert {line["problem"]: line["request_id"] for line in unread} == told
        assert {line["problem"]: line["status"] for line in unread} == {
            code: status for code, (status, _) in SCANS.items()
        }
        seen = next(line for line in lines_of(server) if line["method"] is not None)
        assert [list(line) for line in unread] == [list(seen)] * len(SCANS)
        assert {line["route"] for line in unread} == {None}


@pytest.mark.parametrize("at_once", [True, False])
def test_body_that_breaks_is_one_line_of_the_request_that_it_was_of(
    at_once: bool, launch: Callable[..., Any], tmp_path: Path
):
    head, _ = post_of(b"", b"X-Request-Id: case-0001\r\n", chunked=True)
    broken = b"no length\r\n"
    with launch(TRIAGE_AUDIT_LOG=str(tmp_path / "audit")) as server:
        pieces = (head + broken,) if at_once else (head, broken)
        status, body = talk(server, *pieces, pause_s=0.5)
        assert status == 400
        page = httpx_60s.get(f"{server.url}/metrics").text.splitlines()
        assert server.stop() == 0
    (line,) = (line for line in lines_of(server) if line["route"] != "/metrics")
    assert (line["method"], line["route"]) == ("POST", "/v1/triage")
    assert (line["status"], line["problem"]) == (400, "request_not_valid")
    assert line["request_id"] == json.loads(body)["request_id"] == "case-0001"
    assert 'triage_problems_total{code="request_not_valid"} 1.0' in page
    assert not any('status="499"' in counted for counted in page)
    (file,) = (tmp_path / "audit").glob("audit-*.jsonl")
    refusals = [json.loads(one) for one in file.read_text().splitlines() if '"event":"refusal"' in one]
    assert [(one["problem"], one["request_id"]) for one in refusals] == [("request_not_valid", "case-0001")]


def test_body_that_breaks_behind_another_request_has_a_line(launch: Callable[..., Any]):
    head, _ = post_of(b"", b"", chunked=True)
    with launch() as server:
        assert answers_to(server, NEXT + head + b"no length\r\n") == [200, 400]
        assert server.stop() == 0
    second, first = sorted(lines_of(server), key=lambda line: line["method"] or "")
    assert (first["route"], first["status"]) == ("/health/live", 200)
    assert (second["method"], second["status"], second["problem"]) == (None, 400, "request_not_valid")


def test_flood_of_what_is_refused_unread_is_counted_and_does_not_fill_the_log(strict: Any):
    before = len(lines_of(strict))
    for _ in range(200):
        assert talk(strict, b"no head\r\n\r\n")[0] == 400
    page = httpx_60s.get(f"{strict.url}/metrics").text
    (counted,) = re.findall(r'triage_requests_total\{method="none",route="none",status="400"\} (\d+)', page)
    assert int(counted) >= 200
    assert len(lines_of(strict)) - before <= 2 * 60 + 1  # two minutes may have begun, and the look itself
    assert 1 <= strict.text().count("are not logged; GET /metrics counts them all") <= 2


def memory_mb(server: Any) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def test_readers_that_stop_take_neither_memory_nor_connections(launch: Callable[..., Any]):
    limits = {"TRIAGE_BODY_TIMEOUT_S": "1", "TRIAGE_MAX_CONNECTIONS": "60"}
    with launch(**limits) as server, ExitStack() as stopped:
        before = memory_mb(server)
        for _ in range(50):
            one = stopped.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.connect(server.address)
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.send(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5_000)
        began = time.monotonic()
        assert httpx.get(f"{server.url}/health/live", timeout=30).status_code == 200
        assert memory_mb(server) - before < 150
        while descriptors(server) > 30 and time.monotonic() - began < 30:
            time.sleep(0.2)
        assert descriptors(server) <= 30
        assert server.stop() == 0


@LOOPS
@ENCRYPTED
def test_reader_that_is_slow_has_its_answer_and_one_that_stops_is_let_go(
    loop: str, encrypted: bool, certificate: tuple[Path, Path]
):
    length, timeout_s = 4_000_000, 1.0  # longer to read than the timeout, and more than buffers hold

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/at-once":
            await send({"type": "http.response.body", "body": bytes(length)})
            return
        for _ in range(80):
            await send({"type": "http.response.body", "body": bytes(length // 80), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def asking(address: Address, path: str) -> socket.socket:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        plain.settimeout(20)
        plain.connect(address)
        connection = trusting_all().wrap_socket(plain) if encrypted else plain
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return connection

    def read_slowly(address: Address, path: str) -> int:
        came = 0
        with asking(address, path) as connection, suppress(OSError):
            while chunk := connection.recv(500_000):
                came += len(chunk)
                time.sleep(0.4 * len(chunk) / 500_000)
        return came

    async def story(path: str) -> None:
        cert = certificate if encrypted else None
        async with serving(answer, cert, send_buffer=262_144, body_timeout_s=timeout_s) as (address, state):
            assert await asyncio.to_thread(read_slowly, address, path) > length
            with await asyncio.to_thread(asking, address, path):
                await asyncio.sleep(timeout_s / 2)
                assert len(state.connections) == 1
                await asyncio.sleep(timeout_s * 2.5)
                assert not state.connections
                assert not state.tasks

    async def stories() -> None:
        await asyncio.gather(story("/at-once"), story("/in-pieces"))

    run_on(loop, stories())


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Refuses by the head alone, as the gate does."""
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def refused_sender(address: Address, *, encrypted: bool) -> socket.socket:
    """A connection whose request was refused, and whose body is still to come."""
    plain = socket.create_connection(address, timeout=20.0)
    connection = trusting_all().wrap_socket(plain) if encrypted else plain
    connection.sendall(post_of(bytes(10**9), b"")[0])
    assert connection.recv(4096).startswith(b"HTTP/1.1 401")
    return connection


@LOOPS
@ENCRYPTED
def test_refusal_reaches_a_client_that_sends_its_whole_body_first(
    loop: str, encrypted: bool, certificate: tuple[Path, Path]
):
    def statuses(address: Address) -> list[int]:
        found = []
        for _ in range(3):
            one = (
                HTTPSConnection(*address, timeout=20, context=trusting_all())
                if encrypted
                else HTTPConnection(*address, timeout=20)
            )
            with closing(one):
                one.request("POST", "/v1/triage", bytes(30_000_000))
                found.append(one.getresponse().status)
        return found

    async def story() -> list[int]:
        async with serving(refusing, certificate if encrypted else None) as (address, state):
            found = await asyncio.to_thread(statuses, address)
            while state.connections:
                await asyncio.sleep(0.05)
            return found

    assert run_on(loop, story()) == [401, 401, 401]


@LOOPS
@ENCRYPTED
def test_client_that_sends_without_end_behind_its_refusal_is_cut_off(
    loop: str, encrypted: bool, certificate: tuple[Path, Path]
):
    limit = 1_000_000

    def send_on(address: Address) -> int:
        sent = 0
        with refused_sender(address, encrypted=encrypted) as connection, suppress(OSError):
            while sent < 100 * limit:
                connection.sendall(bytes(limit // 10))
                sent += limit // 10
        return sent

    async def story() -> int:
        async with serving(refusing, certificate if encrypted else None, max_body_bytes=limit) as (
            address,
            _,
        ):
            return await asyncio.to_thread(send_on, address)

    assert 2 * limit <= run_on(loop, story()) < 30 * limit  # the kernels' buffers included


@LOOPS
@ENCRYPTED
@pytest.mark.parametrize("drips", [False, True], ids=["silent", "drips"])
def test_client_that_never_leaves_behind_its_refusal_is_let_go(
    drips: bool, loop: str, encrypted: bool, certificate: tuple[Path, Path], monkeypatch: Any
):
    monkeypatch.setattr(lingering_close, "_QUIET_S", 0.4)
    monkeypatch.setattr(lingering_close, "_LINGER_S", 2.0)

    async def story() -> tuple[bool, float]:
        async with serving(refusing, certificate if encrypted else None) as (address, state):
            with await asyncio.to_thread(refused_sender, address, encrypted=encrypted) as connection:
                began = time.monotonic()
                lingered = bool(state.connections)
                while state.connections and time.monotonic() - began < 20:
                    with suppress(OSError):
                        connection.send(b"x" if drips else b"")
                    await asyncio.sleep(0.05)
                return lingered, time.monotonic() - began

    lingered, took = run_on(loop, story())
    assert lingered
    assert (1.5 if drips else 0.2) < took < 10


@LOOPS
def test_client_that_is_gone_before_the_end_of_its_refusal_is_no_error(loop: str):
    gone, raised = threading.Event(), []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        assert gone.wait(20)  # holds the event loop up, so that it does not know
        time.sleep(0.1)
        try:
            await send({"type": "http.response.body", "body": b""})
        except Exception as error:
            raised.append(error)

    def come_and_go(address: Address) -> None:
        with refused_sender(address, encrypted=False) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.set()

    async def story() -> None:
        async with serving(answer, None) as (address, state):
            await asyncio.to_thread(come_and_go, address)
            while state.connections:
                await asyncio.sleep(0.05)

    run_on(loop, story())
    assert raised == []


def drip(connection: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection.send(b"x")
            time.sleep(0.5)


@pytest.mark.parametrize("limit", ["TRIAGE_API_KEYS_FILE", "TRIAGE_MAX_BODY_BYTES"])
def test_server_s_own_refusals_reach_whoever_sends_first_and_a_stop_does_not_wait_for_the_rest(
    limit: str, launch: Callable[..., Any], tmp_path: Path
):
    new_key(tmp_path / "keys", "platform", "score")
    said, status = {
        "TRIAGE_API_KEYS_FILE": (str(tmp_path / "keys"), 401),
        "TRIAGE_MAX_BODY_BYTES": ("20000000", 413),
    }[limit]
    with launch(**{limit: said}) as server:
        with closing(HTTPConnection(*server.address, timeout=60)) as one:
            one.request("POST", "/v1/triage", bytes(30_000_000), JPEG)
            assert one.getresponse().status == status
        with socket.create_connection(server.address, timeout=60) as unfinished:
            unfinished.sendall(post_of(bytes(30_000_000), b"")[0])
            assert f" {status} ".encode() in unfinished.recv(4096)
            sending_on = threading.Thread(target=drip, args=[unfinished])
            sending_on.start()
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 25  # it would be heard out for 30
            sending_on.join()
        assert "rror" not in server.text()


@pytest.mark.parametrize(
    "path",
    [
        *("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"),
        *("/v1/bundle", "/v1/certificate", "/v2", "/fhir/metadata", "/cds-services"),
    ],
)
def test_what_may_be_got_may_be_asked_for_by_head(path: str, strict: Any):
    asked, told = (httpx_60s.request(method, strict.url + path) for method in ("HEAD", "GET"))
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-length"] == str(len(told.content))
    assert sorted(httpx_60s.post(strict.url + path).headers["allow"].split(", ")) == ["GET", "HEAD"]


def test_counters_may_be_asked_for_by_head(strict: Any):
    asked = httpx_60s.head(f"{strict.url}/metrics")  # they grow, so their lengths are not compared
    assert (asked.status_code, asked.content, int(asked.headers["content-length"]) > 0) == (200, b"", True)
    assert 'method="HEAD",route="/metrics",status="200"' in httpx_60s.get(f"{strict.url}/metrics").text


def test_what_is_no_http_is_a_problem(strict: Any):
    status, body = talk(strict, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
    assert (status, json.loads(body)["code"]) == (400, "request_not_valid")


def test_slow_clients_do_not_keep_others_out(strict: Any, draw: Any):
    slow = [socket.create_connection(strict.address) for _ in range(100)]
    for connection in slow:
        connection.sendall(b"POST /v1/triage HTTP/1.1\r\n")
    assert httpx_60s.post(f"{strict.url}/v1/triage", content=draw(), headers=JPEG).status_code == 200
    for connection in slow:
        connection.close()


def test_limit_on_open_files_is_raised_for_the_connections_that_are_allowed(
    start: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, draw: Any
):
    lowered = ("sh", "-c", 'ulimit -Sn 100; exec "$@"', "sh")
    with ExitStack() as held, start(tiny_bundle, tmp_path, under=lowered) as server:
        for _ in range(200):  # idle, and in the middle of a head
            connection = held.enter_context(socket.create_connection(server.address, timeout=60))
            connection.sendall(b"POST /v1/triage HTTP/1.1\r\nHost:")
        jpeg = {"Content-Type": "image/jpeg"}
        assert httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers=jpeg).status_code == 200
        assert "may open" not in server.text()


def test_limit_on_open_files_that_cannot_be_raised_is_said_at_the_start(
    start: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
):
    lowered = ("sh", "-c", 'ulimit -n 100; exec "$@"', "sh")
    for most, told in ((37, True), (36, False)):
        with start(tiny_bundle, tmp_path, under=lowered, TRIAGE_MAX_CONNECTIONS=str(most)) as server:
            said = f"this process may open 100 files, fewer than {most} connections"
            assert (said in server.text()) is told
            assert server.stop() == 0


_HALF_A_REQUEST = b"""POST /v1/triage HTTP/1.1\r
Host: localhost\r
Content-Type: image/jpeg\r
Content-Length: 9000\r
\r
\xff"""


def test_one_connection_too_many_is_closed_while_all_others_have_asked(launch: Callable[..., Any]):
    with launch(TRIAGE_MAX_CONNECTIONS="3") as server:
        open_ones = [socket.create_connection(server.address) for _ in range(3)]
        for connection in open_ones:
            connection.sendall(_HALF_A_REQUEST)
        time.sleep(1.5)  # longer than a connection without a head keeps its place
        for _ in range(2):
            assert talk(server, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n") == (0, b"")
        for connection in open_ones:
            connection.close()
        time.sleep(0.2)
        assert httpx_60s.get(f"{server.url}/health/live").status_code == 200
        assert unheard(server) == {"too_many": 2, "handshake": 0}


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"POST /v1/triage HTTP/1.1\r\nHost:",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health/live HTTP/1.1\r\nHost:",
    ],
    ids=["silent", "in a head", "after an answer", "in the head after an answer"],
)
def test_connections_that_ask_nothing_shut_nobody_out(sent: bytes, launch: Callable[..., Any]):
    with launch(TRIAGE_MAX_CONNECTIONS="3", TRIAGE_HEAD_TIMEOUT_S="60") as server, ExitStack() as held:
        asking = held.enter_context(socket.create_connection(server.address))
        asking.sendall(_HALF_A_REQUEST)
        idle = [held.enter_context(socket.create_connection(server.address)) for _ in range(2)]
        for connection in idle:
            connection.sendall(sent)
        time.sleep(1.5)
        with httpx.Client(timeout=60) as client:
            for _ in range(3):
                assert client.get(f"{server.url}/health/live").status_code == 200
            page = client.get(f"{server.url}/metrics").text
        assert re.findall(r'unheard_total\{cause="too_many"\} (\d+)', page) == ["1"]
        assert not is_closed(asking, 0.2)


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/v1/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/bundle/..%2f..%2fsignature.json",
        "//etc/passwd",
        "/v1/triage%00.jpg",
        "/health/live/../../v1/bundle",
        "/health/live%2f..%2f..%2fmetrics",
    ],
)
def test_path_leads_nowhere(path: str, strict: Any):
    status, body = talk(
        strict, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert (status, json.loads(body)["code"]) == (404, "not_found")


# TLS


@pytest.fixture
def encrypted(launch: Callable[..., Any], certificate: tuple[Path, Path]) -> Callable[..., Any]:
    """A server that encrypts, with limits of the test's choice."""
    cert, key = map(str, certificate)
    return lambda **limits: launch(TRIAGE_TLS_CERT=cert, TRIAGE_TLS_KEY=key, **limits)


def unheard(server: Any) -> dict[str, int]:
    """Connections that were closed before they could ask, by cause, as the server counts them."""
    page = httpx_60s.get(f"{server.url}/metrics", verify=False).text
    counted = re.findall(r'triage_connections_unheard_total\{cause="(\w+)"\} (\d+)', page)
    return {cause: int(number) for cause, number in counted}


def descriptors(server: Any) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def status_over_tls(server: Any) -> int:
    return httpx_60s.get(f"{server.url}/health/live", verify=False).status_code


def is_closed(connection: socket.socket, within_s: float) -> bool:
    connection.settimeout(within_s)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_connections_that_never_agree_on_encryption_count_from_the_first(encrypted: Callable[..., Any]):
    with encrypted(TRIAGE_MAX_CONNECTIONS="3", TRIAGE_HEAD_TIMEOUT_S="60") as server:
        idle = descriptors(server)
        silent = [socket.create_connection(server.address) for _ in range(40)]
        assert all(is_closed(one, 2.0) for one in silent[3:])
        assert descriptors(server) - idle < 10
        time.sleep(1.5)
        assert status_over_tls(server) == 200  # in the place of the first
        assert is_closed(silent[0], 2.0)
        assert not is_closed(silent[1], 0.2)  # and time for the answered one to be gone
        assert unheard(server) == {"too_many": 37 + 1, "handshake": 0}
        assert server.text().count("TRIAGE_MAX_CONNECTIONS") == 1
        for one in silent:
            one.close()
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "not in time"),
        (b"GET /Mustermann HTTP/1.1\r\n\r\n", "HTTP_REQUEST"),
        (b"\x16\x03\x01\x02\x00\x01", "not in time"),
    ],
)
def test_handshake_that_does_not_come_ends_the_connection_and_gives_its_place_up(
    said: bytes, why: str, encrypted: Callable[..., Any]
):
    with encrypted(TRIAGE_MAX_CONNECTIONS="1", TRIAGE_HEAD_TIMEOUT_S="0.5") as server:
        for _ in range(3):
            with socket.create_connection(server.address) as connection:
                connection.sendall(said)
                connection.settimeout(3.0)
                try:
                    while connection.recv(4096):  # an alert, of those that are told why
                        pass
                except ConnectionError:
                    pass
            time.sleep(0.1)
        assert unheard(server) == {"too_many": 0, "handshake": 3}
        assert server.stop() == 0
        assert "Mustermann" not in server.text()
        lines = [json.loads(line) for line in server.text().splitlines() if "TLS handshake failed" in line]
        assert [(line["level"], line["why"]) for line in lines] == [("info", why)] * 3


def test_client_that_does_not_trust_the_certificate_and_one_that_leaves_are_told_apart_in_the_log(
    encrypted: Callable[..., Any],
):
    with encrypted() as server:
        with pytest.raises(httpx.ConnectError):
            httpx_60s.get(f"{server.url}/health/live")
        socket.create_connection(server.address).close()
        while unheard(server)["handshake"] < 2:
            time.sleep(0.05)
        assert server.stop() == 0
        whys = [
            json.loads(line)["why"] for line in server.text().splitlines() if "TLS handshake failed" in line
        ]
        assert whys == ["TLSV1_ALERT_UNKNOWN_CA", "gone"]


def test_flood_of_failed_handshakes_is_counted_and_does_not_fill_the_log(encrypted: Callable[..., Any]):
    with encrypted() as server:
        for _ in range(200):
            with socket.create_connection(server.address) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while unheard(server)["handshake"] < 200:
            time.sleep(0.05)
        assert server.stop() == 0
        assert server.text().count("TLS handshake failed") <= 2 * 60  # two minutes may have begun
        assert 1 <= server.text().count("are not logged; GET /metrics counts them all") <= 2


def test_head_that_does_not_come_ends_an_encrypted_connection_too(encrypted: Callable[..., Any]):
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with encrypted(TRIAGE_MAX_CONNECTIONS="1", TRIAGE_HEAD_TIMEOUT_S="0.5") as server:
        for _ in range(2):
            plain = socket.create_connection(server.address, timeout=3.0)
            with trusting.wrap_socket(plain) as connection:
                with pytest.raises(httpx.TransportError):
                    status_over_tls(server)  # one too many
                assert connection.recv(4096).startswith(b"HTTP/1.1 408")
            time.sleep(0.2)
        assert status_over_tls(server) == 200


def test_stop_does_not_wait_for_a_handshake(encrypted: Callable[..., Any]):
    with encrypted() as server:
        with socket.create_connection(server.address):
            time.sleep(0.2)
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < 5
        assert "rror" not in server.text()


def trusting_all() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextmanager
def answered_and_silent(server: Any, *fields: str) -> Iterator[ssl.SSLSocket]:
    """A connection that has had an answer, and never says that encryption may end."""
    plain = socket.create_connection(server.address, timeout=5.0)
    with trusting_all().wrap_socket(plain) as connection:
        lines = ["GET /health/live HTTP/1.1", "Host: localhost", *fields, "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        yield connection


def test_stop_does_not_wait_for_an_encrypted_connection_that_is_silent(encrypted: Callable[..., Any]):
    with encrypted() as server, answered_and_silent(server):
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 8
        assert "rror" not in server.text()


def test_silent_connection_gives_its_place_up_soon_after_its_answer(encrypted: Callable[..., Any]):
    with encrypted(TRIAGE_MAX_CONNECTIONS="1") as server, answered_and_silent(server, "Connection: close"):
        time.sleep(4)
        assert status_over_tls(server) == 200
        assert server.stop() == 0


@LOOPS
def test_long_answer_reaches_a_slow_reader_whole_though_the_connection_is_closed_behind_it(
    loop: str, certificate: tuple[Path, Path]
):
    """The application hands all of it over at once, and uvicorn closes at once."""
    length = 20_000_000

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(length)})

    def read_slowly(address: Address) -> int:
        plain = socket.create_connection(address, timeout=20.0)
        with trusting_all().wrap_socket(plain) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            time.sleep(3.5)
            came = 0
            while chunk := connection.recv(65536):
                came += len(chunk)
            return came

    async def story() -> int:
        async with serving(answer, certificate) as (address, state):
            came = await asyncio.to_thread(read_slowly, address)
            while state.connections:
                await asyncio.sleep(0.05)
            return came

    assert run_on(loop, story()) > length


def test_tls_by_file(launch: Callable[..., Any], certificate: tuple[Path, Path], draw: Any):
    cert, key = certificate
    with launch(TRIAGE_TLS_CERT=str(cert), TRIAGE_TLS_KEY=str(key)) as server:
        assert server.url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(cert))
        response = httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers=JPEG, verify=trusting)
        assert response.status_code == 200
        old = ssl.create_default_context(cafile=str(cert))
        old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(httpx.ConnectError):
            httpx_60s.get(f"{server.url}/health/live", verify=old)
        assert server.stop() == 0


def test_certificate_that_does_not_fit_is_one_sentence(
    refused: Callable[..., str], tiny_bundle: Path, certificate: tuple[Path, Path], tmp_path: Path
):
    assert "TRIAGE_TLS_CERT" in refused(
        "--bundle",
        tiny_bundle,
        "--port",
        0,
        TRIAGE_TLS_CERT=str(certificate[1]),
        TRIAGE_TLS_KEY=str(tmp_path),
    )


# Whose bundle


def test_only_bundles_of_those_who_are_trusted_are_served(
    launch: Callable[..., Any], refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path, start: Any
):
    for name in ("maker", "stranger"):
        signing.generate_key_pair(tmp_path / name, None)
    bundle = tmp_path / "signed"
    shutil.copytree(tiny_bundle, bundle)
    arguments = ("--bundle", bundle, "--port", 0)
    trust = {"TRIAGE_TRUSTED_KEYS": str(tmp_path / "maker.pub.pem")}
    assert "not signed" in refused(*arguments, **trust)
    assert "No signer is trusted" in refused(*arguments, TRIAGE_ALLOW_UNSIGNED="0")
    signing.sign(open_bundle(bundle), signing.read_private_key(tmp_path / "stranger.pem", None))
    assert "none of the 1 trusted" in refused(*arguments, **trust)
    signing.sign(open_bundle(bundle), signing.read_private_key(tmp_path / "maker.pem", None), replace=True)
    with start(bundle, tmp_path, **trust) as server:
        assert "signature of this bundle is not checked" not in server.text()
    whole = (bundle / "signature.json").read_bytes()
    (bundle / "signature.json").write_bytes(
        whole.replace(b'"signature": "', b'"signature": "0', 1)[:-4] + b'"\n}\n'
    )
    assert refused(*arguments, **trust).startswith("SignatureError: ")


@pytest.mark.parametrize("asks", [False, True])
def test_only_a_server_that_asks_nobody_warns_of_whoever_comes_around_its_proxy(
    asks: bool, launch: Callable[..., Any], tmp_path: Path
):
    new_key(tmp_path / "keys", "clinic-a", "score")
    keys = {"TRIAGE_API_KEYS_FILE": str(tmp_path / "keys")} if asks else {}
    with launch(TRIAGE_BEHIND_AUTHENTICATING_PROXY="1", **keys) as server:
        assert httpx_60s.get(f"{server.url}/v1/bundle").status_code == (401 if asks else 200)
        assert ("around its proxy" in server.text()) is not asks


def test_server_that_trusts_anyone_says_so(launch: Callable[..., Any]):
    with launch() as server:
        warnings = [json.loads(line) for line in server.text().splitlines() if '"warning"' in line]
        assert any("TRIAGE_ALLOW_UNSIGNED" in line["event"] for line in warnings)
