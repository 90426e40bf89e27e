"""The client against real servers: typed answers, retries, and no answer that was not given."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn

from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.webhook_secret import new_secret
from lesion_triage.errors import LesionTriageError
from triage_client import AsyncClient, Client, History, RefusedError, TriageError, UnansweredError
from triage_client.protocol import RetryPolicy
from triage_server.api_keys import new_key
from triage_server.app import create_app
from triage_server.audit_log import AuditLog
from triage_server.settings import Settings
from webhook_receiver import receiving

QUICK = RetryPolicy(retries=3, first_pause_s=0.01)


@contextmanager
def serving(scorer: Scorer, audit: AuditLog | None = None, **settings: Any) -> Iterator[tuple[str, Any]]:
    """The real application behind a real socket of this process: its URL and itself."""
    chosen = Settings(bundle=scorer.bundle.folder, threads=1, **settings)
    app = create_app(scorer.bundle, scorer, chosen, audit)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", app
        finally:
            server.should_exit = True
            thread.join(60)


@pytest.fixture(scope="module")
def scorer(tiny_bundle: Path) -> Scorer:
    return Scorer.open(tiny_bundle)


def test_answer_is_the_scorer_s_whether_waited_for_or_awaited(
    scorer: Scorer, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    pictures = [picture_bytes("referred", "JPEG"), picture_bytes("black", "PNG")]
    file = tmp_path / "Erika Mustermann.jpg"
    file.write_bytes(pictures[0])
    history = History(age_years=61, bleeding=True)
    expected = scorer.score(pictures, history, "de")

    async def awaited(url: str) -> Any:
        async with AsyncClient(url, language="de") as client:
            return await client.triage([file, pictures[1]], history)

    with serving(scorer) as (url, _):
        with Client(url, language="de") as client:
            assert client.triage([file, pictures[1]], history).answer == expected
        assert asyncio.run(awaited(url)).answer == expected


def test_refusal_says_why_and_is_not_tried_again(scorer: Scorer, picture_bytes: Callable[..., bytes]):
    with serving(scorer) as (url, app), Client(url, retry_policy=QUICK) as client:
        with pytest.raises(RefusedError, match="not a JPEG, PNG or WebP") as caught:
            client.triage([picture_bytes("below"), b"text"])
        assert (caught.value.status, caught.value.code, caught.value.index) == (
            422,
            "image_format_not_supported",
            1,
        )
        assert caught.value.request_id
        assert 'code="image_format_not_supported"} 1.0' in app.state.service.telemetry.render().decode()


def test_key_is_shown_and_a_wrong_one_is_refused(
    scorer: Scorer, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    key = new_key(tmp_path / "keys", "clinic-a", "score")
    with serving(scorer, api_keys_file=tmp_path / "keys") as (url, _):
        with Client(url, key) as client:
            assert client.triage([picture_bytes("below")]).request_id
        with Client(url, "wrong") as client, pytest.raises(RefusedError, match="not_authenticated"):
            client.triage([picture_bytes("below")])


def test_headers_of_the_caller_s_own_take_neither_key_nor_language_away():
    seen: list[httpx.Headers] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        return httpx.Response(404)

    own: dict[str, Any] = {"headers": {"X-Site": "a"}, "transport": httpx.MockTransport(refuse)}
    with Client("http://localhost", "a-key", language="de", **own) as client, pytest.raises(RefusedError):
        client.case("case_1")
    (sent,) = seen
    names = ("authorization", "accept-language", "x-site")
    assert [sent[name] for name in names] == ["Bearer a-key", "de", "a"]


def test_busy_server_is_asked_again_until_it_has_room(scorer: Scorer, picture_bytes: Callable[..., bytes]):
    with serving(scorer, queue=0) as (url, app):
        place = app.state.service.pool.reserve_slot()
        place.__enter__()
        threading.Timer(1.5, place.__exit__, (None, None, None)).start()
        with Client(url, retry_policy=QUICK) as client:
            triaged = client.triage([picture_bytes("below")])
    assert triaged.answer.disposition == "below_threshold"


def test_submitted_case_is_brought_to_the_callback_and_can_be_asked_for(
    scorer: Scorer, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    secret = new_secret()
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "secret").write_text(secret)
    expected = scorer.score([picture_bytes("referred")])

    async def awaited(url: str, case_id: str) -> Any:
        async with AsyncClient(url) as client:
            again = await client.submit(
                [picture_bytes("referred")], callback="ehr", idempotency_key="0123456789abcdef"
            )
            return again.case_id, await client.wait(case_id, every_s=0.05)

    with receiving() as receiver, AuditLog(tmp_path / "audit", 2**20) as audit:
        ehr = {"url": receiver.url, "secret_file": str(tmp_path / "secret")}
        said = {"webhooks": json.dumps({"ehr": ehr}), "webhook_outbox": tmp_path / "outbox"}
        with serving(scorer, audit, **said) as (url, _), Client(url, retry_policy=QUICK) as client:
            case = client.submit(
                [picture_bytes("referred")], callback="ehr", idempotency_key="0123456789abcdef"
            )
            assert (case.answer, case.state) == (expected, "pending")
            done = client.wait(case.case_id, every_s=0.05)
            assert (done.state, done.last_status, done.answer) == ("delivered", 204, expected)
            assert asyncio.run(awaited(url, case.case_id)) == (case.case_id, done)
            with pytest.raises(RefusedError, match="case_not_known"):
                client.case("case_0")
            with pytest.raises(RefusedError, match="callback_not_known"):
                client.submit([picture_bytes("below")], callback="lab")
    (brought,) = receiver.cases(secret)
    assert (brought.case_id, brought.answer, brought.audit_hash) == (
        case.case_id,
        expected,
        case.audit_hash,
    )


class Flaky(BaseHTTPRequestHandler):
    """Passes requests on to nobody; answers as the server's test says, and notes what it was asked."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server: Any = self.server
        server.asked.append((self.headers["Idempotency-Key"], body[body.index(b"\r\n") :]))
        status, headers, answer = server.script.pop(0)
        if status is None:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(answer)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def scripted(*script: tuple[int | None, dict[str, str], bytes]) -> Iterator[tuple[str, Any]]:
    server: Any = HTTPServer(("127.0.0.1", 0), Flaky)
    server.script, server.asked = list(script), []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()


