"""Answers that a repeated request gets again: whose they are, how many, and while the first is under way."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

import httpx_60s
from sent_cases import WAYS
from triage_server import record
from triage_server.audit_chain import files_of, verify
from triage_server.problems import RequestError
from triage_server.record import MAX_KEPT_PER_CALLER, IdempotencyCache, SentAnswer

JPEG = {"Content-Type": "image/jpeg"}
KEY = {"Idempotency-Key": "0123456789abcdef"}


def post(server: Any, picture: bytes, **headers: str) -> httpx.Response:
    return httpx_60s.post(f"{server.url}/v1/triage", content=picture, headers=JPEG | headers)


def events(log: Path) -> list[str]:
    verify(log)
    return [json.loads(line)["event"] for file in files_of(log) for line in file.read_bytes().splitlines()]


def at_once(server: Any, *pictures: bytes, **headers: str) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(pictures)) as threads:
        return list(threads.map(lambda picture: post(server, picture, **headers), pictures))


def test_same_case_sent_at_once_under_one_key_is_one_answer_and_its_repeats(
    launch: Callable[..., Any], tmp_path: Path, draw: Any
):
    large = draw(4000, 3000)
    with launch("--workers-threads", 2, TRIAGE_AUDIT_LOG=str(tmp_path / "audit")) as server:
        answers = at_once(server, large, large, large, **KEY)
        assert server.stop() == 0
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert len({answer.content for answer in answers}) == 1
    assert events(tmp_path / "audit") == ["opened", "answer", "repeat", "repeat", "closed"]


def test_two_cases_sent_at_once_under_one_key_are_one_answer_and_a_refusal(
    launch: Callable[..., Any], tmp_path: Path, draw: Any
):
    with launch("--workers-threads", 2, TRIAGE_AUDIT_LOG=str(tmp_path / "audit")) as server:
        answers = at_once(server, draw(4000, 3000), draw(4000, 3000, seed=1), **KEY)
        assert server.stop() == 0
    assert sorted(answer.status_code for answer in answers) == [200, 422]
    assert {answer.json().get("code") for answer in answers} == {None, "repeated_differently"}
    assert events(tmp_path / "audit") == ["opened", "answer", "refusal", "closed"]


def test_case_that_got_no_answer_leaves_its_key_to_the_next(launch: Callable[..., Any], draw: Any):
    with launch("--workers-threads", 2, TRIAGE_ANSWER_TIMEOUT_S="20") as server:
        answers = at_once(server, b"no picture", b"no picture", **KEY)
        assert {answer.json()["code"] for answer in answers} == {"image_format_not_supported"}
        assert post(server, draw(), **KEY).status_code == 200
        assert server.stop() == 0


ANSWER = SentAnswer(b"", "en", "below_threshold", 3, (), {})


def test_answers_of_one_caller_never_push_out_those_of_another():
    cache, loud = IdempotencyCache(), [f"key:{number}" for number in range(5)]
    cache.keep("key:quiet", "key-of-the-quiet-one", {"n": 0}, ANSWER)
    for number in range(MAX_KEPT_PER_CALLER + 1):
        for caller in loud:
            cache.keep(caller, f"key-{number:012}", {"n": number}, ANSWER)
    assert cache.find("key:quiet", "key-of-the-quiet-one", {"n": 0}) == ANSWER
    last = {"n": MAX_KEPT_PER_CALLER}
    kept = 0
    for caller in loud:
        assert cache.find(caller, f"key-{MAX_KEPT_PER_CALLER:012}", last) == ANSWER
        assert cache.find(caller, "key-000000000000", {"n": 0}) is None
        kept += sum(
            cache.find(caller, f"key-{number:012}", {"n": number}) == ANSWER
            for number in range(MAX_KEPT_PER_CALLER + 1)
        )
    assert MAX_KEPT_PER_CALLER < kept < 2 * MAX_KEPT_PER_CALLER


def test_an_answer_is_forgotten_when_its_time_is_over_and_its_key_is_free(monkeypatch: pytest.MonkeyPatch):
    assert timedelta(days=1).total_seconds() == record._KEEP_S
    cache = IdempotencyCache()
    cache.keep("key:one", "key", {"n": 0}, ANSWER)
    assert cache.find("key:one", "key", {"n": 0}) == ANSWER
    monkeypatch.setattr(record, "_KEEP_S", -1.0)
    assert cache.find("key:one", "key", {"n": 0}) is None
    assert cache.find("key:one", "key", {"n": 1}) is None


_LINE: dict[str, object] = {"face": "v1", "photographs_hmac": ["a"], "history_hmac": None}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"callback": "ehr"}, "the callback"),
        ({"face": "fhir"}, "the interface that was used"),
        ({"history_hmac": "b"}, "the history"),
        ({"repeats_hmac": "b"}, "the references or the id"),
        ({"photographs_hmac": ["a", "b"], "history_hmac": "c"}, "the photographs, the history"),
    ],
    ids=str,
)
def test_a_key_that_came_with_another_request_is_told_what_differs(change: dict[str, object], said: str):
    for before, now in ((_LINE, _LINE | change), (_LINE | change, _LINE)):
        cache = IdempotencyCache()
        cache.keep("key:one", "key", before, ANSWER)
        with pytest.raises(RequestError, match=f"a difference in {said}[^;]*; use"):
            cache.find("key:one", "key", now)


def test_a_caller_is_told_what_differs(ask: Callable[..., httpx.Response], make_app: Any, draw: Any):
    app, way = make_app(), WAYS["v1"]
    for request, said in (
        (way.request(draw()), ""),
        (way.request(draw(seed=1)), "a difference in the photographs;"),
        (way.request(draw(), age_years=50), "a difference in the history;"),
    ):
        request["headers"] |= KEY
        assert said in ask(app, "POST", way.path, **request).text
