"""An answer for a callback: kept before it is acknowledged, delivered signed, and shown to nobody else."""

from __future__ import annotations

import asyncio
import base64
import hmac
import io
import json
import os
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

import httpx_60s
import tiny_bundle as tiny
from lesion_triage.bundle.webhook_secret import new_secret
from lesion_triage.errors import ConfigError
from triage_client import verify_webhook
from triage_server import audit_log
from triage_server.api_keys import new_key
from triage_server.app import create_app
from triage_server.audit_chain import files_of, verify
from triage_server.audit_log import AuditLog
from triage_server.cli import main
from triage_server.settings import Settings, load
from triage_server.telemetry import Telemetry
from triage_server.webhooks.callbacks import Callbacks, signature
from triage_server.webhooks.dispatcher import Dispatcher
from triage_server.webhooks.outbox import OutboxEntry, OutboxThread
from webhook_receiver import receiving

JPEG = {"Content-Type": "image/jpeg"}
SECRET = new_secret()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def variables(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """The settings of a server with a callback 'ehr', quick to try again, and an audit log."""

    def made(url: str, secret: str = SECRET, callbacks: Any = None, **more: str) -> dict[str, str]:
        (tmp_path / "secret").touch(0o600)
        (tmp_path / "secret").write_text(secret)
        said = callbacks or {"ehr": {"url": url, "secret_file": str(tmp_path / "secret")}}
        return {
            "TRIAGE_WEBHOOKS": json.dumps(said),
            "TRIAGE_WEBHOOK_OUTBOX": str(tmp_path / "outbox.sqlite"),
            "TRIAGE_WEBHOOK_FIRST_PAUSE_S": "0.1",
            "TRIAGE_AUDIT_LOG": str(tmp_path / "audit"),
            **more,
        }

    return made


def send(server: Any, picture: bytes, callback: str = "ehr", **headers: str) -> httpx.Response:
    address = f"{server.url}/v1/triage?callback={callback}"
    return httpx_60s.post(address, content=picture, headers=JPEG | headers)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files_of(folder) for line in file.read_bytes().splitlines()]


def desk(*words: object) -> tuple[int, str]:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        status = main(["webhooks", *map(str, words)])
    return status, out.getvalue()


def metric(server: Any, name: str) -> float:
    page = httpx_60s.get(f"{server.url}/metrics").text
    return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


def said_of_callback(server: Any) -> list[str]:
    events = [json.loads(line)["event"] for line in server.text().splitlines() if line.startswith("{")]
    return [event for event in events if event.startswith("callback ehr ")]


