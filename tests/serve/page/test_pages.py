"""What a person finds on the page, and what a stranger does not."""

from __future__ import annotations

import asyncio
import html
import io
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi.routing import APIRoute
from PIL import Image

import httpx_60s
import tiny_bundle
from identity_provider import AUDIENCE, ISSUER, Issuer
from identity_provider import NAME as SUBJECT
from lesion_triage.bundle.certificate import GroupRow
from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.history import History
from lesion_triage.bundle.messages import Catalogue
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import seal
from lesion_triage.errors import ConfigError
from sent_cases import dicom
from triage_server.api_keys import new_key, revoke
from triage_server.audit_chain import files_of
from triage_server.page import certificate_view, routes, sign_in
from triage_server.page.records import Actor
from triage_server.page.texts import Texts
from triage_server.problems import PROBLEM_TYPES, RequestError
from triage_server.settings import load

CLINIC = "triage:clinic"
NAME, PLACE = "Mustermann", "Hintertupfing"
REFERRED, BELOW, BLACK = (tiny_bundle.picture_bytes(kind, "JPEG") for kind in ("referred", "below", "black"))
PAGES = ("/ui", "/ui/new", "/ui/read", "/ui/certificate")
POST_PATHS = [
    route.path
    for module in (sign_in, routes)
    for route in module.router.routes
    if isinstance(route, APIRoute) and "POST" in (route.methods or ())
]


def audit_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files_of(folder) for line in file.read_bytes().splitlines()]


def visible_text(response: httpx.Response) -> str:
    """What a person reads: no tags, attributes that are read out included."""
    text = re.sub(r'<[^>]*?(?:aria-label|alt|title)="([^"]*)"[^>]*>', r" \1 ", response.text)
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


# Who is let in


def test_without_the_setting_there_is_no_page(make_app: Any, ask: Callable[..., httpx.Response]) -> None:
    app = make_app()
    for path in (*PAGES, "/ui/login", "/ui/static/page.css"):
        assert ask(app, "GET", path).status_code == 404


def test_stranger_is_asked_who_he_is_wherever_he_comes(open_page: Any, browse: Any) -> None:
    stranger = browse(open_page())
    for path in (*PAGES, "/ui/pulse", "/ui/nothing", "/ui/cases/2222-2222/photographs/0"):
        response = stranger.get(path)
        assert (response.status_code, response.headers["location"]) == (303, "/ui/login")
    assert stranger.get("/ui/login").status_code == 200


def test_forged_altered_and_ended_sessions_lead_to_the_login(browser: Any) -> None:
    mine = browser.cookies["triage"]
    head, body, signature = mine.split(".")
    forged = [f"{head}.{body}.{signature[::-1]}", f"{head}.{body[:-2]}AA.{signature}", "a.b.c", "", mine[:-1]]
    forged.append("eyJhbGciOiJub25lIn0." + body + ".")
    for cookie in forged:
        browser.cookies = httpx.Cookies({"triage": cookie})
        assert browser.get("/ui").headers["location"] == "/ui/login", cookie
    browser.cookies = httpx.Cookies({"triage": mine})
    assert browser.get("/ui").status_code == 200
    browser.post("/ui/logout")
    browser.cookies = httpx.Cookies({"triage": mine})
    assert browser.get("/ui").headers["location"] == "/ui/login"


