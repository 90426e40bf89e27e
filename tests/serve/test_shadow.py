"""Shadows score what was answered, when there is time; nobody but log and counters hears of it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import httpx_60s
import tiny_bundle as tiny
from lesion_triage.bundle.store import Bundle
from triage_server.audit_chain import files_of, verify
from triage_server.cli import main
from triage_server.shadow import compare_decisions

JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def shadows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """One that refers every picture, and one that refers none that it can score."""
    folder = tmp_path_factory.mktemp("shadows")
    return tiny.make(folder / "eager", threshold=0.01), tiny.make(folder / "idle", threshold=0.999)


def post(server: Any, picture: bytes, **headers: str) -> httpx.Response:
    return httpx_60s.post(f"{server.url}/v1/triage", content=picture, headers=JPEG | headers)


def metrics_of(server: Any) -> str:
    return httpx_60s.get(f"{server.url}/metrics").text


def counted(server: Any, name: str, **labels: str) -> float:
    total = 0.0
    for line in metrics_of(server).splitlines():
        if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            total += float(line.rpartition(" ")[2])
    return total


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files_of(folder) for line in file.read_bytes().splitlines()]


def test_shadows_stand_in_log_counters_and_report_and_never_in_an_answer(
    start: Any,
    tiny_bundle: Path,
    shadows: tuple[Bundle, Bundle],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    eager, idle = shadows
    folder = tmp_path / "audit"
    named = f"{eager.folder}:{idle.folder}:{tiny_bundle}"  # the last is the one that answers
    kinds = ("referred", "below", "black")
    with start(tiny_bundle, tmp_path, TRIAGE_AUDIT_LOG=str(folder), TRIAGE_SHADOW_BUNDLES=named) as server:
        # From 0 on: Prometheus's increase() of a series that appears with 1 is 0, and no alert would come.
        assert f'{{band="down",bundle="{idle.sha256}",referral="down"}} 0.0' in metrics_of(server)
        heard = []
        for kind in kinds:
            key = {"Idempotency-Key": f"key-of-{kind:>012}".replace(" ", "0"), "X-Request-Id": kind}
            heard += [post(server, tiny.picture_bytes(kind, "JPEG"), **key) for _ in range(2)]
        assert all(one.status_code == 200 for one in heard)
        for one in heard:
            said = one.text + str(one.headers) + httpx_60s.get(f"{server.url}/v1/bundle").text
            assert eager.sha256 not in said
            assert idle.sha256 not in said
        wait_for(lambda: counted(server, "triage_shadow_cases_total", outcome="scored") == 6)
        of_idle = {"bundle": idle.sha256}
        assert counted(server, "triage_shadow_agreement_total", **of_idle, referral="down") == 1
        assert counted(server, "triage_shadow_score_difference_count", **of_idle) == 2  # black has no score
        assert server.stop() == 0
    walked, lines = verify(folder), lines_of(folder)
    assert lines[0]["shadow_bundles_sha256"][:2] == [eager.sha256, idle.sha256]
    found = {(line["bundle_sha256"], line["request_id"]): line for line in lines if line["event"] == "shadow"}
    assert len(found) == 6
    for (bundle, request_id), line in found.items():
        answer = next(one for one in lines if (one["event"], one.get("request_id")) == ("answer", request_id))
        assert line["answered"]["sequence"] == answer["sequence"] < line["sequence"] <= walked.end.sequence
        assert line["answered"]["score"] == answer["score"] == line["score"]  # of one network
        expected = {(eager.sha256, "below"): "up", (idle.sha256, "referred"): "down"}
        assert line["referral"] == expected.get((bundle, request_id), "same")
    assert main(["shadow", "report", str(folder), "--cases"]) == 0
    report = capsys.readouterr().out
    assert report.count("3 cases compared") == 2
    # One of three, by hand: 1 - (1 - p)^3 = 0.025 at 0.0084; (1 - p)^3 + 3 p (1 - p)^2 = 0.025 at 0.9057.
    row = next(line for line in report.splitlines() if "NOT BY THE SHADOW" in line and " 1 " in line)
    assert row.split()[-5:] == ["1", "33.33%", "(0.84%", "to", "90.57%)"]
    assert any(line.split()[1:] == ["referred", "referral"] for line in report.splitlines())


def test_busy_server_leaves_shadows_behind_and_counts_what_it_left_out(
    start: Any, tiny_bundle: Path, shadows: tuple[Bundle, Bundle], tmp_path: Path, draw: Any
) -> None:
    few = {"TRIAGE_SHADOW_QUEUE": "2", "TRIAGE_SHADOW_BUNDLES": str(shadows[0].folder)}
    with start(tiny_bundle, tmp_path, "--workers-threads", 1, **few) as server:
        with socket.create_connection(server.address, timeout=60) as waiting:
            waiting.sendall(
                b"POST /v1/triage HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
                b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
            )
            assert waiting.recv(100).startswith(b"HTTP/1.1 100")  # a case has the only thread's place
            for seed in range(5):
                assert post(server, draw(seed=seed)).status_code == 200
            assert counted(server, "triage_shadow_cases_total", outcome="dropped") == 3
            assert counted(server, "triage_shadow_cases_total", outcome="scored") == 0
        wait_for(lambda: counted(server, "triage_shadow_cases_total", outcome="scored") == 2)
        assert server.stop() == 0


def test_shadow_that_would_not_be_served_is_refused_at_the_start(
    refused: Callable[..., str], tiny_bundle: Path, tmp_path: Path
) -> None:
    sentence = refused("--bundle", tiny_bundle, TRIAGE_SHADOW_BUNDLES=str(tmp_path / "none"))
    assert sentence.startswith("BundleError: ")


@pytest.mark.parametrize(
    ("answered", "shadow", "referral"),
    [
        ("needs_in_person", "below_threshold", "down"),
        ("ungradable", "below_threshold", "down"),
        ("needs_in_person", "ungradable", "same"),
        ("below_threshold", "ungradable", "up"),
        ("below_threshold", "below_threshold", "same"),
    ],
)
def test_abstention_counts_as_referral_and_later_is_down(answered: str, shadow: str, referral: str) -> None:
    for before, after, band in ((1, 2, "down"), (2, 2, "same"), (3, 1, "up")):
        said = [{"disposition": answered, "priority_band": before}]
        said += [{"disposition": shadow, "priority_band": after}]
        assert compare_decisions(*said) == (referral, band)
