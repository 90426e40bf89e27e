from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import tiny_bundle
from histories import flag
from lesion_triage.bundle.messages import Catalogue
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.schema import Answer, Disposition, Grouping, PixelSpec, ReasonCode
from lesion_triage.bundle.scorer import MAX_IMAGES_PER_CASE, Scorer
from triage_server.app import create_app
from triage_server.audit_chain import files_of
from triage_server.audit_log import AuditLog
from triage_server.middleware import JsonLogFormatter
from triage_server.problems import Problem
from triage_server.settings import Settings

JPEG = {"Content-Type": "image/jpeg"}
Ask = Callable[..., httpx.Response]
MakeApp = Callable[..., Any]


def problem(response: httpx.Response, status: int, code: str) -> Problem:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = Problem.model_validate_json(response.content)
    assert (document.status, document.code) == (status, code)
    assert document.request_id == response.headers["x-request-id"]
    return document


def parts(*pictures: bytes, name: str = "image") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [(name, ("Erika_Mustermann.jpg", picture, "image/jpeg")) for picture in pictures]


def test_every_door_gives_the_same_score_bits(ask: Ask, make_app: MakeApp, scorer: Scorer):
    app = make_app()
    for picture in scorer.bundle.selftest_pictures.values():
        expected = scorer.score([picture])
        raw = ask(app, "POST", "/v1/triage", content=picture, headers={"Content-Type": "image/png"})
        form = ask(app, "POST", "/v1/triage", files=parts(picture))
        assert Answer.model_validate_json(raw.content) == expected
        assert form.content == raw.content


def test_whoever_is_scored_beside_a_case_changes_nothing_of_its_answer(
    make_app: MakeApp, draw: Any, ask: Ask
):
    pictures = [draw(seed=seed) for seed in range(6)]
    pictures[2] = pictures[2][:500]  # cannot be decoded, and takes nothing from its neighbours
    alone = [ask(make_app(), "POST", "/v1/triage", content=one, headers=JPEG) for one in pictures]
    assert [response.status_code for response in alone] == [200, 200, 422, 200, 200, 200]
    assert len({response.content for response in alone}) == len(pictures)

    async def at_once() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=make_app(threads=1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            sent = (client.post("/v1/triage", content=one, headers=JPEG) for one in pictures)
            return await asyncio.gather(*sent)

    for one, other in zip(alone, asyncio.run(at_once()), strict=True):
        assert one.status_code == other.status_code
        if one.status_code == 200:
            assert one.content == other.content


def test_a_case_of_several_photographs_is_answered_alike_by_one_thread_and_by_several(
    make_app: MakeApp, ask: Ask, draw: Any, picture_bytes: Callable[..., bytes]
):
    sent = parts(draw(seed=1), picture_bytes("black", "JPEG"), draw(seed=2), draw(seed=3))
    one, several = (ask(make_app(threads=threads), "POST", "/v1/triage", files=sent) for threads in (1, 3))
    assert (one.status_code, one.content) == (200, several.content)


def test_three_dispositions_are_reachable(ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes]):
    app = make_app()
    found = []
    for kind in ("referred", "below", "black"):
        response = ask(app, "POST", "/v1/triage", content=picture_bytes(kind, "JPEG"), headers=JPEG)
        found.append(Answer.model_validate_json(response.content).disposition)
    assert found == [Disposition.needs_in_person, Disposition.below_threshold, Disposition.ungradable]