def test_only_a_key_with_the_role_clinic_opens_the_page_and_only_as_long_as_it_is_valid(
    open_page: Any, browse: Any, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    keys = {role: new_key(file, role, role) for role in ("score", "read", "clinic")}
    app = open_page(api_keys_file=file)
    for key in (keys["score"], keys["read"], "", "ltk_", keys["clinic"][:-1]):
        refused = browse(app).sign_in(key=key)
        assert refused.status_code == 401
        assert "role clinic" in refused.text
    clinician = browse(app)
    assert clinician.sign_in("Dr A", keys["clinic"]).headers["location"] == "/ui"
    assert "Dr A" in clinician.get("/ui").text
    assert keys["clinic"] not in clinician.cookies["triage"]
    scored = clinician.send("POST", "/v1/triage", content=REFERRED, headers={"Content-Type": "image/jpeg"})
    assert scored.status_code == 401  # a browser's session is no key of a platform
    revoke(file, keys["clinic"].split("_")[1])
    app.state.service.authenticator._keys_checked_at = 0.0  # as if a second had passed
    assert clinician.get("/ui").headers["location"] == "/ui/login"


def test_page_has_the_pace_of_the_key_and_each_person_a_pace_of_their_own(
    open_page: Any, browse: Any, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    keys = [new_key(file, name, "clinic") for name in ("one", "other")]
    app = open_page(api_keys_file=file, rate_per_minute=2)
    one, other = browse(app), browse(app)
    for person, key in ((one, keys[0]), (other, keys[1])):
        assert person.sign_in("Dr A", key).headers["location"] == "/ui"
    late = [one.get("/ui") for _ in range(3)][-1]
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) >= 1
    assert other.get("/ui").status_code == 200


_IDENTITY = ("jwks", "issuer", "audience")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def token_page(open_page: Any, issuer: Issuer, tmp_path: Path) -> Any:
    """The page of a site that has an identity provider and no file of keys."""
    (tmp_path / "jwks.json").write_text(json.dumps(issuer.document()))
    return open_page(jwt_jwks=str(tmp_path / "jwks.json"), jwt_issuer=ISSUER, jwt_audience=AUDIENCE)


def test_token_of_the_identity_provider_opens_the_page_with_its_own_scope(
    token_page: Any, browse: Any, issuer: Issuer
) -> None:
    late = issuer.token(scope=CLINIC, exp=int(time.time()) - 3600)
    for token in ("", "a.b.c", issuer.token(), late, issuer.token(scope=CLINIC, aud="another")):
        refused = browse(token_page).sign_in(key=token)
        assert refused.status_code == 401
        assert "own sign-in" in refused.text
    clinician = browse(token_page)
    signed = issuer.token(scope=f"openid {CLINIC}")
    assert 'name="key"' in clinician.get("/ui/login").text
    assert clinician.sign_in("Dr A", f" {signed}\n").headers["location"] == "/ui"
    assert "Dr A" in clinician.get("/ui").text
    assert signed not in clinician.cookies["triage"]
    assert (
        SUBJECT not in jwt.decode(clinician.cookies["triage"], options={"verify_signature": False}).values()
    )


@pytest.mark.parametrize("language", ["en", "de"])
def test_form_asks_for_what_can_be_typed_here(
    open_page: Any, token_page: Any, browse: Any, tmp_path: Path, language: str
) -> None:
    file = tmp_path / "keys"
    new_key(file, "clinic", "clinic")
    tokens = {name: getattr(token_page.state.service.settings, f"jwt_{name}") for name in _IDENTITY}
    either = open_page(api_keys_file=file, **{f"jwt_{name}": value for name, value in tokens.items()})
    sites = {"key": open_page(api_keys_file=file), "token": token_page, "either": either}
    texts = Texts(language)
    for way, app in sites.items():
        browser = browse(app)
        browser.language = language
        shown = html.unescape(browser.get("/ui/login").text)
        assert f'<label for="key">{texts("login." + way)}</label>' in shown
        assert texts(f"login.lead_{way}") in shown
        assert texts(f"login.{way}_hint") in shown


def test_session_begun_with_a_key_lasts_eight_hours(browser: Any) -> None:
    before = int(time.time())
    browser.sign_in()
    ends = jwt.decode(browser.cookies["triage"], options={"verify_signature": False})["exp"]
    assert before <= ends - 8 * 3600 <= time.time()


def test_session_ends_with_the_token_that_began_it(token_page: Any, browse: Any, issuer: Issuer) -> None:
    clinician = browse(token_page)
    clinician.get("/ui/login")
    ends = int(time.time()) + 4  # whole seconds: at least three to sign in and look around
    clinician.sign_in("Dr A", issuer.token(scope=CLINIC, exp=ends))
    shown = clinician.cookies["triage"]
    assert jwt.decode(shown, options={"verify_signature": False})["exp"] == ends
    assert clinician.get("/ui").status_code == 200
    time.sleep(max(0.0, ends - time.time()) + 0.1)
    # As a browser that keeps the cookie for longer than it is told.
    late = clinician.get("/ui", headers={"Cookie": f"triage={shown}"})
    assert late.headers["location"] == "/ui/login"


def test_token_that_a_proxy_passes_on_signs_in_without_being_typed(
    token_page: Any, browse: Any, issuer: Issuer
) -> None:
    def by(subject: str, scope: str = CLINIC) -> dict[str, str]:
        return {"Authorization": f"Bearer {issuer.token(scope=scope, sub=subject)}"}

    person = browse(token_page)
    asked = person.get("/ui/login", headers=by("a"))
    assert 'name="key"' not in asked.text
    assert "own sign-in identifies you" in asked.text
    assert person.post("/ui/login", {"reader": "Dr A"}, headers=by("a")).headers["location"] == "/ui"
    assert person.get("/ui", headers=by("a")).status_code == 200  # another token, the same person
    cookie = jwt.decode(person.cookies["triage"], options={"verify_signature": False})
    assert cookie["exp"] > time.time() + 3600  # tokens end within five minutes, and the proxy brings new ones
    assert person.get("/ui").headers["location"] == "/ui/login"  # around the proxy
    # Somebody else at the same browser, or a platform, is not who signed in.
    assert person.get("/ui", headers=by("b")).headers["location"] == "/ui/login"
    assert person.get("/ui", headers=by("a", "triage:score")).headers["location"] == "/ui/login"
    stranger = browse(token_page)
    stranger.get("/ui/login", headers=by("a", "triage:score"))
    refused = stranger.post("/ui/login", {"reader": "P"}, headers=by("a", "triage:score"))
    assert refused.status_code == 401


def test_token_for_somebody_else_does_not_stand_in_the_way_of_a_key(
    open_page: Any, browse: Any, issuer: Issuer, tmp_path: Path
) -> None:
    key = new_key(tmp_path / "keys", "dr-a", "clinic")
    person = browse(open_page(api_keys_file=tmp_path / "keys"))
    foreign = {"Authorization": f"Bearer {issuer.token(scope=CLINIC)}"}
    assert 'name="key"' in person.get("/ui/login", headers=foreign).text
    entered = person.post("/ui/login", {"reader": "Dr A", "key": key}, headers=foreign)
    assert entered.headers["location"] == "/ui"
    assert person.get("/ui", headers=foreign).status_code == 200


def test_token_of_a_person_reads_what_a_platform_reads_and_scores_nothing(
    token_page: Any, browse: Any, issuer: Issuer
) -> None:
    person = {"Authorization": f"Bearer {issuer.token(scope=CLINIC)}", "Content-Type": "image/jpeg"}
    browser = browse(token_page)
    assert browser.get("/v1/certificate", headers=person).status_code == 200
    scored = browser.send("POST", "/v1/triage", content=REFERRED, headers=person)
    assert (scored.status_code, scored.json()["code"]) == (403, "not_allowed")
    both = person | {"Authorization": f"Bearer {issuer.token(scope=f'{CLINIC} triage:score')}"}
    assert browser.send("POST", "/v1/triage", content=REFERRED, headers=both).status_code == 200


def test_whoever_gives_no_name_is_not_let_in(open_page: Any, browse: Any) -> None:
    for reader in ("", "   ", "\u202e\x00", "x" * 61):
        assert browse(open_page()).sign_in(reader).status_code == 401


def test_cookie_cannot_be_read_by_scripts_and_insists_on_tls_where_there_is_some(
    open_page: Any, browse: Any
) -> None:
    said = browse(open_page()).get("/ui/login").headers["set-cookie"]
    assert "HttpOnly" in said
    assert "SameSite=strict" in said
    assert "Secure" not in said
    said = browse(open_page(behind_tls_proxy=True)).get("/ui/login").headers["set-cookie"]
    assert said.startswith("__Host-triage=")
    assert "Secure" in said


def test_page_is_not_shown_under_a_name_that_somebody_else_gave_this_machine(
    open_page: Any, browse: Any, tmp_path: Path
) -> None:
    """DNS rebinding: where nobody is asked for a key, the name in the address is all that tells."""
    app = open_page()
    for url in ("http://attacker.example", "http://127.0.0.1.attacker.example", "http://192.168.0.9"):
        strange = browse(app, url=url)
        for response in (strange.get("/ui/login"), strange.send("POST", "/ui/login", data={"reader": "A"})):
            assert response.status_code == 421
            assert "set-cookie" not in response.headers
    assert browse(app, url="http://localhost:8080").get("/ui/login").status_code == 200
    new_key(tmp_path / "keys", "dr-a", "clinic")
    known = open_page(api_keys_file=tmp_path / "keys", behind_tls_proxy=True)
    assert browse(known, url="https://triage.example").get("/ui/login").status_code == 200


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *((name, True) for name in ("localhost", "LocalHost:8080", "127.8.8.8", "[::1]:8080")),
        *((name, False) for name in ("localhost.", "triage.localhost", "notlocalhost", "10.0.0.1", "[::1")),
    ],
)
def test_page_and_interface_know_this_machine_by_the_same_names(
    host: str, here: bool, open_page: Any, browse: Any
) -> None:
    one = browse(open_page())
    assert one.get("/ui/login", headers={"Host": host}).status_code == (200 if here else 421)
    assert one.get("/v1/bundle", headers={"Host": host}).status_code == (200 if here else 403)


