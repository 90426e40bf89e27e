"""What was answered can be proved: each acknowledged answer is in the audit log, whatever happens."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

import httpx_60s
from lesion_triage.bundle.scorer import Scorer
from triage_server.api_keys import new_key
from triage_server.audit_chain import files_of, verify
from triage_server.cli import main

JPEG = {"Content-Type": "image/jpeg"}
NAME, PLACE = "Mustermann", "Hintertupfing"
SECONDS = "13.40917"
"""Of its latitude; with more decimals than any time of day has that stands in a log."""


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files_of(folder) for line in file.read_bytes().splitlines()]


@dataclass
class Said:
    returncode: int
    stdout: str
    stderr: str


def desk(*words: object) -> Said:
    """``triage-server audit``, in this process: a new one would load the whole server."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main(["audit", *map(str, words)])
    return Said(status, out.getvalue(), err.getvalue())


def post(server: Any, **request: Any) -> httpx.Response:
    return httpx_60s.post(f"{server.url}/v1/triage", **request)


def test_line_says_who_asked_what_and_what_was_answered(
    launch: Callable[..., Any], tmp_path: Path, draw: Any, scorer: Scorer
):
    keys, folder, photograph = tmp_path / "keys", tmp_path / "audit", tmp_path / "photograph"
    key = new_key(keys, "clinic-a", "score")
    photograph.write_bytes(draw())
    with launch(TRIAGE_AUDIT_LOG=str(folder), TRIAGE_API_KEYS_FILE=str(keys)) as server:
        headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "case-0001"}
        response = post(
            server,
            files=[
                ("image", ("a.jpg", photograph.read_bytes())),
                ("history", (None, b'{"sex": "female", "age_years": 61}')),
            ],
            headers=headers,
        )
        refused = post(server, content=b"no picture", headers=headers | JPEG)
        httpx_60s.get(f"{server.url}/v1/bundle", headers=headers)
        assert server.stop() == 0
    opened, answer, refusal, closed = lines_of(folder)
    assert (opened["event"], opened["callers"], closed["event"]) == ("opened", "known", "closed")
    said = response.json()
    for name in ("disposition", "priority_band", "score", "threshold", "bundle_sha256", "certificate_id"):
        assert answer[name] == said[name]
    assert answer["reasons"] == [reason["code"] for reason in said["reasons"]]
    assert answer["answer_sha256"] == sha256(response.content).hexdigest()
    assert (answer["event"], answer["request_id"]) == ("answer", "case-0001")
    assert answer["caller"] == refusal["caller"] == f"key:{key.split('_')[1]}"
    assert response.headers["x-audit-hash"] == answer["hash"]
    assert desk("digest", folder, photograph).stdout.split()[0] == answer["photographs_hmac"][0]
    assert len(answer["history_hmac"]) == 64
    assert (refusal["event"], refusal["problem"]) == ("refusal", refused.json()["code"])
    assert "disposition" not in refusal


def test_verify_on_the_command_line_names_the_first_bad_line(
    launch: Callable[..., Any], tmp_path: Path, draw: Any
):
    folder = tmp_path / "audit"
    with launch(TRIAGE_AUDIT_LOG=str(folder)) as server:
        noted = [post(server, content=draw(), headers=JPEG).headers["x-audit-hash"] for _ in range(3)]
        assert server.stop() == 0
    assert desk("head", folder).stdout.strip() == lines_of(folder)[-1]["hash"]
    good = desk("verify", folder, "--head", noted[-1])
    assert (good.returncode, "the chain holds" in good.stdout) == (0, True)
    file = files_of(folder)[0]
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"priority_band":', b'"priority_banD":', 1))
    bad = desk("verify", folder)
    assert (bad.returncode, "line 2 " in bad.stderr) == (1, True)
    file.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    assert desk("verify", folder).returncode == 0
    assert desk("verify", folder, "--head", noted[-1]).returncode == 1
    assert desk("verify", tmp_path / "nowhere").returncode == 2


def test_unauthenticated_requests_leave_no_line(launch: Callable[..., Any], tmp_path: Path, draw: Any):
    new_key(tmp_path / "keys", "clinic-a", "score")
    folder = tmp_path / "audit"
    with launch(TRIAGE_AUDIT_LOG=str(folder), TRIAGE_API_KEYS_FILE=str(tmp_path / "keys")) as server:
        assert post(server, content=draw(), headers=JPEG).status_code == 401
        assert server.stop() == 0
    assert [line["event"] for line in lines_of(folder)] == ["opened", "closed"]


ROUNDS = 20