def test_an_unfamiliar_picture_goes_up_with_the_reason(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    gated = Scorer(tiny_bundle.make(tmp_path / "gated", novelty_limit=tiny_bundle.NOVELTY_LIMIT))
    app = make_app(gated)
    response = ask(app, "POST", "/v1/triage", content=picture_bytes("unfamiliar", "JPEG"), headers=JPEG)
    answer = Answer.model_validate_json(response.content)
    assert (answer.disposition, answer.priority_band) == (Disposition.ungradable, 1)
    assert [reason.code for reason in answer.images[0].reasons] == [ReasonCode.out_of_distribution]


@pytest.mark.parametrize(
    "media_type", ["image/jpeg", "IMAGE/PNG", "image/webp; q=1", "application/octet-stream"]
)
def test_one_picture_is_taken_as_any_picture_type(media_type: str, ask: Ask, make_app: MakeApp, draw: Any):
    response = ask(make_app(), "POST", "/v1/triage", content=draw(), headers={"Content-Type": media_type})
    assert response.status_code == 200
    assert "connection" not in response.headers


def test_pictures_of_a_case_keep_their_order(ask: Ask, make_app: MakeApp, scorer: Scorer, draw: Any):
    pictures = [draw(seed=seed) for seed in range(MAX_IMAGES_PER_CASE - 1)] + [draw(1, 1, "PNG")]
    response = ask(make_app(), "POST", "/v1/triage", files=parts(*pictures))
    assert Answer.model_validate_json(response.content) == scorer.score(pictures)


def test_a_picture_without_pixels_is_ungradable_and_waits_in_front(ask: Ask, make_app: MakeApp, draw: Any):
    response = ask(make_app(), "POST", "/v1/triage", content=draw(1, 1, "PNG"), headers=JPEG)
    answer = Answer.model_validate_json(response.content)
    assert (answer.disposition, answer.score, answer.priority_band) == (Disposition.ungradable, None, 1)


@pytest.mark.parametrize("what", ["no bytes", "text", "cut off", "a hundred megapixels", "GIF"])
def test_bad_picture_is_refused_with_its_code_and_place(
    what: str, ask: Ask, make_app: MakeApp, bad_pictures: Any, draw: Any
):
    picture, code = bad_pictures[what]
    assert problem(ask(make_app(), "POST", "/v1/triage", content=picture, headers=JPEG), 422, code).index == 0
    response = ask(make_app(), "POST", "/v1/triage", files=parts(draw(), picture))
    refusal = problem(response, 422, code)
    assert refusal.index == 1
    assert refusal.detail.startswith("Photograph 2 ")


def test_one_photograph_too_many_is_refused(ask: Ask, make_app: MakeApp, draw: Any):
    pictures = [draw()] * (MAX_IMAGES_PER_CASE + 1)
    problem(ask(make_app(), "POST", "/v1/triage", files=parts(*pictures)), 422, "too_many_images")


@pytest.mark.parametrize("name", ["histories", "images", "image[]", "Image", ""])
def test_a_part_of_another_name_is_refused_not_ignored(name: str, ask: Ask, make_app: MakeApp, draw: Any):
    response = ask(make_app(), "POST", "/v1/triage", files=parts(draw()) + parts(b"growing", name=name))
    assert "another name" in problem(response, 422, "unknown_part").detail


BLEEDING = RedFlags(flags=(flag({"field": "bleeding", "is": True}, "bleeding"),))


def flagged_app(make_app: MakeApp, folder: Path) -> Any:
    """An application whose policy has a red flag."""
    return make_app(Scorer(tiny_bundle.make(folder / "flagged", red_flags=BLEEDING)))


@pytest.mark.parametrize(("said", "referred"), [("true", True), ("false", False), ("null", False)])
def test_a_red_flag_in_the_history_refers_whatever_the_score(
    said: str,
    referred: bool,
    ask: Ask,
    make_app: MakeApp,
    picture_bytes: Callable[..., bytes],
    tmp_path: Path,
):
    history = f'{{"bleeding": {said}}}'.encode()
    files = [*parts(picture_bytes("below", "JPEG")), ("history", ("h.json", history, "application/json"))]
    response = ask(flagged_app(make_app, tmp_path), "POST", "/v1/triage", files=files)
    answer = Answer.model_validate_json(response.content)
    assert (answer.disposition is Disposition.needs_in_person) is referred
    assert [one.code for one in answer.red_flags] == ["bleeding"] * referred
    assert (ReasonCode.red_flag in {reason.code for reason in answer.reasons}) is referred


def test_a_word_where_yes_or_no_is_asked_for_is_refused(ask: Ask, make_app: MakeApp, draw: Any):
    files = [*parts(draw()), ("history", ("h.json", b'{"bleeding": "off"}', "application/json"))]
    refusal = problem(ask(make_app(), "POST", "/v1/triage", files=files), 422, "history_not_valid")
    assert "bleeding" in refusal.detail


def test_texts_come_in_the_language_that_was_asked_for(
    ask: Ask, make_app: MakeApp, picture_bytes: Callable[..., bytes], tmp_path: Path
):
    app = flagged_app(make_app, tmp_path)
    picture = picture_bytes("black", "JPEG")
    headers = {**JPEG, "Accept-Language": "fr, de-AT;q=0.9, en;q=0.1"}
    german = ask(app, "POST", "/v1/triage", content=picture, headers=headers)
    plain = ask(app, "POST", "/v1/triage", content=picture, headers=JPEG)
    for response, language in ((german, "de"), (plain, "en")):
        answer = Answer.model_validate_json(response.content)
        texts = Catalogue.load(language)
        assert response.headers["content-language"] == answer.language == language
        assert response.headers["vary"] == "Accept-Language"
        assert answer.notice == texts.notice
        assert answer.images[0].reasons[0].coaching == texts.reasons["image_too_dark"].coaching
        assert answer.note.startswith(texts.note["heading"])


def test_the_bundle_says_its_red_flags_who_reviewed_them_and_its_languages(
    ask: Ask, make_app: MakeApp, tmp_path: Path
):
    facts = ask(flagged_app(make_app, tmp_path), "GET", "/v1/bundle").json()
    assert facts["languages"] == ["de", "en"]
    assert facts["red_flags"]["reviewed_by"] == []
    assert facts["red_flags"]["flags"][0]["when"] == {"field": "bleeding", "is": True}
    assert RedFlags.model_validate(facts["red_flags"]) == BLEEDING


BY_SEX = Grouping(by="sex", thresholds={"female": 0.5})


@pytest.mark.parametrize(
    ("history", "certified"), [(b'{"sex": "female", "age_years": 50}', True), (b'{"sex": "male"}', False)]
)
def test_history_decides_whether_the_certificate_covers_the_case(
    history: bytes, certified: bool, ask: Ask, make_app: MakeApp, tmp_path: Path
):
    bundle = tiny_bundle.make(tmp_path / "grouped", threshold=0.5, groupings=(BY_SEX,))
    app = make_app(Scorer(bundle))
    picture = tiny_bundle.picture_bytes("below")
    response = ask(app, "POST", "/v1/triage", files=parts(picture) + parts(history, name="history"))
    answer = Answer.model_validate_json(response.content)
    assert (answer.disposition is Disposition.below_threshold) == certified
    assert (ReasonCode.uncertified_subgroup in {reason.code for reason in answer.reasons}) != certified


@pytest.mark.parametrize(
    ("history", "fields"),
    [
        (b"", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'{"sex": "Jane Doe <jane@example.org>"}', "sex"),
        (b'{"age_years": 121}', "age_years"),
        (b'{"age_years": NaN}', "age_years"),
        (b'{"age_years": "61"}', "age_years"),
        (b'{"bleeding": true, "bleeding": false}', "bleeding"),
        (b'{"name": "Jane Doe"}', "unknown field"),
        (b'{"sex": "female", "Jane": 1, "age_years": -1}', "age_years, not a JSON object"),
        (b'{"sex": "' + b"x" * 20_000 + b'"}', "its length"),
    ],
)
def test_history_that_is_none_is_refused_and_never_quoted(
    history: bytes, fields: str, ask: Ask, make_app: MakeApp, draw: Any
):
    response = ask(make_app(), "POST", "/v1/triage", files=parts(draw()) + parts(history, name="history"))
    refusal = problem(response, 422, "history_not_valid")
    assert fields in refusal.detail
    assert "Jane" not in response.text


def test_two_histories_are_refused(ask: Ask, make_app: MakeApp, draw: Any):
    both = parts(b"{}", name="history") + parts(b"{}", name="history")
    problem(ask(make_app(), "POST", "/v1/triage", files=parts(draw()) + both), 422, "history_not_valid")


def form(body: bytes, content_type: str = "multipart/form-data; boundary=b") -> dict[str, Any]:
    return {"content": body, "headers": {"Content-Type": content_type}}


def test_form_without_photographs_is_refused(ask: Ask, make_app: MakeApp):
    problem(ask(make_app(), "POST", "/v1/triage", **form(b"--b--\r\n")), 422, "no_image")


@pytest.mark.parametrize(
    "broken",
    [
        form(b""),
        form(b"--b\r\n"),
        form(b"no boundary at all"),
        form(b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\nhalf a pict'),
        form(b"--b--\r\n", "multipart/form-data"),
        form(b"--b--\r\n", "multipart/form-data; boundary=" + "b" * 300),
    ],
)
def test_broken_form_is_refused_not_scored_in_part(broken: dict[str, Any], ask: Ask, make_app: MakeApp):
    problem(ask(make_app(), "POST", "/v1/triage", **broken), 400, "multipart_not_valid")


@pytest.mark.parametrize("media_type", ["text/plain", "application/xml", "image/gif", "multipart/mixed", ""])
def test_other_media_types_are_refused(media_type: str, ask: Ask, make_app: MakeApp, draw: Any):
    response = ask(make_app(), "POST", "/v1/triage", content=draw(), headers={"Content-Type": media_type})
    problem(response, 415, "media_type_not_supported")


def test_announced_length_is_refused_before_anything_is_read(ask: Ask, make_app: MakeApp):
    async def untouched() -> AsyncIterator[bytes]:
        pytest.fail("the body was read")
        yield b""

    headers = {**JPEG, "Content-Length": "1001"}
    response = ask(make_app(max_body_bytes=1000), "POST", "/v1/triage", content=untouched(), headers=headers)
    problem(response, 413, "body_too_large")
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("content_type", ["image/jpeg", "multipart/form-data; boundary=b"])
def test_chunked_body_is_cut_off_at_the_limit(content_type: str, ask: Ask, make_app: MakeApp):
    sent = []

    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
        while True:
            sent.append(100)
            yield bytes(100)

    headers = {"Content-Type": content_type}
    response = ask(make_app(max_body_bytes=1000), "POST", "/v1/triage", content=endless(), headers=headers)
    problem(response, 413, "body_too_large")
    assert sum(sent) <= 1100


def test_all_pending_pictures_together_are_bounded(ask: Ask, make_app: MakeApp, draw: Any):
    response = ask(make_app(max_pending_bytes=1000), "POST", "/v1/triage", content=draw(), headers=JPEG)
    problem(response, 503, "busy")
    assert response.headers["retry-after"] == "1"


def test_refusal_for_lack_of_room_leaves_no_line_in_the_audit_log_and_one_of_a_case_does(
    ask: Ask, scorer: Scorer, tmp_path: Path, draw: Any
):
    settings = Settings(bundle=scorer.bundle.folder, threads=1, max_pending_bytes=1000)
    with AuditLog(tmp_path / "audit", 2**20) as log:
        app = create_app(scorer.bundle, scorer, settings, log)
        for content, code in ((draw(), "busy"), (b"text", "image_format_not_supported")):
            assert ask(app, "POST", "/v1/triage", content=content, headers=JPEG).json()["code"] == code
    (line,) = (json.loads(file.read_text()) for file in files_of(tmp_path / "audit"))
    assert (line["event"], line["problem"]) == ("refusal", "image_format_not_supported")


def test_body_that_never_comes_gives_its_place_up(ask: Ask, make_app: MakeApp):
    async def stalled() -> AsyncIterator[bytes]:
        yield b"\xff\xd8"
        await asyncio.sleep(60)

    app = make_app(body_timeout_s=0.05)
    problem(ask(app, "POST", "/v1/triage", content=stalled(), headers=JPEG), 408, "body_not_received")
    assert app.state.service.pool.cases == 0


def test_case_the_model_cannot_score_is_an_error_never_below_threshold(
    ask: Ask, make_app: MakeApp, scorer: Scorer, draw: Any
):
    header = scorer.bundle.header.model_copy(update={"pixels": PixelSpec(size_px=1024)})
    broken = Scorer(scorer.bundle)
    broken.bundle = replace(scorer.bundle, header=header)
    response = ask(make_app(broken), "POST", "/v1/triage", content=draw(), headers=JPEG)
    problem(response, 500, "not_scored")
    assert "below_threshold" not in response.text


def test_internal_error_tells_nothing(
    ask: Ask, make_app: MakeApp, scorer: Scorer, draw: Any, caplog: pytest.LogCaptureFixture
):
    broken = Scorer(scorer.bundle)
    del broken._graph
    app = make_app(broken)
    with caplog.at_level(logging.INFO, "triage_server"):
        response = ask(app, "POST", "/v1/triage", content=draw(), headers=JPEG)
    problem(response, 500, "internal_error")
    lines = [json.loads(JsonLogFormatter().format(record)) for record in caplog.records]
    error = next(line for line in lines if line["level"] == "error")
    assert error["error"] == "AttributeError"
    assert error["request_id"] == response.headers["x-request-id"]
    for text in (response.text, json.dumps(lines)):
        assert "has no attribute" not in text
        assert "Traceback" not in text
    assert app.state.service.pool.cases == 0


def test_unknown_path_is_a_problem(ask: Ask, make_app: MakeApp):
    for path in ("/", "/docs", "/redoc", "/v1/triage/", "/v3/triage"):
        problem(ask(make_app(), "GET", path), 404, "not_found")


def test_wrong_method_is_a_problem_that_names_the_right_one(ask: Ask, make_app: MakeApp):
    for method, path, allowed in (("GET", "/v1/triage", "POST"), ("DELETE", "/v1/bundle", "GET, HEAD")):
        response = ask(make_app(), method, path)
        assert allowed in problem(response, 405, "method_not_allowed").detail
        assert response.headers["allow"] == allowed


def test_valid_request_id_is_carried_through(ask: Ask, make_app: MakeApp):
    response = ask(make_app(), "GET", "/health/live", headers={"X-Request-Id": "Case_1.a-B"})
    assert response.headers["x-request-id"] == "Case_1.a-B"


@pytest.mark.parametrize("offered", ["Erika Mustermann", "a" * 65, "", "a\tb", "ä".encode(), "{}"])
def test_other_request_ids_are_replaced(offered: str | bytes, ask: Ask, make_app: MakeApp):
    response = ask(make_app(), "GET", "/health/live", headers={"X-Request-Id": offered})
    made = response.headers["x-request-id"]
    assert len(made) == 32
    assert made != ask(make_app(), "GET", "/health/live").headers["x-request-id"]


def test_bundle_facts_are_those_of_the_bundle(ask: Ask, make_app: MakeApp, scorer: Scorer):
    facts = ask(make_app(max_body_bytes=123), "GET", "/v1/bundle").json()
    assert facts["bundle_sha256"] == scorer.bundle.sha256
    assert facts["synthetic"] is scorer.bundle.header.synthetic
    assert facts["pixels"] == scorer.bundle.header.pixels.model_dump()
    assert (facts["request_limits"]["max_images"], facts["request_limits"]["max_body_bytes"]) == (16, 123)


def test_certificate_is_that_of_every_answer(ask: Ask, make_app: MakeApp, scorer: Scorer, draw: Any):
    app = make_app()
    issued = ask(app, "GET", "/v1/certificate").json()
    answer = ask(app, "POST", "/v1/triage", content=draw(), headers=JPEG).json()
    assert issued["certificate"] == scorer.bundle.certificate.model_dump(mode="json")
    assert issued["certificate_id"] == answer["certificate_id"]
    assert issued["certificate"]["threshold"] == answer["threshold"]


def test_nothing_is_cached_and_nothing_is_sniffed(ask: Ask, make_app: MakeApp):
    for path in ("/v1/bundle", "/health/live", "/health/ready", "/openapi.json", "/nothing"):
        headers = ask(make_app(), "GET", path).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