@pytest.mark.parametrize(
    "path", ["/ui", "/ui/login", "/ui/cases/2222-2222", "/ui/\u00e9%0D%0Ax", "/ui/nothing"]
)
def test_link_from_elsewhere_is_followed_once_more_from_here_and_begins_no_session(
    path: str, browser: Any, browse: Any
) -> None:
    """A browser sends no strict cookie with it, and a new one would take the place of the reader's."""
    stranger = browse(browser.app)
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    first = stranger.get(path, headers=headers)
    assert first.status_code == 200
    assert "set-cookie" not in first.headers
    delay, _, target = first.headers["refresh"].partition(";url=")
    assert delay == "0"
    assert f'href="{target}"' in first.text
    assert httpx.URL(target).path == httpx.URL(path).path
    again = stranger.get(target, headers=headers | {"Sec-Fetch-Site": "same-origin"})
    assert "refresh" not in again.headers


# Forms


@pytest.mark.parametrize("path", POST_PATHS)
def test_form_without_the_token_of_its_session_is_refused(path: str, browser: Any, browse: Any) -> None:
    number = browser.send_case(REFERRED)
    target = path.format(number=number)
    other = browse(browser.app)
    other.sign_in()
    fields = {"reader": "A", "decision": "agree", "needs_in_person": "true", "sure": "yes"}
    for token in ({}, {"form_token": ""}, {"form_token": other.token()}, {"form_token": "é" * 64}):
        refused = browser.send("POST", target, data={**fields, **token})
        assert refused.status_code == 403, token
        assert refused.headers["content-type"].startswith("text/html")
    page = browser.app.state.page
    assert [case.number for case in page.queue.waiting_cases()[0].cases] == [number]


def test_every_answer_has_a_strict_policy_and_no_page_has_script_or_style_of_its_own(browser: Any) -> None:
    number = browser.send_case(REFERRED)
    for path in (*PAGES, f"/ui/cases/{number}", f"/ui/cases/{number}/photographs/0", "/ui/nothing"):
        response = browser.get(path)
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        if "text/html" in response.headers["content-type"]:
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|<script(?! src=)", response.text)
            assert not re.search(r'(?:src|href|action)="(?:https?:)?//', response.text)


@pytest.mark.parametrize(
    "path",
    [
        "/ui/cases/{number}/photographs/1",
        "/ui/cases/{number}/photographs/-1",
        "/ui/cases/{number}/photographs/0.jpg",
        "/ui/cases/{number}/photographs/..%2f..%2fqueue.sqlite",
        "/ui/cases/..%2f..%2fetc/photographs/0",
        "/ui/cases/{number}/photographs/%D9%A0",  # a digit, and none of ours
        "/ui/cases/' OR 1=1 --",
        "/ui/cases/2222-2222",
        "/ui/cases/%00",
        "/ui/cases/%00/photographs/0",
        "/ui/static/..%2fapp.py",
        "/ui/static/%2e%2e/app.py",
    ],
)
def test_what_is_not_there_is_not_found(path: str, browser: Any) -> None:
    number = browser.send_case(REFERRED)
    assert browser.get(path.format(number=number)).status_code == 404


def test_too_large_an_upload_is_a_page_that_says_so(open_page: Any, browse: Any) -> None:
    browser = browse(open_page(max_body_bytes=10_000))
    browser.sign_in()
    response = browser.post("/ui/cases", files=[("image", ("a.jpg", bytes(20_000)))])
    assert response.status_code == 413
    assert "too large to be sent at once" in visible_text(response)


def test_unusable_photograph_brings_the_form_back_with_what_was_told(browser: Any) -> None:
    fields = {"age_years": "61", "bleeding": "yes", "sex": "female"}
    files = [("image", ("a.jpg", REFERRED)), ("image", ("b.jpg", b"no picture"))]
    response = browser.post("/ui/cases", fields, files=files)
    assert response.status_code == 422
    assert "Photograph 2 is not a JPEG" in visible_text(response)
    assert 'value="61"' in response.text
    assert re.search(r'<select id="bleeding".*?value="yes" selected', response.text, re.DOTALL)
    assert browser.app.state.page.queue.waiting_cases()[0].cases == []
    nothing = browser.post("/ui/cases", fields, files=[("image", ("", b""))])
    assert "Choose at least one photograph" in visible_text(nothing)


def test_photograph_in_a_dicom_file_is_taken_out_and_nothing_else_of_the_file_is_kept(browser: Any) -> None:
    number = browser.send_case(dicom(REFERRED, PatientName=NAME))
    kept = browser.get(f"/ui/cases/{number}/photographs/0")
    assert kept.headers["content-type"] == "image/jpeg"
    assert NAME.encode() not in kept.content
    assert browser.app.state.page.queue.find(number).answer("en").disposition == "needs_in_person"
    response = browser.post("/ui/cases", files=[("image", ("a.dcm", dicom(REFERRED)[:900]))])
    assert response.status_code == 422
    assert "Photograph 1 is a DICOM file that is damaged" in visible_text(response)


def test_refused_case_has_its_line_and_leaves_nothing_behind(browser: Any, tmp_path: Path) -> None:
    browser.post("/ui/cases", files=[("image", ("a.jpg", REFERRED[:300]))])
    (line,) = audit_lines(tmp_path / "audit")
    assert (line["event"], line["face"], line["problem"]) == ("refusal", "page", "image_not_decodable")
    pool = browser.app.state.service.pool
    assert pool.cases == pool.pending_bytes == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("age_years", "old"),
        ("sex", NAME),
        ("bleeding", "maybe"),
        ("diameter_mm", "-3"),
        ("diameter_mm", "1_0"),
    ],
)
def test_history_that_the_form_does_not_offer_is_refused_and_not_repeated(
    field: str, value: str, browser: Any
) -> None:
    response = browser.post("/ui/cases", {field: value}, files=[("image", ("a.jpg", REFERRED))])
    assert response.status_code == 422
    assert value not in visible_text(response)


def test_numbers_of_the_form_are_read_with_a_point_or_a_comma(browser: Any) -> None:
    for told in ("7.5", " 7,5 "):
        number = browser.send_case(REFERRED, age_years="61", diameter_mm=told)
        history = browser.app.state.page.queue.find(number).history
        assert (history.age_years, history.diameter_mm, history.duration_weeks) == (61, 7.5, None)


