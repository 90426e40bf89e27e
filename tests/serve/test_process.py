from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import httpx_60s
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import Scorer
from triage_server.api_keys import KeyRecord, new_key, write_keys
from triage_server.cli import main

JPEG = {"Content-Type": "image/jpeg"}
LINE_KEYS = {
    *(
        "time",
        "level",
        "event",
        "request_id",
        "caller",
        "method",
        "route",
        "status",
        "duration_ms",
        "problem",
    ),
    *("disposition", "audit"),
}
NAME = "Mustermann"
PROGRAM = [sys.executable, "-W", "error", "-m", "triage_server"]
PATIENCE_S = 60


def post(server: Any, **request: Any) -> httpx.Response:
    return httpx_60s.post(f"{server.url}/v1/triage", **request)


def json_lines(server: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]


class HalfSent:
    """A request of which the server has read the first half: its case has a place and waits."""

    def __init__(self, server: Any, picture: bytes) -> None:
        self._connection = socket.create_connection(server.address, timeout=60)
        self._rest = picture[len(picture) // 2 :]
        head = (
            "POST /v1/triage HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
            f"Content-Length: {len(picture)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self._connection.sendall(head.encode())
        # "100 Continue" is sent when the application asks for the body, which it does from its place.
        assert self._connection.recv(100).startswith(b"HTTP/1.1 100")
        self._connection.sendall(picture[: len(picture) // 2])

    def leave(self) -> None:
        self._connection.close()

    def finish(self) -> bytes:
        self._connection.sendall(self._rest)
        answer = self.listen()
        self.leave()
        return answer

    def listen(self) -> bytes:
        return b"".join(iter(lambda: self._connection.recv(65536), b""))


def wait_until_closed(server: Any) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx_60s.get(f"{server.url}/health/live")
        except httpx.TransportError:
            return
        time.sleep(0.02)
    pytest.fail("the server still takes connections")


def test_http_gives_the_scorer_s_score_to_the_last_bit(server: Any, scorer: Scorer, draw: Any):
    pictures = [*scorer.bundle.selftest_pictures.values(), draw(), draw(kind="WEBP")]
    for picture in pictures:
        response = post(server, content=picture, headers={"Content-Type": "application/octet-stream"})
        assert Answer.model_validate_json(response.content) == scorer.score([picture])
    gradable = pictures[-2:]
    response = post(server, files=[("image", ("a.jpg", picture, "image/jpeg")) for picture in gradable])
    assert Answer.model_validate_json(response.content) == scorer.score(gradable)


def test_ready_line_names_the_address_and_warns_of_synthetic_bundles(server: Any, scorer: Scorer):
    ready = next(line for line in server.text().splitlines() if line.startswith("triage-server ready"))
    assert server.url in ready
    warned = any(line["level"] == "warning" for line in json_lines(server))
    assert warned is scorer.bundle.header.synthetic


def test_bad_pictures_are_problems_over_the_wire(server: Any, bad_pictures: dict[str, tuple[bytes, str]]):
    for picture, code in bad_pictures.values():
        response = post(server, content=picture, headers=JPEG)
        assert (response.status_code, response.json()["code"]) == (422, code)


def test_oversized_body_is_refused_announced_or_chunked(launch: Callable[..., Any]):
    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(10_000)

    with launch(TRIAGE_MAX_BODY_BYTES="100000") as server:
        for content in (bytes(10_000_000), endless()):
            response = post(server, content=content, headers=JPEG)
            assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
        assert post(server, content=b"x", headers=JPEG).status_code == 422


def test_full_queue_is_refused_and_recovers(launch: Callable[..., Any], draw: Any):
    with launch("--workers-threads", 1, TRIAGE_QUEUE="0") as server:
        waiting = HalfSent(server, draw())
        response = post(server, content=draw(), headers=JPEG)
        assert (response.status_code, response.json()["code"]) == (503, "busy")
        assert response.headers["retry-after"] == "1"
        assert httpx_60s.get(f"{server.url}/health/ready").status_code == 503
        assert httpx_60s.get(f"{server.url}/health/live").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert waiting.finish().startswith(b"HTTP/1.1 200")
        assert server.process.wait(60) == 0


def test_sigterm_lets_a_case_that_is_under_way_finish(launch: Callable[..., Any], draw: Any, scorer: Scorer):
    picture = draw()
    with launch() as server:
        ready_file = server.log.with_name("ready")
        case = HalfSent(server, picture)
        server.process.send_signal(signal.SIGTERM)
        wait_until_closed(server)
        head, _, body = case.finish().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert Answer.model_validate_json(body) == scorer.score([picture])
        assert server.process.wait(60) == 0
        assert not ready_file.exists()


def test_client_that_leaves_gives_its_place_up(launch: Callable[..., Any], draw: Any):
    with launch("--workers-threads", 1, TRIAGE_QUEUE="0") as server:
        HalfSent(server, draw()).leave()
        for _ in range(100):
            response = post(server, content=draw(), headers=JPEG)
            if response.status_code == 200:
                break
        assert response.status_code == 200
        assert server.stop() == 0
        assert 499 in [line.get("status") for line in json_lines(server)]


@pytest.mark.parametrize("behind", [b"", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_client_that_leaves_before_its_answer_is_not_said_to_have_had_it(
    behind: bytes, launch: Callable[..., Any]
):
    plain = io.BytesIO()  # of few bytes, and long to decode
    Image.new("RGB", (4000, 3000), (200, 150, 130)).save(plain, "PNG")
    picture = plain.getvalue()
    fields = (
        "POST /v1/triage HTTP/1.1",
        "Host: localhost",
        "Content-Type: image/png",
        f"Content-Length: {len(picture)}",
    )
    head = "".join(f"{field}\r\n" for field in (*fields, ""))
    with launch() as server:
        with socket.create_connection(server.address) as connection:
            connection.sendall(head.encode() + picture + behind)
        deadline = time.monotonic() + PATIENCE_S
        while not (lines := [line for line in json_lines(server) if line.get("route") == "/v1/triage"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        page = httpx_60s.get(f"{server.url}/metrics").text
        assert server.stop() == 0
    assert [line["status"] for line in lines] == [499]
    assert 'triage_requests_total{method="POST",route="/v1/triage",status="499"} 1.0' in page


@pytest.mark.parametrize("signals", [[signal.SIGINT] * 2, [signal.SIGTERM, signal.SIGINT]])
def test_second_ctrl_c_ends_the_waiting_and_nothing_else(
    signals: list[int], launch: Callable[..., Any], draw: Any, tmp_path: Path
):
    """The case under way is told so, and files and threads are closed as after any other stop."""
    log, page = tmp_path / "audit", str(tmp_path / "queue.sqlite")
    with launch(TRIAGE_AUDIT_LOG=str(log), TRIAGE_READING_QUEUE=page) as server:
        case = HalfSent(server, draw())
        for number in signals:
            server.process.send_signal(number)
            time.sleep(0.3)
        head, _, body = case.listen().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert json.loads(body)["code"] == "stopping"
        assert server.process.wait(20) == 0
        case.leave()
        assert "Traceback" not in server.text()
        assert "unclosed" not in server.text()
    assert main(["audit", "verify", str(log)]) == 0


def test_sigterm_that_is_repeated_lets_the_case_under_way_finish(launch: Callable[..., Any], draw: Any):
    with launch() as server:
        case = HalfSent(server, draw())
        for _ in range(3):
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
        assert case.finish().startswith(b"HTTP/1.1 200")
        assert server.process.wait(PATIENCE_S) == 0


def test_case_that_is_not_done_when_the_server_has_waited_long_enough_is_told_so(
    launch: Callable[..., Any], draw: Any, tmp_path: Path
):
    with launch(TRIAGE_DRAIN_TIMEOUT_S="1", TRIAGE_AUDIT_LOG=str(tmp_path / "audit")) as server:
        case = HalfSent(server, draw())
        server.process.send_signal(signal.SIGTERM)
        head, _, body = case.listen().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 2" in head.lower()
        problem = json.loads(body)
        assert server.process.wait(PATIENCE_S) == 0  # though the client closes nothing
        case.leave()
        (line,) = (line for line in json_lines(server) if line["event"] == "request")
        assert (line["status"], line["problem"]) == (503, problem["code"]) == (503, "stopping")
        assert line["request_id"] == problem["request_id"]
        assert "Exception in ASGI" not in server.text()
        assert main(["audit", "verify", str(tmp_path / "audit")]) == 0


def test_logs_and_answers_hold_nothing_of_the_patient(launch: Callable[..., Any], draw: Any):
    tagged = draw() + NAME.encode()
    headers = {"X-Request-Id": f"Erika {NAME}", "User-Agent": NAME, "X-Patient": NAME, "Cookie": NAME}
    with launch() as server:
        with httpx_60s.Client(base_url=server.url, headers=headers, params={"patient": NAME}) as client:
            answers = [
                client.post("/v1/triage", files={"image": (f"{NAME}.jpg", tagged)}),
                client.post("/v1/triage", files={NAME: (f"{NAME}.jpg", tagged)}),
                client.post("/v1/triage", files={"image": (f"{NAME}.jpg", NAME.encode())}),
                client.post("/v1/triage", content=NAME.encode(), headers=JPEG),
                client.post("/v1/triage", content=tagged, headers={"Content-Type": f"text/{NAME}"}),
                client.get(f"/v1/{NAME}"),
                client.put("/v1/triage"),
            ]
        assert [answer.status_code for answer in answers] == [200, 422, 422, 422, 415, 404, 405]
        assert server.stop() == 0
        for text in [server.text(), *(answer.text + str(answer.headers) for answer in answers)]:
            assert NAME.lower() not in text.lower()
        lines = [line for line in json_lines(server) if line["event"] == "request"]
        assert len(lines) == len(answers)
        for line, answer in zip(lines, answers, strict=True):
            assert line.keys() == LINE_KEYS
            assert (line["request_id"], line["status"]) == (
                answer.headers["x-request-id"],
                answer.status_code,
            )
        assert lines[0]["disposition"] == answers[0].json()["disposition"]
        assert [line["route"] for line in lines] == ["/v1/triage"] * 5 + [None, "/v1/triage"]


def test_a_broken_form_leaves_its_request_line_and_nothing_of_its_bytes(server: Any):
    before = len(json_lines(server))
    form = {"Content-Type": "multipart/form-data; boundary=q"}
    problem = post(server, content=b"Mustermann", headers=form).json()
    assert problem["code"] == "multipart_not_valid"
    lines, deadline = json_lines(server)[before:], time.monotonic() + 30
    while problem["request_id"] not in [line.get("request_id") for line in lines]:  # written after the answer
        assert time.monotonic() < deadline
        time.sleep(0.01)
        lines = json_lines(server)[before:]
    assert {line["event"] for line in lines} == {"request"}  # those of tests before may come late


def test_many_clients_at_once_get_their_own_answers(server: Any, scorer: Scorer, draw: Any):
    pictures = [draw(seed=seed) for seed in range(16)]
    with ThreadPoolExecutor(8) as clients:
        responses = list(clients.map(lambda picture: post(server, content=picture, headers=JPEG), pictures))
    for picture, response in zip(pictures, responses, strict=True):
        assert Answer.model_validate_json(response.content) == scorer.score([picture])


@pytest.mark.parametrize("left", ["http://127.0.0.1:1", ""], ids=["earlier run", "mktemp"])
def test_bundle_with_a_flipped_byte_is_not_served_and_no_ready_file_is_left(
    left: str, refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path
):
    copy = tmp_path / "altered"
    shutil.copytree(tiny_bundle, copy)
    graph = bytearray((copy / "model.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (copy / "model.onnx").write_bytes(graph)
    ready = tmp_path / "ready"
    ready.write_text(left)
    sentence = refused("--bundle", copy, "--port", 0, "--ready-file", ready)
    assert sentence.startswith("BundleError: ")
    assert "model.onnx" in sentence
    assert not ready.exists()


def test_missing_bundle_is_one_sentence(refused: Callable[..., str], tmp_path: Path):
    assert refused("--bundle", tmp_path / "none").startswith("BundleError: ")


def test_a_site_s_text_that_lets_go_is_one_sentence(
    refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path
):
    text = json.dumps({"dispositions": {"below_threshold": "Entwarnung."}})
    (tmp_path / "de.json").write_text(text, encoding="utf-8")
    said = refused("--bundle", tiny_bundle, "--port", 0, TRIAGE_CATALOGUES=str(tmp_path))
    assert said.startswith("ConfigError: ")
    assert "'de', dispositions.below_threshold has 'entwarnung'" in said


def test_host_beyond_loopback_is_one_sentence(refused: Callable[..., str], tiny_bundle: Path):
    assert "without authentication" in refused("--bundle", tiny_bundle, "--host", "0.0.0.0")


def test_misspelt_variable_is_one_sentence(refused: Callable[..., str]):
    assert "did you mean TRIAGE_BUNDLE?" in refused(TRIAGE_BUNDEL="x")


def test_address_of_another_machine_is_one_sentence(refused: Callable[..., str], tiny_bundle: Path):
    proxy = {"TRIAGE_BEHIND_AUTHENTICATING_PROXY": "1"}
    for host in ("203.0.113.7", "no.such.host.invalid"):
        said = refused("--bundle", tiny_bundle, "--port", 0, "--host", host, **proxy)
        assert "an address of this machine" in said


def test_link_to_itself_in_place_of_a_bundle_is_one_sentence(
    refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path
):
    link = tmp_path / "served"
    link.symlink_to("served")
    assert refused("--bundle", link).startswith("BundleError: ")
    assert refused("bundles", "activate", link, "--link", tmp_path / "other").startswith("BundleError: ")
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "served"
    assert refused("bundles", "activate", tiny_bundle, "--link", below).startswith("ConfigError: ")
    line = [*PROGRAM, "bundles", "activate", tiny_bundle, "--link", link]
    settings = os.environ | {"TRIAGE_ALLOW_UNSIGNED": "1"}
    assert subprocess.run(line, env=settings, capture_output=True, check=False).returncode == 0
    assert link.resolve() == tiny_bundle


def test_port_in_use_is_one_sentence(refused: Callable[..., str], server: Any, tiny_bundle: Path):
    assert "choose another port" in refused("--bundle", tiny_bundle, "--port", server.address[1])


def test_ready_file_without_a_folder_is_one_sentence(
    refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path
):
    assert "ready file" in refused("--bundle", tiny_bundle, "--ready-file", tmp_path / "none" / "ready")


def test_ready_file_that_is_a_folder_is_one_sentence(
    refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path
):
    assert "ready file" in refused("--bundle", tiny_bundle, "--ready-file", tmp_path)


@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_ready_file_that_is_something_else_is_left_alone(
    kind: str, refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path
):
    keys, named = tmp_path / "keys", tmp_path / "named"
    keys.write_text("what is not the server's")
    make = {"file": keys.rename, "link": lambda new: new.symlink_to(keys), "pipe": os.mkfifo}
    make[kind](named)
    before = named.lstat()
    assert "is no ready file" in refused("--bundle", tiny_bundle, "--ready-file", named)
    assert os.path.samestat(named.lstat(), before)
    if kind != "pipe":
        assert named.read_text() == "what is not the server's"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_server_serves_where_its_ready_line_cannot_be_written(
    start: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
):
    with start(tiny_bundle, tmp_path, under=("sh", "-c", 'exec "$@" >/dev/full', "sh")) as server:
        assert httpx_60s.get(f"{server.url}/health/ready").status_code == 200
        assert server.stop() == 0
        assert "the ready line cannot be written" in server.text()
        assert "Traceback" not in server.text()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not show a process's files")
def test_server_leaves_no_core_dump_and_none_of_its_files_is_taken_for_a_standard_stream(
    start: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
):
    closed = ("sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$@" <&- >&- 2>&-', "sh")
    with start(tiny_bundle, tmp_path, under=closed, TRIAGE_AUDIT_LOG=str(tmp_path / "audit")) as server:
        assert httpx_60s.get(f"{server.url}/health/ready").status_code == 200
        process = Path(f"/proc/{server.process.pid}")
        assert {(process / "fd" / str(number)).readlink() for number in range(3)} == {Path(os.devnull)}
        (limit,) = re.findall(r"^Max core file size +(\S+)", (process / "limits").read_text(), re.MULTILINE)
        assert limit == "0"
        assert server.stop() == 0


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder that is there, and where nobody may write")
def test_server_that_cannot_write_its_ready_file_ends_as_one_that_has_drained(
    tiny_bundle: Path, tmp_path: Path
):
    line = [*PROGRAM, "--bundle", tiny_bundle, "--port", "0", "--ready-file", "/proc/ready"]
    settings = {"TRIAGE_ALLOW_UNSIGNED": "1", "TRIAGE_AUDIT_LOG": str(tmp_path / "audit")}
    done = subprocess.run(
        line, env=os.environ | settings, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("ConfigError: The ready file /proc/ready")
    assert "Traceback" not in done.stderr
    assert '"event":"closed"' in (next((tmp_path / "audit").glob("*.jsonl"))).read_text()


SIGNAL_AT_IMPORT = """
import os, signal, sys

number, module = int(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
for one in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):  # nohup, around these tests, has taken one away
    signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_DFL)

class Caller:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Caller())
from triage_server.__main__ import main
sys.exit(main())
"""


def called_at(number: signal.Signals, module: str, *words: object, **variables: str) -> Any:
    line = [sys.executable, "-c", SIGNAL_AT_IMPORT, str(int(number)), module, *map(str, words)]
    settings = {"TRIAGE_ALLOW_UNSIGNED": "1", **variables}
    return subprocess.run(line, env=os.environ | settings, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("words", "status"), [(["--help"], 0), (["keys", "--help"], -signal.SIGHUP)])
def test_hangup_while_a_server_is_still_imported_is_left_alone(words: list[str], status: int):
    done = called_at(signal.SIGHUP, "triage_server.cli", *words)
    assert (done.returncode, "usage" in done.stdout) == (status, status == 0), done.stderr


def test_hangup_while_a_server_stops_is_left_alone_to_the_last(launch: Callable[..., Any], tmp_path: Path):
    with launch(TRIAGE_AUDIT_LOG=str(tmp_path / "audit")) as server:
        server.process.send_signal(signal.SIGTERM)
        while server.process.poll() is None:
            server.process.send_signal(signal.SIGHUP)
        assert server.process.returncode == 0, server.text()
        assert not server.log.with_name("ready").exists()
    assert '"event":"closed"' in next((tmp_path / "audit").glob("*.jsonl")).read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_server_that_is_told_to_stop_before_it_serves_ends_as_one_that_has_drained(
    number: signal.Signals, tiny_bundle: Path, tmp_path: Path
):
    begun = called_at(number, "triage_server.cli", "--bundle", tiny_bundle)
    log = {"TRIAGE_AUDIT_LOG": str(tmp_path / "audit")}
    page = {"TRIAGE_READING_QUEUE": str(tmp_path / "queue.sqlite")}
    nearly = called_at(number, "triage_server.page.context", "--bundle", tiny_bundle, **log, **page)
    for done in (begun, nearly):
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "audit").exists()
    assert main(["audit", "verify", str(tmp_path / "audit")]) == 0
    command = called_at(signal.SIGTERM, "triage_server.cli", "keys", "--help")
    assert command.returncode == -signal.SIGTERM


@pytest.mark.parametrize("module", ["triage_server.cli", "triage_server.webhooks.outbox"])
def test_subcommand_that_is_broken_off_while_it_is_imported_says_nothing(module: str, tmp_path: Path):
    done = called_at(signal.SIGINT, module, "webhooks", "show", "--outbox", tmp_path / "outbox")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_subcommand_whose_ctrl_c_a_shell_has_taken_away_goes_on(tmp_path: Path):
    """As of a script's job in the background."""
    code = SIGNAL_AT_IMPORT.replace("signal.default_int_handler", "signal.SIG_IGN")
    words = ["keys", "new", "platform", "--file", tmp_path / "keys"]
    line = [sys.executable, "-c", code, str(int(signal.SIGINT)), "triage_server.cli", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:4]) == (0, "ltk_"), done.stderr


def test_subcommand_that_is_broken_off_while_it_waits_leaves_the_file_as_it_was(tmp_path: Path):
    new_key(tmp_path / "keys", "platform", "score")
    before = (tmp_path / "keys").read_bytes()
    (tmp_path / ".keys.lock").touch()
    with (tmp_path / ".keys.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else changes the keys
        line = [*PROGRAM, "keys", "new", "another", "--file", tmp_path / "keys"]
        with heeding_interrupts():
            process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + PATIENCE_S
        while not waits_for_a_lock(process.pid):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, *said) == (130, "", "")
    assert (tmp_path / "keys").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"keys", ".keys.lock"}


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """A shell's background job, such as these tests may be, hands on that the signal is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def waits_for_a_lock(process: int) -> bool:
    """``/proc/locks``: an arrow stands before who waits, and the process in the fifth place behind it."""
    waiting = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return any(fields[5] == str(process) for fields in waiting)


def test_subcommand_whose_output_cannot_be_written_says_so_in_a_sentence(tmp_path: Path):
    line = [*PROGRAM, "keys", "new", "platform", "--file", tmp_path / "keys"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.rstrip().endswith("If it created a key that nobody saw, revoke that key.")
    assert "platform" in (tmp_path / "keys").read_text()


def test_subcommand_whose_output_is_closed_makes_no_key_that_nobody_sees(tmp_path: Path):
    line = ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "keys", "new", "a", "--file", tmp_path / "keys"]
    done = subprocess.run(line, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Standard output is closed" in done.stderr
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("number", [1, 3000])
def test_subcommand_whose_reader_has_had_enough_says_nothing(number: int, tmp_path: Path):
    record = KeyRecord(key_id="0" * 12, label="a", role="score", sha256="0" * 64, created_at="now")
    many = [record.model_copy(update={"key_id": f"{one:012x}"}) for one in range(number)]
    write_keys(tmp_path / "keys", many)
    line = [*PROGRAM, "keys", "list", "--file", tmp_path / "keys"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait(PATIENCE_S)) == (b"", 0)