def until(what: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_answer_is_recorded_accepted_and_delivered_signed(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    with receiving() as receiver, launch(**variables(receiver.url)) as server:
        accepted = send(server, draw(), **{"X-Request-Id": "case-0001"})
        receiver.wait()
        here = httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers=JPEG)
        where = accepted.headers["location"]
        until(lambda: httpx_60s.get(server.url + where).json()["state"] == "delivered")
        status = httpx_60s.get(server.url + where).json()
        assert server.stop() == 0
    assert (accepted.status_code, accepted.json()["state"]) == (202, "pending")
    assert where == f"/v1/cases/{accepted.json()['case_id']}"
    ((headers, body),) = receiver.came
    moment, number = headers["webhook-timestamp"], headers["webhook-id"]
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = hmac.new(key, f"{number}.{moment}.".encode() + body, "sha256").digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    message = json.loads(body)
    assert message["type"] == "case.answered"
    assert message["data"]["answer"] == accepted.json()["answer"] == status["answer"] == here.json()
    assert message["data"]["case_id"] == number == status["case_id"]
    assert message["data"]["request_id"] == "case-0001"
    assert (status["attempts"], status["last_status"]) == (1, 204)
    lines = lines_of(tmp_path / "audit")
    (answer,) = (line for line in lines if line["event"] == "answer" and "callback" in line)
    (delivered,) = (line for line in lines if line["event"] == "delivered")
    assert (answer["callback"], answer["case_id"]) == ("ehr", number)
    assert accepted.headers["x-audit-hash"] == answer["hash"] == message["data"]["audit_hash"]
    assert sha256(body[body.index(b'"answer":') + 9 : -2]).hexdigest() == answer["answer_sha256"]
    assert (delivered["case_id"], delivered["attempts"], delivered["receiver_status"]) == (number, 1, 204)
    assert verify(tmp_path / "audit").torn == 0


def test_signature_is_that_of_the_published_example():
    """Of the specification's own libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    said = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert said == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_receiver_that_fails_is_tried_again_later_and_later(
    launch: Callable[..., Any], variables: Any, draw: Any
):
    script = [(500, {}, 0.0), (503, {"Retry-After": "1"}, 0.0), (429, {}, 0.0)]
    with receiving(*script) as receiver, launch(**variables(receiver.url)) as server:
        number = send(server, draw()).json()["case_id"]
        receiver.wait(4)
        assert receiver.moments[2] - receiver.moments[1] >= 1.0  # as it was asked
        assert {headers["webhook-id"] for headers, _ in receiver.came} == {number}
        assert len({body for _, body in receiver.came}) == 1
        until(lambda: metric(server, "triage_webhooks_pending") == 0)
        assert metric(server, 'triage_webhooks_total{callback="ehr",outcome="failed"}') == 3
        assert metric(server, 'triage_webhooks_total{callback="ehr",outcome="delivered"}') == 1
        assert server.stop() == 0
    assert said_of_callback(server) == [
        *(f"callback ehr did not take an answer: it answered {status}" for status in (500, 503, 429)),
        "callback ehr takes answers again",
    ]


@pytest.mark.parametrize(
    ("reply", "why"), [(None, "refused|failed"), (b"SSH-2.0\r\n\r\n", "no reply that is HTTP")]
)
def test_log_says_once_why_a_receiver_cannot_be_reached(
    reply: bytes | None, why: str, launch: Callable[..., Any], variables: Any, draw: Any
):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while reply is not None:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(reply)

        thread = threading.Thread(target=serve)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        if reply is None:
            listener.close()
        thread.start()
        with launch(**variables(address)) as server:
            send(server, draw())
            until(lambda: metric(server, 'triage_webhooks_total{callback="ehr",outcome="failed"}') >= 2)
            assert server.stop() == 0
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    (said,) = said_of_callback(server)
    assert re.fullmatch(f"callback ehr did not take an answer: .*({why}).*", said)


def test_receiver_may_ask_for_a_pause_by_a_date(launch: Callable[..., Any], variables: Any, draw: Any):
    said = []

    def later() -> str:
        said.append(format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True))
        return said[0]

    with (
        receiving((503, {"Retry-After": later}, 0.0)) as receiver,
        launch(**variables(receiver.url)) as server,
    ):
        send(server, draw())
        receiver.wait(2)
        assert datetime.now(UTC) >= parsedate_to_datetime(said[0])
        assert server.stop() == 0


@pytest.mark.parametrize(
    "date", ["Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "Wed, 21 Oct 2030 07:28:00 +99999999999999"]
)
def test_date_that_no_calendar_has_costs_no_delivery(
    date: str, launch: Callable[..., Any], variables: Any, draw: Any
):
    script = [(503, {"Retry-After": date}, 0.0), (200, {"Retry-After": date}, 0.0)]
    with receiving(*script) as receiver, launch(**variables(receiver.url)) as server:
        address = f"{server.url}/v1/cases/{send(server, draw()).json()['case_id']}"
        until(lambda: httpx_60s.get(address).json()["state"] == "delivered")
        status = httpx_60s.get(address).json()
        assert (status["attempts"], status["last_status"], len(receiver.came)) == (2, 200, 2)
        assert server.stop() == 0


def test_message_that_cannot_be_built_is_given_up_when_its_time_is_over(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    settings = variables(f"http://127.0.0.1:{free_port()}/", TRIAGE_WEBHOOK_FIRST_PAUSE_S="60")
    with launch(**settings) as server:
        number = send(server, draw()).json()["case_id"]
        assert server.stop() == 0
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as base, base:
        base.execute("UPDATE cases SET accepted_at = 1e300, next_at = 0, until = 0")
    with launch(**settings) as server:
        until(lambda: "undelivered" in [line["event"] for line in lines_of(tmp_path / "audit")])
        assert server.stop() == 0
    (line,) = (line for line in lines_of(tmp_path / "audit") if line["event"] == "undelivered")
    assert (line["case_id"], line["receiver_status"]) == (number, None)


def test_kill_between_acknowledgement_and_delivery_loses_nothing(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    port = free_port()
    settings = variables(f"http://127.0.0.1:{port}/")
    with launch(**settings) as server:
        accepted = [send(server, draw(seed=seed)).json() for seed in range(5)]
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(30)
    with receiving(port=port) as receiver, launch(**settings) as server:
        receiver.wait(5)
        until(lambda: metric(server, "triage_webhooks_pending") == 0)
        status = httpx_60s.get(f"{server.url}/v1/cases/{accepted[0]['case_id']}").json()
        assert status["answer"] == accepted[0]["answer"]
        assert server.stop() == 0
    brought = {case.case_id: case.answer.model_dump(mode="json") for case in receiver.cases(SECRET)}
    assert brought == {one["case_id"]: one["answer"] for one in accepted}
    assert [line["event"] for line in lines_of(tmp_path / "audit")].count("delivered") == 5


def test_stop_waits_for_what_is_under_way_and_keeps_the_rest(
    launch: Callable[..., Any], variables: Any, draw: Any
):
    port = free_port()
    settings = variables(f"http://127.0.0.1:{port}/")
    with receiving((204, {}, 0.7), port=port) as receiver, launch(**settings) as server:
        send(server, draw())
        assert server.stop() == 0
        assert len(receiver.came) == 1
    with launch(**settings) as server:
        send(server, draw())
        until(lambda: metric(server, 'triage_webhooks_total{callback="ehr",outcome="failed"}') > 0)
        assert server.stop() == 0
    with receiving(port=port) as receiver, launch(**settings) as server:
        receiver.wait(1)
        assert server.stop() == 0


def test_same_key_is_the_same_case_and_delivered_once_also_after_a_restart(
    launch: Callable[..., Any], variables: Any, draw: Any
):
    key = {"Idempotency-Key": "0123456789abcdef"}
    with receiving() as receiver:
        settings = variables(receiver.url)
        with launch(**settings) as server:
            first, again = (send(server, draw(), **key) for _ in range(2))
            waited = httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers=JPEG | key)
            receiver.wait(1)
            assert server.stop() == 0
        with launch(**settings) as server:
            after = send(server, draw(), **key)
            time.sleep(0.3)
            assert server.stop() == 0
    assert first.json()["case_id"] == again.json()["case_id"] == after.json()["case_id"]
    assert first.json()["answer"] == after.json()["answer"]
    assert (waited.status_code, waited.json()["code"]) == (422, "repeated_differently")
    assert len(receiver.came) == 1


def test_the_answer_kept_for_a_key_comes_with_its_own_line_though_another_bundle_serves_now(
    start: Callable[..., Any], variables: Any, tiny_bundle: Path, tmp_path: Path, draw: Any
):
    other = tiny.make(tmp_path / "other", threshold=0.001).folder
    settings, key = variables(f"http://127.0.0.1:{free_port()}/"), {"Idempotency-Key": "0123456789abcdef"}
    replies = []
    for bundle in (tiny_bundle, other):
        with start(bundle, tmp_path, **settings) as server:
            replies.append(send(server, draw(), **key))
            assert server.stop() == 0
    first, again = replies
    assert again.json()["answer"] == first.json()["answer"]
    for reply in replies:
        assert reply.headers["x-audit-hash"] == reply.json()["audit_hash"]
    (line,) = (one for one in lines_of(tmp_path / "audit") if one["hash"] == again.headers["x-audit-hash"])
    assert line["bundle_sha256"] == again.json()["answer"]["bundle_sha256"]


@pytest.mark.parametrize(
    "asked",
    ["other", "EHR", "", "http://127.0.0.1:1/", "ehr%00", "../ehr", "ehr&callback=ehr", "ehr,ehr"],
)
def test_no_address_and_no_other_name_comes_from_a_request(
    asked: str, ask: Any, scorer: Any, variables: Any, tmp_path: Path, draw: Any
):
    callbacks = variables("https://ehr.example.org/")["TRIAGE_WEBHOOKS"]
    said = {"webhooks": callbacks, "webhook_outbox": tmp_path / "outbox", "threads": 1}
    with AuditLog(tmp_path / "audit", 2**20) as audit:
        app = create_app(scorer.bundle, scorer, Settings(bundle=scorer.bundle.folder, **said), audit)
        with closing(app.state.service.webhooks):
            reply = ask(app, "POST", f"/v1/triage?callback={asked}", content=draw(), headers=JPEG)
    assert (reply.status_code, reply.json()["code"]) == (422, "callback_not_known")
    assert asked not in reply.text or not asked


def test_names_of_a_server_with_callbacks(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    keys = tmp_path / "keys"
    first, second = (new_key(keys, name, "score") for name in ("clinic-a", "clinic-b"))
    with receiving() as receiver:
        ehr = {"url": receiver.url, "secret_env": "EHR_SECRET", "callers": [f"key:{first.split('_')[1]}"]}
        settings = variables("", callbacks={"ehr": ehr, "lab": ehr | {"callers": ["key:nobody"]}})
        with launch(**settings, EHR_SECRET=SECRET, TRIAGE_API_KEYS_FILE=str(keys)) as server:
            mine, theirs = ({"Authorization": f"Bearer {key}"} for key in (first, second))
            accepted = send(server, draw(), **mine)
            assert accepted.status_code == 202
            assert send(server, draw(), **theirs).json()["code"] == "callback_not_known"
            for name in ("lab", "http://127.0.0.1:1", "ehr&callback=ehr", ""):
                assert send(server, draw(), name, **mine).json()["code"] == "callback_not_known"
            where = server.url + accepted.headers["location"]
            assert httpx_60s.get(where, headers=mine).status_code == 200
            hidden = httpx_60s.get(where, headers=theirs)
            assert (hidden.status_code, hidden.json()["code"]) == (404, "case_not_known")
            assert httpx_60s.get(where).status_code == 401
            assert httpx_60s.get(f"{server.url}/v1/cases/case_{'0' * 32}", headers=mine).status_code == 404
            preferred = httpx_60s.post(
                f"{server.url}/v1/triage",
                content=draw(),
                headers=JPEG | mine | {"Prefer": "wait=10, respond-async"},
            )
            assert preferred.status_code == 202
            assert preferred.headers["preference-applied"] == "respond-async"
            no_callback = httpx_60s.post(
                f"{server.url}/v1/triage",
                content=draw(),
                headers=JPEG | theirs | {"Prefer": "respond-async"},
            )
            assert no_callback.status_code == 200
            receiver.wait(2)
            assert server.stop() == 0


def test_redirect_is_not_followed(launch: Callable[..., Any], variables: Any, draw: Any):
    with receiving() as elsewhere:
        script = [(status, {"Location": elsewhere.url}, 0.0) for status in (302, 307, 308)]
        with receiving(*script) as receiver, launch(**variables(receiver.url)) as server:
            send(server, draw())
            receiver.wait(4)
            assert server.stop() == 0
        assert elsewhere.came == []


def test_outbox_holds_no_photograph_and_no_answer_that_can_be_read(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    picture = draw()
    history = b'{"sex": "female", "age_years": 61, "bleeding": true}'
    with launch(**variables(f"http://127.0.0.1:{free_port()}/")) as server:
        address = f"{server.url}/v1/triage?callback=ehr"
        files = [("image", ("Mustermann.jpg", picture)), ("history", (None, history))]
        assert httpx_60s.post(address, files=files).status_code == 202
        kept = b"".join(path.read_bytes() for path in tmp_path.glob("outbox.sqlite*"))
        log = server.text()
        assert server.stop() == 0
    assert (tmp_path / "outbox.sqlite").stat().st_mode & 0o077 == 0
    assert len(kept) > 8192
    for word in (b"disposition", b"REMOTE ASSESSMENT", b"female", b"bleed", b"Mustermann", picture[200:260]):
        assert word not in kept
    assert SECRET not in log


def test_full_outbox_refuses_before_the_case_is_read_and_waiting_cases_go_on(
    launch: Callable[..., Any], variables: Any, draw: Any
):
    port = free_port()
    settings = variables(f"http://127.0.0.1:{port}/", TRIAGE_WEBHOOK_OUTBOX_CASES="2")
    with launch(**settings) as server:
        assert [send(server, draw(seed=seed)).status_code for seed in range(2)] == [202, 202]
        full = send(server, draw(seed=2))
        assert (full.status_code, full.json()["code"]) == (503, "outbox_full")
        assert int(full.headers["retry-after"]) > 0
        assert httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers=JPEG).status_code == 200
        with receiving(port=port) as receiver:
            receiver.wait(2)
            until(lambda: send(server, draw(seed=3)).status_code == 202)  # delivered ones make room
        assert server.stop() == 0


def test_callback_that_is_given_up_again_and_again_leaves_room_to_the_others(
    launch: Callable[..., Any], variables: Any, draw: Any
):
    secret = {"secret_env": "EHR_SECRET"}
    with receiving(*[(410, {}, 0.0)] * 2) as gone, receiving() as receiver:
        callbacks = {"gone": {"url": gone.url} | secret, "ehr": {"url": receiver.url} | secret}
        settings = variables("", callbacks=callbacks, TRIAGE_WEBHOOK_OUTBOX_CASES="4", EHR_SECRET=SECRET)
        with launch(**settings) as server:
            for seed in range(2):
                assert send(server, draw(seed=seed), "gone").status_code == 202
            until(lambda: metric(server, "triage_webhooks_undelivered") == 2)
            full = send(server, draw(seed=2), "gone")
            assert (full.status_code, full.json()["code"]) == (503, "outbox_full")
            assert send(server, draw(seed=3), "ehr").status_code == 202
            receiver.wait(1)
            assert server.stop() == 0


def test_answers_to_a_callback_that_is_named_no_more_take_no_room_and_can_be_dropped_together(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    outbox, secret = tmp_path / "outbox.sqlite", {"secret_env": "EHR_SECRET"}
    more = {"TRIAGE_WEBHOOK_OUTBOX_CASES": "2", "TRIAGE_WEBHOOK_FIRST_PAUSE_S": "60", "EHR_SECRET": SECRET}
    with receiving((410, {}, 0.0), (500, {}, 0.0)) as gone, receiving(*[(410, {}, 0.0)] * 9) as receiver:
        with launch(**variables("", callbacks={"gone": {"url": gone.url} | secret}, **more)) as server:
            numbers = [send(server, draw(seed=0), "gone").json()["case_id"]]
            until(lambda: metric(server, "triage_webhooks_undelivered") == 1)
            with closing(sqlite3.connect(outbox)) as base, base:  # as one that a half of the room is left to
                base.execute("UPDATE cases SET callback = 'former'")
            assert server.stop() == 0
        with launch(**variables("", callbacks={"gone": {"url": gone.url} | secret}, **more)) as server:
            assert (
                "1 answers in the outbox are for callbacks that are no longer configured (former)"
                in server.text()
            )
            numbers.append(send(server, draw(seed=1), "gone").json()["case_id"])
            gone.wait(2)
            assert server.stop() == 0
        with launch(**variables("", callbacks={"ehr": {"url": receiver.url} | secret}, **more)) as server:
            assert (
                "2 answers in the outbox are for callbacks that are no longer configured (former, gone)"
                in server.text()
            )
            assert send(server, draw(seed=2)).status_code == 202
            until(lambda: metric(server, "triage_webhooks_undelivered") == 2)
            full = send(server, draw(seed=3))  # as far as its own answers go all is as before
            assert (full.status_code, full.json()["code"]) == (503, "outbox_full")
            states = [httpx_60s.get(f"{server.url}/v1/cases/{number}").json()["state"] for number in numbers]
            assert states == ["undelivered", "pending"]
            assert desk("drop", "--outbox", outbox, "--callback", "ehr") == (0, "1 answers dropped\n")
            assert desk("retry", "--outbox", outbox, "--callback", "ehr") == (
                0,
                "0 answers queued for delivery again\n",
            )
            assert desk("retry", "--outbox", outbox, "--callback", "former") == (
                0,
                "1 answers queued for delivery again (1 for former); within half a minute a running server "
                "sends those for the callbacks that it is configured with\n",
            )
            assert server.stop() == 0


def test_outbox_that_cannot_be_written_is_a_503_and_no_acknowledgement(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    with receiving() as receiver, launch(**variables(receiver.url)) as server:
        with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as base:
            base.execute("DROP TABLE cases")
        key = {"Idempotency-Key": "0123456789abcdef"}
        refused = send(server, draw(), **key)
        assert (refused.status_code, refused.json()["code"]) == (503, "outbox_unavailable")
        assert "disposition" not in refused.text
        # What the problem advises.
        here = httpx_60s.post(f"{server.url}/v1/triage", content=draw(), headers=JPEG | key)
        assert here.status_code == 200
        assert server.stop() == 0


def test_answer_that_nobody_wants_is_seen_and_can_be_set_out_again(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    outbox = tmp_path / "outbox.sqlite"
    with receiving((410, {}, 0.0)) as receiver:
        settings = variables(receiver.url)
        with launch(**settings) as server:
            number = send(server, draw()).json()["case_id"]
            until(lambda: metric(server, "triage_webhooks_undelivered") == 1)
            assert httpx_60s.get(f"{server.url}/v1/cases/{number}").json()["state"] == "undelivered"
            assert server.stop() == 0
        status, said = desk("show", "--outbox", outbox)
        assert (status, number in said, "410" in said) == (0, True, True)
        for hours in ("0", "-1", "8761", "soon"):
            with pytest.raises(SystemExit, match="2"):
                desk("retry", "--outbox", outbox, "--keep-hours", hours)
        assert desk("retry", "--outbox", outbox, "--keep-hours", "5") == (
            0,
            "1 answers queued for delivery again (1 for ehr); within half a minute a running server sends "
            "those for the callbacks that it is configured with\n",
        )
        with closing(sqlite3.connect(outbox)) as base:
            ((until_then,),) = base.execute("SELECT until - next_at FROM cases").fetchall()
        assert until_then == pytest.approx(5 * 3600.0)
        with launch(**settings) as server:
            receiver.wait(2)
            assert server.stop() == 0
    assert desk("show", "--outbox", outbox) == (0, "")
    assert desk("show", "--outbox", tmp_path / "none")[0] == 2
    lines = lines_of(tmp_path / "audit")
    assert [line["event"] for line in lines if "case_id" in line] == ["answer", "undelivered", "delivered"]


def test_answer_that_was_given_up_stays_until_somebody_drops_it(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    outbox = tmp_path / "outbox.sqlite"
    with receiving(*[(410, {}, 0.0)] * 3) as receiver:
        settings = variables(receiver.url, TRIAGE_WEBHOOK_KEEP_HOURS="1")
        with launch(**settings) as server:
            old, other, delivered = (send(server, draw(seed=seed)).json()["case_id"] for seed in range(3))
            until(lambda: metric(server, "triage_webhooks_undelivered") == 3)
            assert server.stop() == 0
        with closing(sqlite3.connect(outbox)) as base, base:
            base.execute("UPDATE cases SET settled_at = settled_at - 1e6 + rowid")
            base.execute("UPDATE cases SET state = 'delivered' WHERE case_id = ?", (delivered,))
        with launch(**settings) as server:
            until(lambda: httpx_60s.get(f"{server.url}/v1/cases/{delivered}").status_code == 404)
            assert httpx_60s.get(f"{server.url}/v1/cases/{old}").json()["state"] == "undelivered"
            assert metric(server, "triage_webhooks_undelivered") == 2
            assert server.stop() == 0
    with pytest.raises(SystemExit, match="2"):
        desk("drop", "--outbox", outbox)
    assert desk("drop", "--outbox", outbox, "--case-id", old) == (0, "1 answers dropped\n")
    assert [line.split()[0] for line in desk("show", "--outbox", outbox)[1].splitlines()] == [other]
    assert desk("drop", "--outbox", outbox, "--all") == (0, "1 answers dropped\n")
    assert desk("show", "--outbox", outbox) == (0, "")


def test_answer_is_given_up_and_deleted_when_its_time_is_over(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    settings = variables(f"http://127.0.0.1:{free_port()}/", TRIAGE_WEBHOOK_KEEP_HOURS="1")
    with launch(**settings) as server:
        given_up, delivered = (send(server, draw(seed=seed)).json()["case_id"] for seed in range(2))
        assert server.stop() == 0
    hours = 3600.0
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as base, base:
        base.execute("UPDATE cases SET until = until - ? WHERE case_id = ?", (2 * hours, given_up))
        said = "UPDATE cases SET state = 'delivered', settled_at = ? WHERE case_id = ?"
        base.execute(said, (time.time() - 2 * hours, delivered))
    with launch(**settings) as server:
        address = f"{server.url}/v1/cases/"
        until(lambda: httpx_60s.get(address + given_up).json().get("state") == "undelivered")
        until(lambda: httpx_60s.get(address + delivered).status_code == 404)
        assert server.stop() == 0


def test_answer_accepted_while_the_clock_was_a_year_ahead_is_delivered_once_it_is_set_right(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    port, year_s = free_port(), 365 * 86400.0
    settings = variables(f"http://127.0.0.1:{port}/")
    with launch(**settings) as server:
        number = send(server, draw()).json()["case_id"]
        assert server.stop() == 0
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as base, base:
        base.execute(
            "UPDATE cases SET accepted_at = accepted_at + :y, until = until + :y, next_at = next_at + :y",
            {"y": year_s},
        )
    with receiving((500, {}, 0.0), port=port) as receiver, launch(**settings) as server:
        receiver.wait(2)  # also after a failed attempt
        until(lambda: httpx_60s.get(f"{server.url}/v1/cases/{number}").json()["state"] == "delivered")
        assert server.stop() == 0


@pytest.mark.parametrize(("status", "state"), [(204, "delivered"), (500, "undelivered")])
def test_answer_is_tried_once_more_when_its_time_ran_out_while_the_server_was_down(
    status: int, state: str, launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    port = free_port()
    settings = variables(f"http://127.0.0.1:{port}/", TRIAGE_WEBHOOK_KEEP_HOURS="1")
    with launch(**settings) as server:
        number = send(server, draw()).json()["case_id"]
        assert server.stop() == 0
    with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as base, base:
        base.execute("UPDATE cases SET until = until - 7200, next_at = next_at - 7200, attempts = 0")
    with receiving((status, {}, 0.0), port=port) as receiver, launch(**settings) as server:
        address = f"{server.url}/v1/cases/{number}"
        until(lambda: httpx_60s.get(address).json()["state"] == state)
        assert httpx_60s.get(address).json()["attempts"] == len(receiver.came) == 1
        assert server.stop() == 0
    last = next(line for line in lines_of(tmp_path / "audit") if line["event"] == state)
    assert (last["attempts"], last["receiver_status"]) == (1, status)


def test_answer_to_a_callback_that_is_named_no_more_is_given_up_without_an_attempt(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    with receiving((500, {}, 0.0)) as receiver:
        settings = variables(receiver.url, TRIAGE_WEBHOOK_FIRST_PAUSE_S="60")
        with launch(**settings) as server:
            number = send(server, draw()).json()["case_id"]
            receiver.wait(1)
            assert server.stop() == 0
        with closing(sqlite3.connect(tmp_path / "outbox.sqlite")) as base, base:
            base.execute("UPDATE cases SET until = 0")
        settings["TRIAGE_WEBHOOKS"] = settings["TRIAGE_WEBHOOKS"].replace('"ehr"', '"lab"')
        with launch(**settings) as server:
            address = f"{server.url}/v1/cases/{number}"
            until(lambda: httpx_60s.get(address).json()["state"] == "undelivered")
            assert httpx_60s.get(address).json()["attempts"] == 1
            assert server.stop() == 0
    (line,) = (line for line in lines_of(tmp_path / "audit") if line["event"] == "undelivered")
    assert (line["attempts"], line["receiver_status"]) == (1, 500)


def test_disk_of_the_audit_log_that_hangs_holds_up_a_stop_for_one_line_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    secret, disk, flush = tmp_path / "secret", threading.Event(), audit_log._flush
    secret.touch(0o600)
    secret.write_text(SECRET)
    box = OutboxThread(tmp_path / "outbox.sqlite", 10, ["ehr"])
    monkeypatch.setattr(audit_log, "_flush", lambda handle: (disk.wait(), flush(handle)))

    async def story(audit: AuditLog) -> float:
        for number in range(5):
            entry = OutboxEntry(
                str(number), "a", "gone", "r", None, 0.0, 1.0, "pending", 1, 0.0, None, 500, b""
            )
            await box.run(lambda outbox, entry=entry: outbox.put(entry))  # type: ignore[misc]
        known = Callbacks.read(
            json.dumps({"ehr": {"url": "http://127.0.0.1:9/", "secret_file": str(secret)}})
        )
        dispatcher = Dispatcher(known, box, audit, Telemetry("a" * 64, "m"), keep_s=3600.0, first_pause_s=1.0)
        working = asyncio.create_task(dispatcher.run())
        await asyncio.sleep(0.2)
        began = time.monotonic()
        dispatcher.stop()
        await working
        return time.monotonic() - began

    with AuditLog(tmp_path / "audit", 2**20, timeout_s=1.0) as audit:
        assert asyncio.run(story(audit)) < 2.0
        disk.set()
    box.close()


def unwritable(outbox: Path, yes: bool) -> None:
    """Stands for a full disk under the outbox: nothing in it can be changed."""
    said = "CREATE TRIGGER full BEFORE UPDATE ON cases BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
    with closing(sqlite3.connect(outbox, timeout=10)) as base, base:
        base.execute(said if yes else "DROP TRIGGER full")


def test_delivery_that_the_outbox_cannot_note_is_made_and_recorded_once(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    outbox = tmp_path / "outbox.sqlite"
    with receiving((204, {}, 1.0)) as receiver, launch(**variables(receiver.url)) as server:
        number = send(server, draw()).json()["case_id"]
        unwritable(outbox, yes=True)
        receiver.wait(1)
        time.sleep(3.0)
        assert httpx_60s.get(f"{server.url}/v1/cases/{number}").json()["state"] == "pending"
        unwritable(outbox, yes=False)
        until(lambda: httpx_60s.get(f"{server.url}/v1/cases/{number}").json()["state"] == "delivered")
        assert httpx_60s.get(f"{server.url}/v1/cases/{number}").json()["attempts"] == 1
        assert server.stop() == 0
    assert len(receiver.came) == 1
    assert [line["event"] for line in lines_of(tmp_path / "audit")].count("delivered") == 1


def test_attempts_that_the_outbox_cannot_note_come_later_and_later_and_are_counted(
    launch: Callable[..., Any], variables: Any, tmp_path: Path, draw: Any
):
    outbox, failing = tmp_path / "outbox.sqlite", [(500, {}, 0.7), (500, {}, 0.0), (500, {}, 0.0)]
    with receiving(*failing) as receiver:
        settings = variables(receiver.url, TRIAGE_WEBHOOK_FIRST_PAUSE_S="0.5")
        with launch(**settings) as server:
            number = send(server, draw()).json()["case_id"]
            unwritable(outbox, yes=True)
            receiver.wait(3)
            time.sleep(2.0)  # the pause is 4.5 s by now, in part by chance
            assert len(receiver.came) == 3
            unwritable(outbox, yes=False)
            receiver.wait(4)
            assert receiver.moments[3] - receiver.moments[2] >= 4.5 * 0.75
            until(lambda: httpx_60s.get(f"{server.url}/v1/cases/{number}").json()["state"] == "delivered")
            assert httpx_60s.get(f"{server.url}/v1/cases/{number}").json()["attempts"] == 4
            assert server.stop() == 0


def test_secrets_may_be_changed_while_answers_wait(launch: Callable[..., Any], variables: Any, draw: Any):
    port, newer = free_port(), new_secret()
    with launch(**variables(f"http://127.0.0.1:{port}/")) as server:
        send(server, draw())
        assert server.stop() == 0
    both = variables(f"http://127.0.0.1:{port}/", secret=f"{newer}\n{SECRET}")
    with receiving(port=port) as receiver, launch(**both) as server:
        ((headers, body),) = receiver.wait(1)
        assert server.stop() == 0
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (newer, SECRET, [new_secret(), newer]):
        assert verify_webhook(body, headers, secret).case_id == headers["webhook-id"]


def test_receiver_s_certificate_is_checked(
    launch: Callable[..., Any], variables: Any, certificate: tuple[Path, Path], draw: Any, tmp_path: Path
):
    with receiving(certificate=certificate) as receiver:
        ehr = {"url": receiver.url, "secret_env": "EHR_SECRET", "ca_file": str(certificate[0])}
        unknown = {name: value for name, value in ehr.items() if name != "ca_file"}
        for said, came in ((unknown, 0), (ehr, 1)):
            with launch(**variables("", callbacks={"ehr": said}), EHR_SECRET=SECRET) as server:
                if not came:
                    send(server, draw())
                    failed = 'triage_webhooks_total{callback="ehr",outcome="failed"}'
                    until(lambda failed=failed, server=server: metric(server, failed) > 0)  # type: ignore[misc]
                    assert "certificate verify failed" in said_of_callback(server)[0]
                else:
                    receiver.wait(1)
                assert server.stop() == 0
            assert len(receiver.came) == came


GOOD = {"url": "https://ehr.example.org/taken", "secret_env": "EHR_SECRET"}


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({}, "no callback is named"),
        ({"Ehr ": GOOD}, "expected an object of callbacks"),
        ({"ehr": GOOD | {"uri": "x"}}, "expected an object of callbacks"),
        ({"ehr": GOOD | {"url": "http://ehr.example.org/"}}, "expected https"),
        ({"ehr": GOOD | {"url": "ftp://ehr.example.org/"}}, "expected https"),
        ({"ehr": GOOD | {"url": "https://user:word@ehr.example.org/"}}, "without user"),
        ({"ehr": GOOD | {"url": "https://ehr.example.org:port/"}}, "expected an address"),
        ({"ehr": GOOD | {"url": "https://[::1/"}}, "expected an address"),
        ({"ehr": GOOD | {"url": "https:///path"}}, "expected an address"),
        (
            {"ehr": GOOD | {"url": "https://ehr.example.org/\r\nX: y"}},
            "characters that are not allowed in one",
        ),
        ({"ehr": {"url": GOOD["url"]}}, "secret_file"),
        ({"ehr": GOOD | {"secret_file": "x"}}, "exactly one of"),
        ({"ehr": GOOD | {"secret_env": "NO_SUCH_SECRET"}}, "webhooks secret"),
        ({"ehr": GOOD | {"ca_file": "none.pem"}}, "ca_file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_callback_that_cannot_be_used_is_one_sentence(said: Any, sentence: str):
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        Callbacks.read(json.dumps(said), {"EHR_SECRET": SECRET})
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ('{"ehr": %s, "ehr": %s}', "a key occurs twice"),
        ('{"ehr": {"url": "https://other.example.org/", "url": %s}}', "a key occurs twice"),
        ('{"ehr": %s', "not valid JSON"),
    ],
)
def test_callbacks_that_could_be_understood_in_two_ways_are_refused(config: str, sentence: str):
    with pytest.raises(ConfigError, match=sentence):
        Callbacks.read(config.replace("%s", json.dumps(GOOD)), {"EHR_SECRET": SECRET})


def test_callbacks_of_a_file_that_an_editor_began_with_a_mark_are_read(tmp_path: Path):
    file = tmp_path / "callbacks.json"
    file.write_text(json.dumps({"ehr": GOOD}), encoding="utf-8-sig")
    assert list(Callbacks.read(str(file), {"EHR_SECRET": SECRET}).by_name) == ["ehr"]


@pytest.mark.parametrize("mode", [0o644, 0o642, 0o444])
def test_secret_that_everyone_may_read_or_write_is_refused(mode: int, tmp_path: Path):
    file = tmp_path / "secret"
    file.write_text(SECRET)
    said = json.dumps({"ehr": {"url": GOOD["url"], "secret_file": str(file)}})
    file.chmod(mode)
    with pytest.raises(ConfigError, match="any user of this machine may read or write it") as caught:
        Callbacks.read(said)
    # Inside a container nobody can change the rights of what is mounted there.
    for way in ("chmod o-rw", "defaultMode: 0440", "fsGroup", "mode: 0440"):
        assert way in str(caught.value)
    file.chmod(0o640)  # of the server's group
    assert Callbacks.read(said).by_name["ehr"].secrets


def test_callbacks_need_outbox_and_audit_log(variables: Any):
    whole = variables("http://127.0.0.1:1/")
    for name in ("TRIAGE_WEBHOOK_OUTBOX", "TRIAGE_AUDIT_LOG"):
        said = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(ConfigError, match=name):
            load(["--bundle", "b"], said)


def test_second_server_on_the_same_outbox_is_refused(
    launch: Callable[..., Any], refused: Any, variables: Any, tiny_bundle: Path, tmp_path: Path
):
    settings = variables("http://127.0.0.1:1/")
    with launch(**settings):
        other = settings | {"TRIAGE_AUDIT_LOG": str(tmp_path / "other")}
        assert "another server uses this outbox" in refused("--bundle", tiny_bundle, "--port", 0, **other)


def test_page_that_cannot_be_opened_leaves_the_outbox_to_others(
    variables: Any, scorer: Any, tiny_bundle: Path, tmp_path: Path
):
    said = variables("http://127.0.0.1:1/", TRIAGE_READING_QUEUE=str(tmp_path / "none" / "queue.sqlite"))
    settings = load(["--bundle", str(tiny_bundle)], said)
    with AuditLog(tmp_path / "audit", 2**20) as audit:
        with pytest.raises(ConfigError, match="queue"):
            create_app(scorer.bundle, scorer, settings, audit)
        assert settings.webhook_outbox is not None
        OutboxThread(settings.webhook_outbox, 1, []).close()