# What is shown


def test_queue_goes_by_band_and_time_and_what_could_not_be_scored_stands_at_its_head(browser: Any) -> None:
    below, black, referred = (browser.send_case(picture) for picture in (BELOW, BLACK, REFERRED))
    shown = re.findall(r'href="/ui/cases/([^"]+)"', browser.get("/ui").text)
    assert shown == [black, referred, below]
    page = browser.app.state.page
    now = page.queue.now()
    page.queue.now = lambda: now + timedelta(hours=47)
    fresh = browser.send_case(REFERRED)
    page.queue.now = lambda: now + timedelta(hours=49)
    late = browser.get("/ui")
    assert re.findall(r'href="/ui/cases/([^"]+)"', late.text) == [below, black, referred, fresh]
    assert visible_text(late).count("deadline passed") == 3


def test_case_that_this_version_cannot_read_is_shown_first_with_its_photographs(
    browser: Any, browse: Any, written_by_another_version: Any
) -> None:
    referred, below = browser.send_case(REFERRED), browser.send_case(BELOW, bleeding="yes")
    written_by_another_version("answers", below, "document")
    queue = browser.get("/ui")
    assert re.findall(r'href="/ui/cases/([^"]+)"', queue.text) == [below, referred]
    assert "cannot be read by this version of the program. Read the photographs without it." in visible_text(
        queue
    )
    written_by_another_version("cases", below, "history")
    german = browse(browser.app, "de")
    german.sign_in()
    for one, said in ((browser, "Ask again."), (german, "kann diese Programmversion nicht lesen.")):
        case = one.get(f"/ui/cases/{below}")
        assert case.status_code == 200
        assert said in visible_text(case)
        assert f'src="/ui/cases/{below}/photographs/0"' in case.text
    assert browser.read_case(below).status_code == 303
    assert re.findall(r'href="/ui/cases/([^"]+)"', browser.get("/ui").text) == [referred]
    assert "below threshold" in visible_text(browser.get("/ui/read"))


def test_long_queue_comes_in_parts_with_links_between_them(browser: Any) -> None:
    page, number = browser.app.state.page, browser.send_case(REFERRED)
    case = page.queue.find(number)
    for _ in range(100):
        page.queue.add(page.queue.draw_number(), list(case.answers.values()), [REFERRED], case.history, "x")
    first, second = browser.get("/ui"), browser.get("/ui?part=2")
    assert "101 cases are waiting" in visible_text(first)
    assert [one.text.count('<li class="card entry') for one in (first, second)] == [100, 1]
    assert 'rel="next" href="/ui?part=2"' in first.text
    assert 'rel="prev"' not in first.text
    assert 'rel="prev" href="/ui?part=1"' in second.text
    assert "101 to 101 of 101" in visible_text(second)
    for odd in ("0", "-1", "²", "x", "", "9" * 400):
        assert browser.get("/ui", params={"part": odd}).status_code == 200
    for number in [case.number for part in (1, 2) for case in page.queue.waiting_cases(part)[0].cases]:
        page.queue.record_reading(number, Actor("x", "y"), "agree", "", readings_seen=0)
    assert 'rel="next" href="/ui/read?part=2"' in browser.get("/ui/read").text


def test_case_shows_all_that_was_answered(browser: Any) -> None:
    number = browser.send_case(REFERRED, BLACK, bleeding="yes", age_years="61")
    text = visible_text(browser.get(f"/ui/cases/{number}"))
    case = browser.app.state.page.queue.find(number)
    answer = case.answer("en")
    assert answer.disposition == "needs_in_person"
    remarks = [*answer.reasons, *answer.red_flags, *answer.limits, *answer.not_assessed, *answer.counselling]
    told = [remark.text for remark in remarks]
    told += [part for image in answer.images for one in image.reasons for part in (one.text, one.coaching)]
    assert answer.red_flags
    assert any(image.reasons for image in answer.images)
    no_probability = Texts("en")("case.numbers_limit")
    for sentence in (*told, no_probability, answer.note, answer.notice, answer.certificate_id):
        assert sentence in text
    assert browser.get(f"/ui/cases/{number}/photographs/0").headers["content-type"] == "image/jpeg"


def test_score_just_below_the_threshold_does_not_look_equal_to_it(
    open_page: Any, browse: Any, tmp_path: Path
) -> None:
    scorer = Scorer.open(tiny_bundle.make(tmp_path / "first").folder)
    answer = scorer.answer(
        scorer.decide_case([BELOW], History()), History(), scorer.languages.catalogue("en")
    )
    score = answer.score
    browser = browse(open_page(tiny_bundle.make(tmp_path / "near", threshold=score + 2e-5).folder))
    browser.sign_in()
    text = visible_text(browser.get(f"/ui/cases/{browser.send_case(BELOW)}"))
    shown, threshold = (re.search(rf"{name}\s+(0\.[0-9]+)", text) for name in ("Score", "Threshold"))
    assert shown
    assert threshold
    assert float(shown[1]) < float(threshold[1])


def test_photograph_that_is_saved_is_named_as_in_the_export(browser: Any) -> None:
    """By case and by the number that the page shows; as 0.jpg it could be of anybody."""
    number = browser.send_case(REFERRED, BLACK)
    saved = browser.get(f"/ui/cases/{number}/photographs/1").headers["content-disposition"]
    assert saved == f'inline; filename="{number}-2.jpg"'


def test_browser_is_told_to_send_nobody_what_is_shown_or_typed_for_spelling_or_translation(
    browser: Any,
) -> None:
    number = browser.send_case(REFERRED)
    for path in (*PAGES, "/ui/login", f"/ui/cases/{number}"):
        assert re.search(r'<html [^>]*translate="no"', browser.get(path).text), path
    assert 'id="reason" name="reason" spellcheck="false"' in browser.get(f"/ui/cases/{number}").text


def test_reader_who_writes_from_right_to_left_can(browser: Any) -> None:
    text = browser.get(f"/ui/cases/{browser.send_case(REFERRED)}").text
    (reason,) = re.findall(r'<textarea id="reason"[^>]*>', text)
    (reader,) = re.findall(r'<input id="reader"[^>]*>', browser.get("/ui/login").text)
    assert 'dir="auto"' in reason
    assert 'dir="auto"' in reader


def test_title_says_once_what_a_page_is(browser: Any) -> None:
    paths = (*PAGES, "/ui/login", f"/ui/cases/{browser.send_case(REFERRED)}")
    titles = [re.findall("<title>(.*)</title>", browser.get(path).text)[0].split(" · ") for path in paths]
    assert all(len({*title}) == 2 for title in titles), titles
    assert len({title[0] for title in titles}) == len(paths)