BUSY = (503, {"Retry-After": "0"}, json.dumps({"code": "busy", "detail": "Full."}).encode())
CUT: tuple[None, dict[str, str], bytes] = (None, {}, b"")


def test_every_try_is_the_same_case_under_the_same_key(scorer: Scorer, picture_bytes: Callable[..., bytes]):
    picture = picture_bytes("below")
    answer = scorer.score([picture])
    done = (200, {"X-Audit-Hash": "5f3b"}, answer.model_dump_json().encode())
    for said in (None, "kept-0123456789abcdef"):
        with scripted(CUT, BUSY, (502, {}, b"<html>"), done) as (url, server):
            with Client(url, retry_policy=QUICK) as client:
                triaged = client.triage([picture], idempotency_key=said)
            assert (triaged.answer, triaged.audit_hash, triaged.request_id) == (answer, "5f3b", None)
            (key,) = {key for key, _ in server.asked}
            assert len(key) >= 16
            assert said in (None, key)
            assert len(server.asked) == 4


def test_retries_end_and_the_error_says_what_to_do(picture_bytes: Callable[..., bytes]):
    for script, error in (([BUSY] * 4, RefusedError), ([CUT] * 4, UnansweredError)):
        with scripted(*script) as (url, server), Client(url, retry_policy=QUICK) as client:
            with pytest.raises(error):
                client.triage([picture_bytes("below")])
            assert server.script == []
    nobody, sentence = Client("http://127.0.0.1:9", retry_policy=QUICK), "queue the case as of band 1"
    with nobody as client, pytest.raises(UnansweredError, match=sentence):
        client.triage([b"x"])


@pytest.mark.parametrize(
    "reply", [b"", b"[]", b"<html>", b'{"disposition": "below_threshold", "score": 0.01}']
)
def test_what_is_no_whole_answer_is_none(reply: bytes):
    with scripted((200, {}, reply)) as (url, _):
        unread = pytest.raises(UnansweredError, match="cannot be read by this version")
        with Client(url, retry_policy=QUICK) as client, unread:
            client.triage([b"x"])


