from __future__ import annotations

import json
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

import httpx_60s
from lesion_triage.bundle.interleaving import SteppedTask
from lesion_triage.bundle.schema import Answer
from lesion_triage.bundle.scorer import CaseDecision, Scorer
from sent_cases import JSON, as_json
from triage_server.api_keys import new_key
from triage_server.app import create_app
from triage_server.audit_chain import files_of
from triage_server.audit_log import AuditLog
from triage_server.security import ANONYMOUS
from triage_server.settings import Settings
from triage_server.wire import MAX_CASES_PER_BATCH

Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]
PATH = "/v1/triage/batch"


def batch(*cases: Any) -> dict[str, Any]:
    return {"content": json.dumps({"cases": cases}), "headers": dict(JSON)}


def test_each_case_gets_its_own_answer_in_the_order_sent(
    ask: Ask, make_app: MakeApp, draw: Any, scorer: Scorer
):
    pictures = [draw(seed=seed) for seed in range(7)]
    response = ask(
        make_app(threads=3), "POST", PATH, **batch(*(as_json(one, age_years=40) for one in pictures))
    )
    items = response.json()["cases"]
    assert [item["index"] for item in items] == list(range(7))
    for item, picture in zip(items, pictures, strict=True):
        alone = ask(
            make_app(), "POST", "/v1/triage", content=json.dumps(as_json(picture, age_years=40)), headers=JSON
        )
        assert Answer.model_validate(item["answer"]) == Answer.model_validate_json(alone.content)
        assert item["answer"]["score"] == scorer.score([picture]).score


def test_a_case_that_cannot_be_scored_takes_nothing_from_the_others(ask: Ask, make_app: MakeApp, draw: Any):
    bad = [
        as_json(b"text"),
        {"images": []},
        {"images": ["!"]},
        7,
        None,
        {"pictures": []},
        as_json(draw(), sex="<"),
    ]
    cases = [as_json(draw()), *bad, as_json(draw())]
    items = ask(make_app(), "POST", PATH, **batch(*cases)).json()["cases"]
    assert [item["answer"] is not None for item in items] == [True, *[False] * len(bad), True]
    assert [item["problem"]["code"] for item in items[1:-1]] == [
        "image_format_not_supported",
        "no_image",
        "base64_not_valid",
        "document_not_valid",
        "document_not_valid",
        "document_not_valid",
        "history_not_valid",
    ]
    assert items[0]["problem"] is items[-1]["problem"] is None


def test_a_case_the_server_fails_on_is_a_problem_of_that_case_alone(
    ask: Ask, make_app: MakeApp, scorer: Scorer, draw: Any
):
    broken = Scorer(scorer.bundle)
    del broken._graph
    items = ask(make_app(broken), "POST", PATH, **batch(as_json(draw()), {"images": []})).json()["cases"]
    assert [item["problem"]["code"] for item in items] == ["internal_error", "no_image"]
    assert "_graph" not in json.dumps(items)


@pytest.mark.parametrize("number", [0, MAX_CASES_PER_BATCH + 1, 5000])
def test_number_of_cases_is_limited(number: int, ask: Ask, make_app: MakeApp):
    response = ask(make_app(), "POST", PATH, **batch(*[{}] * number))
    assert (response.status_code, response.json()["code"]) == (422, "too_many_cases")


@pytest.mark.parametrize("number", [1, MAX_CASES_PER_BATCH])
def test_as_many_cases_as_allowed_are_answered(number: int, ask: Ask, make_app: MakeApp, draw: Any):
    items = ask(make_app(), "POST", PATH, **batch(*[as_json(draw(32, 32))] * number)).json()["cases"]
    assert [item["index"] for item in items if item["answer"]] == list(range(number))


def test_a_batch_holds_one_place_and_takes_others_only_where_they_are_free(
    ask: Ask, make_app: MakeApp, draw: Any
):
    app = make_app(threads=4, queue=0)
    pool = app.state.service.pool
    cases = batch(*[as_json(draw())] * 6)
    with pool.reserve_slot(), pool.reserve_slot(), pool.reserve_slot():
        assert ask(app, "POST", PATH, **cases).status_code == 200
        with pool.reserve_slot():
            assert ask(app, "POST", PATH, **cases).json()["code"] == "busy"
    assert pool.cases == pool.pending_bytes == 0