def test_no_two_parts_of_a_page_have_the_same_name(browser: Any) -> None:
    """Who jumps from one to the next by ear could not tell them apart."""
    for path in (*PAGES, f"/ui/cases/{browser.send_case(REFERRED)}"):
        names = re.findall(r'aria-labelledby="([^"]+)"', browser.get(path).text)
        assert len(set(names)) == len(names), path


def test_certificate_shows_target_bounds_and_groups_without_a_certificate(
    open_page: Any, browse: Any, tmp_path: Path
) -> None:
    parts = tiny_bundle.seal_arguments()
    rows = [*parts["certificate"].groups]
    for by, group, enough in (
        ("reference_class", "mel", True),
        ("reference_class", "bcc", False),
        ("sex", "female", False),
    ):
        change: dict[str, object] = {"by": by, "group": group, "members": (group,)}
        if not enough:
            change |= {
                "status": "not_certifiable",
                "positives": 7,
                "misses_allowed": None,
                "sensitivity_lower_bound": None,
                "threshold": None,
            }
        rows.append(GroupRow(**{**dict(rows[0]), **change}))
    said = "Not certifiable, for want of positive cases: reference_class bcc (7), sex female (7)."
    certificate = parts["certificate"].model_copy(update={"groups": tuple(rows), "assumptions": (said,)})
    bundle = seal(tmp_path / "groups", **{**parts, "certificate": certificate})
    browser = browse(open_page(bundle.folder))
    browser.sign_in()
    text = " ".join(visible_text(browser.get("/ui/certificate")).split())
    assert "With 95 % confidence, the policy refers or abstains on at least 95 % of future positive" in text
    assert "0.9505" in text
    assert text.count("NOT CERTIFIABLE : takes 59 positives") == 2
    assert "reference standard class 2 NOT CERTIFIABLE" in text
    assert "class 2 (7), sex female (7)" in text
    assert not re.search(r"\b(mel|bcc)\b", text)
    assert certificate_view.build_view(certificate, parts["policy"]).class_numbers == {"mel": 1, "bcc": 2}


def test_what_people_type_is_shown_and_never_run(open_page: Any, browse: Any) -> None:
    script = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'{{7*7}}"
    browser = browse(open_page())
    browser.sign_in(script[:25])
    number = browser.send_case(REFERRED)
    assert browser.read_case(number, "override", script).status_code == 303
    pages = [browser.get(path) for path in ("/ui", "/ui/read", f"/ui/cases/{number}")]
    pages.append(browser.read_case(number, "nonsense", script))
    pages.append(browser.get("/ui?done=reading&case=<script>x"))
    for page in pages:
        assert "<script>" not in page.text.replace('<script src="/ui/static/page.js" defer></script>', "")
        assert "<img src=x" not in page.text
    assert (
        html.escape(script, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in pages[2].text
    )


@pytest.mark.parametrize("language", ["en", "de"])
def test_no_page_names_a_condition_or_lets_anybody_go(language: str, open_page: Any, browse: Any) -> None:
    browser = browse(open_page(), language)
    pages = [browser.get("/ui/login"), browser.sign_in("")]
    browser.sign_in()
    pages += [browser.get(path) for path in PAGES]
    numbers = [browser.send_case(picture, bleeding="yes") for picture in (REFERRED, BELOW, BLACK)]
    numbers.append(browser.send_case(BELOW))
    pages += [browser.get(f"/ui/cases/{number}") for number in numbers]
    for number in numbers:
        pages.append(browser.read_case(number, "override"))
        browser.read_case(number)
        pages.append(browser.get(f"/ui/cases/{number}"))
        pages.append(browser.post(f"/ui/cases/{number}/outcome"))
        browser.record_outcome(number, "false")
    pages += [
        browser.get(path)
        for path in (*PAGES, f"/ui/cases/{numbers[0]}", "/ui/nothing", "/ui?done=sent&case=2222-2222")
    ]
    pages.append(browser.post("/ui/cases", files=[("image", ("a", b"x"))]))
    notice = Catalogue.load(language).notice
    for page in pages:
        assert page.headers["content-language"] == language
        assert f'<html lang="{language}" ' in page.text
        assert notice in visible_text(page)
        assert (
            forbidden_words_in(
                language, visible_text(page).replace(notice, "").replace(notice.split(".")[0], "")
            )
            == []
        )


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_refusal_has_words_that_promise_nothing(language: str, browser: Any) -> None:
    for code in PROBLEM_TYPES:
        text = Texts(language).problem(code, number=1, fields="age")
        assert forbidden_words_in(language, text) == []
        assert "{" not in text


def test_case_is_never_shown_as_settled_before_a_person_has_read_it(browser: Any) -> None:
    number = browser.send_case(BELOW)
    for path in ("outcome", "delete"):
        fields = {"needs_in_person": "false", "confirmed_by": "consensus", "sure": "yes"}
        assert browser.post(f"/ui/cases/{number}/{path}", fields).status_code == 409
    page = browser.app.state.page
    now = page.queue.now()
    page.queue.now = lambda: now + timedelta(days=4000)
    assert page.queue.expired_numbers() == []
    assert number in browser.get("/ui").text
    assert number not in browser.get("/ui/read").text
    assert browser.read_case(number).status_code == 303
    assert number not in browser.get("/ui").text
    assert number in browser.get("/ui/read").text


def test_override_says_why_and_every_reading_stays(browser: Any) -> None:
    number = browser.send_case(REFERRED)
    for reason in ("", "  ", "x" * 2001):
        assert browser.read_case(number, "override", reason).status_code == 422
    assert browser.read_case(number).status_code == 303
    assert browser.read_case(number, "override", "seen last week\r\nin the clinic\x00").status_code == 303
    readings = browser.app.state.page.queue.find(number).readings
    found = [(one.decision, one.reason, one.actor.reader) for one in readings]
    assert found == [("agree", "", "A. Reader"), ("override", "seen last week\nin the clinic", "A. Reader")]


def test_known_outcome_says_how_it_was_confirmed_and_an_unknown_one_was_not(browser: Any) -> None:
    number = browser.send_case(REFERRED)
    browser.read_case(number)
    for needs, how in (("true", "not_yet"), ("unknown", "consensus"), ("perhaps", "consensus"), ("true", "")):
        assert browser.record_outcome(number, needs, how).status_code == 422
    assert browser.record_outcome(number, "unknown", "not_yet").status_code == 303
    assert browser.record_outcome(number, "true", "histopathology").status_code == 303
    outcomes = browser.app.state.page.queue.find(number).outcomes
    assert [one.needs_in_person for one in outcomes] == [None, True]


def test_form_sent_twice_is_done_once(browser: Any, browse: Any, tmp_path: Path) -> None:
    form_id = re.compile(r'name="form_id" value="([\w-]+)"')

    def twice(shown: str, path: str, fields: dict[str, str], **more: Any) -> set[tuple[int, str]]:
        (fields["form_id"],) = set(form_id.findall(browser.get(shown).text))
        said = [browser.post(path, fields, **more) for _ in range(2)]
        return {(one.status_code, one.headers["location"]) for one in said}

    sent: dict[str, str] = {}
    ((status, location),) = twice("/ui/new", "/ui/cases", sent, files=[("image", ("a.jpg", REFERRED))])
    assert status == 303
    number = httpx.URL(location).params["case"]
    queue, shown = browser.app.state.page.queue, f"/ui/cases/{number}"
    assert queue.waiting_cases()[0].count == 1
    again = browser.send_case(BELOW, **sent)  # the page as it was, and another photograph in it
    assert queue.waiting_cases()[0].count == 2
    other = browse(browser.app)
    other.sign_in("B")
    other.send_case(REFERRED, **sent)
    assert queue.waiting_cases()[0].count == 3
    assert twice(shown, f"{shown}/reading", {"decision": "agree", "readings": "0"}) == {
        (303, f"/ui?done=reading&case={number}")
    }
    outcome = {"needs_in_person": "true", "confirmed_by": "consensus", "outcomes": "0"}
    assert len(twice(shown, f"{shown}/outcome", outcome)) == 1
    case = queue.find(number)
    assert (len(case.readings), len(case.outcomes)) == (1, 1)
    assert twice(shown, f"{shown}/delete", {"sure": "yes", "records": "2"}) == {
        (303, f"/ui/read?done=deleted&case={number}")
    }
    events = [line["event"] for line in audit_lines(tmp_path / "audit")]
    assert events == ["answer", "answer", "answer", "reading", "outcome", "deletion"]
    assert again != number


def test_two_clicks_at_once_make_one_case(browser: Any) -> None:
    fields = {"form_token": browser.token(), "form_id": "a" * 22}

    async def both() -> list[httpx.Response]:
        async with browser.async_client() as client:
            files = [("image", ("a.jpg", REFERRED))]
            return await asyncio.gather(
                *(client.post("/ui/cases", data=fields, files=files) for _ in range(2))
            )

    first, second = asyncio.run(both())
    assert first.status_code == 303
    assert first.headers["location"] == second.headers["location"]
    assert browser.app.state.page.queue.waiting_cases()[0].count == 1


def test_photographs_are_counted_until_they_are_kept_and_a_second_click_holds_none(
    browser: Any, tmp_path: Path
) -> None:
    fields, pool = {"form_token": browser.token(), "form_id": "a" * 22}, browser.app.state.service.pool
    held = sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)
    held.execute("BEGIN IMMEDIATE")  # what is added waits

    async def story() -> list[httpx.Response]:
        async with browser.async_client() as client:
            clicks = []
            for _ in range(3):
                files = [("image", ("a.jpg", REFERRED + bytes(1_000_000)))]
                clicks.append(asyncio.create_task(client.post("/ui/cases", data=fields, files=files)))
                await asyncio.sleep(1.0)
                assert pool.cases == 0
                assert 1_000_000 < pool.pending_bytes < 1_100_000
            held.execute("ROLLBACK")
            return await asyncio.gather(*clicks)

    said = asyncio.run(story())
    held.close()
    assert {one.status_code for one in said} == {303}
    assert len({one.headers["location"] for one in said}) == 1
    assert pool.pending_bytes == 0