@pytest.mark.slow
def test_kill_under_load_loses_no_acknowledged_answer(launch: Callable[..., Any], tmp_path: Path, draw: Any):
    """Each round: four clients ask as fast as they can, the server is killed, the log is looked at."""
    folder, pictures = tmp_path / "audit", [draw(seed=seed) for seed in range(8)]
    acknowledged: set[str] = set()
    for number in range(ROUNDS):
        with launch(TRIAGE_AUDIT_LOG=str(folder), TRIAGE_AUDIT_ROTATE_BYTES="20000") as server:
            heard: list[tuple[str, bytes]] = []

            def ask(url: str = server.url, heard: list[tuple[str, bytes]] = heard) -> None:
                with httpx_60s.Client(base_url=url, headers=JPEG) as client:
                    for turn in range(100_000):
                        try:
                            response = client.post("/v1/triage", content=pictures[turn % len(pictures)])
                        except httpx.TransportError:
                            return
                        assert response.status_code == 200
                        heard.append((response.headers["x-audit-hash"], response.content))

            clients = [threading.Thread(target=ask) for _ in range(4)]
            for client in clients:
                client.start()
            while not heard:
                time.sleep(0.005)
            time.sleep(0.05 + 0.037 * number)
            os.kill(server.process.pid, signal.SIGKILL)
            for client in clients:
                client.join()
        lines = {line["hash"]: line for line in lines_of(folder) if "hash" in line}
        for line_hash, body in heard:
            assert lines[line_hash]["answer_sha256"] == sha256(body).hexdigest()
        acknowledged |= {line_hash for line_hash, _ in heard}
    with launch(TRIAGE_AUDIT_LOG=str(folder)) as server:
        assert server.stop() == 0
    walked = verify(folder)
    assert acknowledged <= {line["hash"] for line in lines_of(folder)}
    assert walked.end.sequence >= len(acknowledged) + ROUNDS


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit, which Linux has")
def test_full_disk_gives_no_answer_and_passes_by_itself(
    launch: Callable[..., Any], tmp_path: Path, draw: Any
):
    folder = tmp_path / "audit"
    once = JPEG | {"Idempotency-Key": "0123456789abcdef"}  # what got no answer is no repeat later
    with launch(TRIAGE_AUDIT_LOG=str(folder)) as server:
        assert post(server, content=draw(), headers=JPEG).status_code == 200
        size = files_of(folder)[0].stat().st_size
        process = server.process.pid
        unlimited = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size + 100, unlimited[1]))
        for _ in range(2):
            refused = post(server, content=draw(), headers=once)
            assert (refused.status_code, refused.json()["code"]) == (503, "audit_unavailable")
            assert "disposition" not in refused.text
        ready = httpx_60s.get(f"{server.url}/health/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "audit_unavailable")
        assert "triage_audit_failed 1.0" in httpx_60s.get(f"{server.url}/metrics").text
        resource.prlimit(process, resource.RLIMIT_FSIZE, unlimited)
        time.sleep(1.1)
        assert httpx_60s.get(f"{server.url}/health/ready").status_code == 200
        assert post(server, content=draw(), headers=once).status_code == 200
        assert server.stop() == 0
    assert verify(folder).torn == 0
    found = [line["event"] for line in lines_of(folder)]
    assert found == ["opened", "answer", "resumed", "answer", "closed"]


def test_second_server_on_the_same_log_is_refused(
    launch: Callable[..., Any], refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path
):
    folder = str(tmp_path / "audit")
    with launch(TRIAGE_AUDIT_LOG=folder):
        said = refused("--bundle", tiny_bundle, "--port", 0, TRIAGE_AUDIT_LOG=folder)
        assert "another server writes" in said


def photograph_of_a_person(picture: bytes) -> bytes:
    """With a name, a comment and a place in its EXIF, as a telephone writes them."""
    exif = Image.Exif()
    exif[0x013B] = NAME  # artist
    exif[0x9286] = NAME.encode()  # comment
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, float(SECONDS)), 28: PLACE})
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(buffer, "JPEG", exif=exif)
    assert NAME.encode() in buffer.getvalue()
    assert PLACE.encode() in buffer.getvalue()
    return buffer.getvalue()