class Slow(Scorer):
    """Takes a second and a half for each case."""

    def decide_case_stepwise(self, *arguments: Any, **named: Any) -> SteppedTask[CaseDecision]:
        time.sleep(1.5)
        return (yield from super().decide_case_stepwise(*arguments, **named))


def test_cases_that_are_not_scored_in_time_say_so(ask: Ask, make_app: MakeApp, draw: Any, scorer: Scorer):
    app = make_app(Slow(scorer.bundle), answer_timeout_s=2.0)
    response = ask(app, "POST", PATH, **batch(*[as_json(draw())] * 3))
    assert response.status_code == 200, response.text
    late = [item["problem"]["code"] for item in response.json()["cases"] if item["problem"]]
    assert late[-2:] == ["not_answered_in_time"] * 2
    assert app.state.service.pool.cases == 0


def test_a_batch_that_is_not_even_read_in_time_is_refused_whole(ask: Ask, make_app: MakeApp, draw: Any):
    response = ask(make_app(answer_timeout_s=1e-6), "POST", PATH, **batch(as_json(draw())))
    assert (response.status_code, response.json()["code"]) == (503, "not_answered_in_time")


def test_a_case_that_waits_in_vain_for_its_key_has_its_line(
    ask: Ask, scorer: Scorer, tmp_path: Path, draw: Any
):
    settings = Settings(bundle=scorer.bundle.folder, threads=1, answer_timeout_s=0.5)
    with AuditLog(tmp_path / "audit", 2**20) as log:
        app, key = create_app(scorer.bundle, scorer, settings, log), "batch-0123456789"
        app.state.service.idempotency_cache.begin(ANONYMOUS.name, f"{key}#0")
        request = batch(as_json(draw()))
        request["headers"] = {**request["headers"], "Idempotency-Key": key}
        (item,) = ask(app, "POST", PATH, **request).json()["cases"]
    assert item["problem"]["code"] == "not_answered_in_time"
    (line,) = (json.loads(file.read_text()) for file in files_of(tmp_path / "audit"))
    assert (line["event"], line["batch_index"], line["problem"]) == ("refusal", 0, "not_answered_in_time")


def test_every_answered_case_has_its_line_and_counts_against_the_pace(
    launch: Callable[..., Any], tmp_path: Path, draw: Any
):
    keys, log = tmp_path / "keys", tmp_path / "audit"
    headers = {**JSON, "Authorization": f"Bearer {new_key(keys, 'clinic-a', 'score')}"}
    variables = {
        "TRIAGE_API_KEYS_FILE": str(keys),
        "TRIAGE_RATE_PER_MINUTE": "8",
        "TRIAGE_AUDIT_LOG": str(log),
    }
    content = batch(as_json(draw()), as_json(b"text"), as_json(draw(seed=1)))["content"]
    with launch(**variables) as server:
        again = {**headers, "Idempotency-Key": "batch-0123456789"}
        replies = [httpx_60s.post(server.url + PATH, content=content, headers=again) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert "rate_limited" not in b"".join(file.read_bytes() for file in files_of(log)).decode()
    lines = [json.loads(line) for file in files_of(log) for line in file.read_bytes().splitlines()]
    lines = [line for line in lines if line.get("face") == "batch"]
    by_place = sorted((line["batch_index"], line["event"], line.get("problem")) for line in lines[:6])
    assert by_place == [
        (0, "answer", None),
        (0, "repeat", None),
        (1, "refusal", "image_format_not_supported"),
        (1, "refusal", "image_format_not_supported"),
        (2, "answer", None),
        (2, "repeat", None),
    ]
    body, hashes = replies[0].content, {line.get("answer_sha256") for line in lines}
    for item in replies[0].json()["cases"]:
        if item["answer"]:
            text = json.dumps(item["answer"], separators=(",", ":"), ensure_ascii=False).encode()
            assert text in body
            assert sha256(text).hexdigest() in hashes
            assert item["audit_hash"] in {line["hash"] for line in lines}