def test_click_that_waits_for_another_is_refused_with_it(browser: Any, tmp_path: Path) -> None:
    fields = {"form_token": browser.token(), "form_id": "c" * 22}
    base = sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)
    base.execute("CREATE TRIGGER full BEFORE INSERT ON cases BEGIN SELECT RAISE(FAIL, 'disk is full'); END")

    async def both() -> list[int]:
        async with browser.async_client() as client:
            files = [("image", ("a.jpg", REFERRED))]
            sending = [client.post("/ui/cases", data=fields, files=files) for _ in range(2)]
            return [one.status_code for one in await asyncio.gather(*sending)]

    assert asyncio.run(both()) == [503, 503]
    base.execute("DROP TRIGGER full")
    base.close()
    browser.send_case(REFERRED, form_id=fields["form_id"])
    assert browser.app.state.page.queue.waiting_cases()[0].count == 1
    assert browser.app.state.service.pool.pending_bytes == 0


def test_case_that_has_come_in_whole_waits_for_a_place(open_page: Callable[..., Any], browse: Any) -> None:
    browser = browse(open_page(queue=0))
    browser.sign_in()
    earlier, pool = browser.send_case(REFERRED), browser.app.state.service.pool
    fields = {"form_token": browser.token(), "earlier_case": earlier}
    form = httpx.Request("POST", browser.url, data=fields, files=[("image", ("a.jpg", BELOW))])
    whole = form.read()

    async def busy() -> None:
        while pool.cases == pool.capacity:
            await asyncio.sleep(0)
        with pool.reserve_slot():
            await asyncio.sleep(0.5)

    async def story() -> int:
        others = []

        async def body() -> Any:
            yield whole
            others.append(asyncio.create_task(busy()))  # which finds the place free once all of it has come

        async with browser.async_client() as client:
            headers = {"Content-Type": form.headers["Content-Type"]}
            said = await client.post("/ui/cases", content=body(), headers=headers)
            await asyncio.gather(*others)
            return said.status_code

    assert asyncio.run(story()) == 303
    assert (pool.cases, browser.app.state.page.queue.waiting_cases()[0].count) == (0, 2)


def test_form_that_was_refused_can_be_sent_again(browser: Any, tmp_path: Path) -> None:
    number = browser.send_case(REFERRED)
    browser.app.state.page.queue.record_reading(number, Actor("x", "y"), "agree", "", readings_seen=0)
    fields = {
        "form_id": "b" * 22,
        "needs_in_person": "true",
        "confirmed_by": "consensus",
        "outcomes": "0",
    }
    held = sqlite3.connect(tmp_path / "queue.sqlite")
    held.execute("ALTER TABLE outcomes RENAME TO away")
    assert browser.post(f"/ui/cases/{number}/outcome", fields).status_code == 503
    held.execute("ALTER TABLE away RENAME TO outcomes")
    held.close()
    assert browser.post(f"/ui/cases/{number}/outcome", fields).status_code == 303
    assert len(browser.app.state.page.queue.find(number).outcomes) == 1