def test_nothing_of_the_patient_is_anywhere(launch: Callable[..., Any], tmp_path: Path, draw: Any):
    photograph = photograph_of_a_person(draw())
    folder = tmp_path / "audit"
    work = tmp_path / "tmp"
    work.mkdir()
    headers = {"X-Request-Id": f"Erika {NAME}", "Idempotency-Key": f"{NAME} {NAME}", "Referer": NAME}
    with launch(TRIAGE_AUDIT_LOG=str(folder), TMPDIR=str(work)) as server:
        answers = [
            post(server, files={"image": (f"{NAME}.jpg", photograph)}),
            post(server, files={"image": (f"{NAME}.jpg", photograph)}, headers=headers),
            post(
                server,
                files={"image": (f"{NAME}.jpg", photograph), "history": (NAME, f'{{"sex": "{NAME}"}}')},
            ),
            post(server, files={"image": (f"{NAME}.jpg", photograph), "history": (NAME, f'{{"{NAME}": 1}}')}),
            post(server, content=photograph, headers=JPEG, params={"patient": NAME}),
            post(server, content=NAME.encode(), headers=JPEG),
            httpx_60s.get(f"{server.url}/{NAME}"),
        ]
        texts = [
            httpx_60s.get(f"{server.url}/metrics").text,
            *(str(answer.headers) + answer.text for answer in answers),
        ]
        assert server.stop() == 0
    assert [answer.status_code for answer in answers] == [200, 400, 200, 422, 200, 422, 404]
    texts += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert any('"event":"answer"' in text for text in texts)
    for text in texts:
        for planted in (NAME.lower(), PLACE.lower(), ".jpg", SECONDS):
            assert planted not in text.lower()
    assert list(work.rglob("*")) == []


# The same request again


def test_same_key_and_case_give_the_same_answer_and_another_case_is_refused(
    launch: Callable[..., Any], tmp_path: Path, draw: Any
):
    folder = tmp_path / "audit"
    once = JPEG | {"Idempotency-Key": "0123456789abcdef"}
    with launch(TRIAGE_AUDIT_LOG=str(folder)) as server:
        first, again = (post(server, content=draw(), headers=once) for _ in range(2))
        other = post(server, content=draw(seed=1), headers=once)
        short = post(server, content=draw(), headers=JPEG | {"Idempotency-Key": "short"})
        assert server.stop() == 0
    assert again.content == first.content
    assert (other.status_code, other.json()["code"]) == (422, "repeated_differently")
    assert (short.status_code, short.json()["code"]) == (400, "idempotency_key_not_valid")
    found = [line["event"] for line in lines_of(folder)]
    assert found == ["opened", "answer", "repeat", "refusal", "refusal", "closed"]


def test_case_that_is_sent_again_is_counted_as_a_repeat_and_not_as_a_case(
    launch: Callable[..., Any], picture_bytes: Callable[..., bytes]
):
    """Clients that send again what they heard no answer to would else look like a change of the patients."""
    photograph = picture_bytes("black", "JPEG")
    with launch() as server:
        for _ in range(3):
            post(server, content=photograph, headers=JPEG | {"Idempotency-Key": "0123456789abcdef"})
        page = httpx_60s.get(f"{server.url}/metrics").text.splitlines()
    assert 'triage_answers_total{disposition="ungradable",priority_band="1"} 1.0' in page
    assert 'triage_reasons_total{code="image_too_dark"} 1.0' in page
    assert "triage_repeats_total 2.0" in page


def test_idempotency_keys_of_two_callers_do_not_meet(launch: Callable[..., Any], tmp_path: Path, draw: Any):
    keys = tmp_path / "keys"
    callers = [new_key(keys, name, "score") for name in ("clinic-a", "clinic-b")]
    with launch(TRIAGE_API_KEYS_FILE=str(keys)) as server:
        for number, key in enumerate(callers):
            headers = JPEG | {"Idempotency-Key": "0123456789abcdef", "Authorization": f"Bearer {key}"}
            assert post(server, content=draw(seed=number), headers=headers).status_code == 200


# Counters


def test_counters_tell_what_was_answered_and_nothing_that_was_sent(
    launch: Callable[..., Any], picture_bytes: Callable[..., bytes]
):
    with launch() as server:
        for kind in ("referred", "referred", "below", "black"):
            post(server, content=picture_bytes(kind, "JPEG"), headers=JPEG)
        post(server, content=b"no picture", headers=JPEG)
        httpx_60s.get(f"{server.url}/nowhere/{NAME}")
        page = httpx_60s.get(f"{server.url}/metrics").text
    for line in (
        'triage_answers_total{disposition="needs_in_person",priority_band="1"} 2.0',
        'triage_answers_total{disposition="below_threshold",priority_band="4"} 1.0',
        'triage_answers_total{disposition="ungradable",priority_band="1"} 1.0',
        'triage_reasons_total{code="image_too_dark"} 1.0',
        'triage_problems_total{code="image_format_not_supported"} 1.0',
        'triage_requests_total{method="POST",route="/v1/triage",status="200"} 4.0',
        'triage_requests_total{method="GET",route="none",status="404"} 1.0',
        'triage_request_seconds_count{route="/v1/triage"} 5.0',
        "triage_cases_here 0.0",
        "triage_audit_failed 0.0",
    ):
        assert line in page.splitlines()
    assert NAME not in page