_GZIP = {"Content-Encoding": "gzip"}
_ROUND = {"Location": "/v1/triage"}
DAMAGED: dict[str, tuple[Any, type[TriageError]]] = {
    "no gzip": ([(200, _GZIP, b"nonsense")] * 4, UnansweredError),
    "a refusal that is no gzip": ([(422, _GZIP, b"nonsense")] * 4, UnansweredError),
    "a busy server's that is no gzip": ([(503, _GZIP, b"nonsense")] * 4, UnansweredError),
    "redirects in a circle": ([(307, _ROUND, b"")] * 12, UnansweredError),
    "a deep answer": ([(200, {}, b"[" * 200_000)], UnansweredError),
    "a deep refusal": ([(422, {}, b"[" * 200_000)], RefusedError),
    "a refusal with a long number": ([(422, {}, b'{"index": ' + b"1" * 5000 + b"}")], RefusedError),
    "a refusal that is no UTF-8": ([(422, {}, b'{"code": "\xff"}')], RefusedError),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_reply_is_no_answer_and_never_another_error(what: str):
    script, error = DAMAGED[what]

    async def awaited(url: str) -> None:
        async with AsyncClient(url, retry_policy=QUICK, follow_redirects=True, max_redirects=2) as client:
            await client.triage([b"x"])

    with scripted(*script) as (url, server):
        with Client(url, retry_policy=QUICK, follow_redirects=True, max_redirects=2) as client:
            with pytest.raises(TriageError) as caught:
                client.triage([b"x"])
            assert type(caught.value) is error
        server.script = list(script)
        with pytest.raises(error):
            asyncio.run(awaited(url))


@pytest.mark.parametrize("index", ["1", 1.0, True, -1, [1], None])
def test_a_refusal_s_index_is_a_position_or_none(index: Any):
    reply = json.dumps({"code": "image_empty", "detail": None, "index": index}).encode()
    refused = pytest.raises(RefusedError, match="422 image_empty: The reply is not a problem")
    with scripted((422, {}, reply)) as (url, _), Client(url, retry_policy=QUICK) as client, refused as caught:
        client.triage([b"x"])
    assert caught.value.index is None


@pytest.mark.parametrize(
    "key", ["", "short", "0123456789abcdef\n", "ü" * 16, "x" * 65, b"0123456789abcdef", UUID(int=0)]
)
def test_a_key_that_no_server_takes_is_refused_before_anything_is_sent(key: Any):
    async def awaited(url: str) -> None:
        async with AsyncClient(url, retry_policy=QUICK) as client:
            await client.submit([b"x"], callback="ehr", idempotency_key=key)

    with scripted(BUSY) as (url, server):
        with Client(url, retry_policy=QUICK) as client, pytest.raises(UnansweredError, match="16 to 64"):
            client.triage([b"x"], idempotency_key=key)
        with pytest.raises(UnansweredError, match="16 to 64"):
            asyncio.run(awaited(url))
        assert server.asked == []


def test_pause_grows_is_no_shorter_than_the_server_asks_and_has_an_end():
    retry_policy = RetryPolicy(first_pause_s=1.0)
    for tries in (1, 2, 3):
        assert 2 ** (tries - 1) <= retry_policy.pause_s(tries, "") <= 2**tries
    assert retry_policy.pause_s(1, "7") == 7
    assert retry_policy.pause_s(1, "1e9") <= 2
    in_half_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 <= retry_policy.pause_s(1, in_half_a_minute) <= 30
    for header in ("99999", "100000", "Wed, 21 Oct 2099 07:28:00 GMT"):
        assert retry_policy.pause_s(1, header) == 60
    assert retry_policy.pause_s(99, "") == 60
    assert retry_policy.pause_s(1100, "") == 60


def test_errors_are_of_one_family():
    assert issubclass(RefusedError, TriageError)
    assert issubclass(UnansweredError, TriageError)
    assert issubclass(TriageError, LesionTriageError)


def test_every_package_of_the_wheel_says_that_it_is_typed():
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {name for name in packages if (root / name / "py.typed").is_file()} == set(packages)


def test_client_needs_nothing_of_the_server():
    code = (
        "import sys, triage_client; print([n for n in ('fastapi', 'onnxruntime', 'PIL') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