# What is kept, recorded and forgotten


def photograph_of_a_person() -> bytes:
    exif = Image.Exif()
    exif[0x013B] = NAME
    exif[0x9286] = NAME.encode()
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.0), 28: PLACE})
    stream = io.BytesIO()
    Image.open(io.BytesIO(REFERRED)).save(stream, "JPEG", exif=exif, comment=NAME)
    assert NAME.encode() in stream.getvalue()
    return stream.getvalue()


def test_nothing_of_the_patient_is_anywhere(
    start: Callable[..., Any], flagged_bundle: Path, tmp_path: Path
) -> None:
    folder, work = tmp_path / "audit", tmp_path / "tmp"
    work.mkdir()
    settings = {"TRIAGE_READING_QUEUE": str(tmp_path / "queue.sqlite"), "TRIAGE_AUDIT_LOG": str(folder)}
    token = re.compile(r'name="form_token" value="([0-9a-f]+)"')
    with (
        start(flagged_bundle, tmp_path, TMPDIR=str(work), **settings) as server,
        httpx_60s.Client(base_url=server.url, follow_redirects=True) as client,
    ):
        said = [client.get("/ui/login").text]
        fields = {"form_token": token.findall(said[0])[0]}
        said.append(client.post("/ui/login", data={**fields, "reader": "Dr A"}).text)
        fields = {"form_token": token.findall(said[-1])[0]}
        picture = (f"{NAME}.jpg", photograph_of_a_person())
        said.append(client.post("/ui/cases", data=fields, files={"image": picture}).text)
        wrong: tuple[dict[str, str], ...] = ({"sex": NAME}, {"earlier_case": NAME[:9]}, {NAME: NAME})
        said += [
            client.post("/ui/cases", data=fields | more, files={"image": picture}).text for more in wrong
        ]
        (number,) = set(re.findall(r"/ui/cases/(\S{4}-\S{4})", said[2]))
        said.append(client.get(f"/ui/cases/{number}").text)
        kept = client.get(f"/ui/cases/{number}/photographs/0").content
        client.post(
            f"/ui/cases/{number}/reading",
            data=fields | {"decision": "override", "reason": "Zz-reason", "readings": "0"},
        )
        client.get(f"/ui/{NAME}", params={"name": NAME})
        assert server.stop() == 0
    assert NAME.encode() not in kept
    assert Image.open(io.BytesIO(kept)).getexif() == {}
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.name.startswith("queue.sqlite") for path in files)
    for text in (*files.values(), *(page.encode() for page in said[:3])):
        for planted in (NAME, PLACE, f"{NAME}.jpg"):
            assert planted.lower().encode() not in text.lower()
    for path, content in files.items():
        if not path.name.startswith("queue.sqlite"):
            assert b"Zz-reason" not in content
            assert number.encode() not in content
    assert list(work.rglob("*")) == []


def test_audit_log_tells_who_did_what_to_which_case_and_no_word_of_anybody(
    browser: Any, tmp_path: Path
) -> None:
    number = browser.send_case(REFERRED)
    browser.read_case(number, "override", "Zz-reason")
    browser.record_outcome(number, "true")
    browser.post("/ui/export")
    browser.delete_case(number)
    lines = audit_lines(tmp_path / "audit")
    assert [line["event"] for line in lines] == ["answer", "reading", "outcome", "export", "deletion"]
    hashes = {line["case_hmac"] for line in lines if line["event"] != "export"}
    assert hashes == {browser.app.state.page.case_hash(number)}
    assert (lines[0]["face"], lines[0]["disposition"]) == ("page", "needs_in_person")
    assert lines[1]["decision"] == "override"
    assert (lines[2]["needs_in_person"], lines[2]["confirmed_by"]) == (True, "histopathology")
    assert lines[4]["why"] == "reader"
    assert {line["caller"] for line in lines} == {"nobody"}
    for word in ("Zz-reason", "A. Reader", number):
        assert word not in (tmp_path / "audit").joinpath(files_of(tmp_path / "audit")[0]).read_text()


def test_deleted_case_leaves_no_byte_in_the_database(browser: Any, tmp_path: Path) -> None:
    number = browser.send_case(REFERRED)
    browser.read_case(number, "override", "Zz-reason")
    kept = browser.get(f"/ui/cases/{number}/photographs/0").content
    assert browser.post(f"/ui/cases/{number}/delete").status_code == 422  # the box was not ticked
    assert browser.delete_case(number).status_code == 303
    assert browser.get(f"/ui/cases/{number}").status_code == 404
    for path in tmp_path.glob("queue.sqlite*"):
        content = path.read_bytes()
        assert kept[-200:] not in content
        assert b"Zz-reason" not in content
        assert number.encode() not in content


def test_read_case_is_forgotten_after_the_time_that_the_operator_says(open_page: Any, browse: Any) -> None:
    browser = browse(open_page(reading_queue_keep_days=30))
    browser.sign_in()
    read, told, unread = (browser.send_case(picture) for picture in (REFERRED, BELOW, BLACK))
    page = browser.app.state.page
    begin = page.queue.now()
    browser.read_case(read)
    browser.read_case(told)
    page.queue.now = lambda: begin + timedelta(days=20)
    browser.record_outcome(told, "true")
    page.queue.now = lambda: begin + timedelta(days=31)
    assert asyncio.run(page.retention.delete_expired_cases()) == 1
    with pytest.raises(RequestError):
        page.queue.find(read)
    page.queue.now = lambda: begin + timedelta(days=51)
    assert asyncio.run(page.retention.delete_expired_cases()) == 1
    assert [case.number for case in page.queue.waiting_cases()[0].cases] == [unread]


def test_full_audit_log_keeps_nothing_and_says_so(browser: Any, open_page: Any, browse: Any) -> None:
    number = browser.send_case(REFERRED)
    log = browser.app.state.service.recorder._log
    os.dup2(os.open("/dev/full", os.O_WRONLY), log._handle)
    response = browser.read_case(number)
    assert response.status_code == 503
    assert "nothing was kept" in visible_text(response)
    assert not browser.app.state.page.queue.find(number).is_read
    refused = browser.post("/ui/cases", files=[("image", ("a.jpg", BELOW))])
    assert refused.status_code == 503
    assert len(browser.app.state.page.queue.waiting_cases()[0].cases) == 1


def test_database_that_is_gone_is_said_and_nothing_is_lost_silently(browser: Any, tmp_path: Path) -> None:
    held = sqlite3.connect(tmp_path / "queue.sqlite")
    held.execute("DROP TABLE photographs")
    held.commit()
    held.close()
    response = browser.post("/ui/cases", files=[("image", ("a.jpg", REFERRED))])
    assert response.status_code == 503
    assert "Nothing was saved" in visible_text(response)
    lines = audit_lines(tmp_path / "audit")
    assert [line["event"] for line in lines] == ["answer", "refusal"]
    assert lines[-1]["problem"] == "queue_unavailable"


@pytest.mark.parametrize(
    ("event", "broken_table"), [("reading", "readings"), ("outcome", "outcomes"), ("deletion", "cases")]
)
def test_change_that_the_database_refuses_is_not_left_in_the_audit_log_as_made(
    event: str, broken_table: str, browser: Any, tmp_path: Path
) -> None:
    number = browser.send_case(REFERRED)
    browser.read_case(number)
    statement = "DELETE" if event == "deletion" else "INSERT"
    with closing(sqlite3.connect(tmp_path / "queue.sqlite")) as database:
        database.execute(
            f"CREATE TRIGGER broken BEFORE {statement} ON {broken_table} "
            "BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    change: dict[str, Callable[[], httpx.Response]] = {
        "reading": lambda: browser.read_case(number),
        "outcome": lambda: browser.record_outcome(number, "true"),
        "deletion": lambda: browser.delete_case(number),
    }
    assert change[event]().status_code == 503
    made, failed = audit_lines(tmp_path / "audit")[-2:]
    assert (made["event"], failed["event"]) == (event, f"{event}_failed")
    assert {made["case_hmac"], failed["case_hmac"]} == {browser.app.state.page.case_hash(number)}
    assert made["request_id"] == failed["request_id"]


def test_number_of_an_earlier_case_is_found_however_its_letters_are_parted(browser: Any) -> None:
    first = browser.send_case(REFERRED)
    head, tail = first.split("-")
    field = re.search(r'<input[^>]*name="earlier_case"[^>]*maxlength="([0-9]+)"', browser.get("/ui/new").text)
    assert field
    ways = (first.lower(), head + tail, f" {head} {tail}", f"{head} - {tail}", f"{head}\u2013{tail}")
    for typed in (*ways, " ".join(head + tail).lower(), f"{head}\u00a0{tail}"):
        assert len(typed) <= int(field[1])
        assert browser.send_case(BELOW, earlier_case=typed), typed
    for typed in (head, f"{head}{tail}{tail}", f"{head}/{tail}", f"{head}-{tail[:3]}", "-"):
        refused = browser.post("/ui/cases", {"earlier_case": typed}, files=[("image", ("a.jpg", BELOW))])
        assert refused.status_code == 422, typed
    queue = browser.app.state.page.queue
    numbers = [case.number for case in queue.waiting_cases()[0].cases]
    assert len(numbers) == 8
    assert len({queue.find(number).person for number in numbers}) == 1


def test_number_of_an_earlier_case_joins_two_cases_of_one_person(browser: Any) -> None:
    first = browser.send_case(REFERRED)
    second = browser.send_case(BELOW, earlier_case=first.lower())
    third = browser.send_case(BELOW)
    people = [browser.app.state.page.queue.find(number).person for number in (first, second, third)]
    assert people[0] == people[1] != people[2]
    unknown = browser.post("/ui/cases", {"earlier_case": "2222-2222"}, files=[("image", ("a.jpg", BELOW))])
    assert unknown.status_code == 422
    assert "no earlier case" in visible_text(unknown)


def test_answers_stand_in_the_language_of_who_looks(browser: Any, browse: Any) -> None:
    number = browser.send_case(BLACK)
    german = browse(browser.app, "de-AT,de;q=0.9")
    german.sign_in("Dr. B")
    text = visible_text(german.get(f"/ui/cases/{number}"))
    assert "Das Foto ist zu dunkel." in text
    assert "FERNBEURTEILUNG" in text.upper()
    assert "too dark" not in text


def test_case_that_another_bundle_answered_says_so(open_page: Any, browse: Any, tmp_path: Path) -> None:
    first = browse(open_page())
    first.sign_in()
    number = first.send_case(REFERRED)
    other = tiny_bundle.make(tmp_path / "other", threshold=0.4)
    second = browse(open_page(other.folder))
    second.sign_in()
    assert "Answered by another bundle" in visible_text(second.get(f"/ui/cases/{number}"))


def test_pulse_changes_with_the_order_of_reading(browser: Any) -> None:
    pulses = [browser.get("/ui/pulse").text]
    number = browser.send_case(BELOW)
    pulses.append(browser.get("/ui/pulse").text)
    assert f'data-pulse="{pulses[-1]}"' in browser.get("/ui").text
    browser.read_case(number)
    pulses.append(browser.get("/ui/pulse").text)
    assert pulses[0] == pulses[2] != pulses[1]


def test_pulse_changes_when_a_deadline_passes_though_the_order_does_not(browser: Any) -> None:
    """An open queue would go on saying how long there is still time."""
    browser.send_case(REFERRED)
    queue, before = browser.app.state.page.queue, browser.get("/ui/pulse").text
    now = queue.now()
    queue.now = lambda: now + timedelta(hours=47)
    assert browser.get("/ui/pulse").text == before
    queue.now = lambda: now + timedelta(hours=49)
    assert browser.get("/ui/pulse").text != before


@pytest.mark.parametrize("language", ["en", "de"])
def test_waiting_times_say_when_they_were_true(language: str, open_page: Any, browse: Any) -> None:
    """The page may be printed, or left open."""
    browser = browse(open_page(), language)
    browser.sign_in()
    number, queue = browser.send_case(REFERRED), browser.app.state.page.queue
    later = queue.now() + timedelta(hours=3)
    queue.now = lambda: later
    said = Texts(language)("as_of", when=Texts(language).date_time(later))
    for path in ("/ui", f"/ui/cases/{number}"):
        assert said in visible_text(browser.get(path))
    browser.read_case(number)
    assert said not in visible_text(browser.get(f"/ui/cases/{number}"))


def test_settings_of_the_page_that_expose_it_are_refused() -> None:
    with pytest.raises(ConfigError, match="TRIAGE_JWT_CLINIC_SCOPE are the same"):
        load(["--bundle", "b"], {"TRIAGE_JWT_CLINIC_SCOPE": "triage:score"})
    with pytest.raises(ConfigError, match="did you mean TRIAGE_READING_QUEUE"):
        load(["--bundle", "b"], {"TRIAGE_READING_QUEU": "q"})
    secret = load(["--bundle", "b"], {"TRIAGE_READING_QUEUE": "postgresql://u:pw@h/d"})
    assert "pw" not in repr(secret)


def test_page_is_not_in_the_published_description(browser: Any) -> None:
    assert "/ui" not in browser.get("/openapi.json").text
