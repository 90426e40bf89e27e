"""A session that has ended loses nothing without a word: what was sent is said not to be kept."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

import httpx_60s
import tiny_bundle
from triage_server import lingering_close
from triage_server.api_keys import new_key
from triage_server.page.texts import LANGUAGES, Texts

FORM_LOST_URL = "/ui/login?kept=nothing"
REFERRED = tiny_bundle.picture_bytes("referred", "JPEG")


def end_session(browser: Any) -> str:
    """The session ends while its pages are open; gives the token that they still carry."""
    token: str = browser.token()
    browser.cookies = httpx.Cookies()
    return token


@pytest.mark.parametrize("path", ["", "/reading", "/outcome", "/delete"])
def test_what_is_sent_after_the_session_has_ended_is_said_not_to_be_kept(browser: Any, path: str) -> None:
    number = browser.send_case(REFERRED)
    target = f"/ui/cases/{number}{path}" if path else "/ui/cases"
    files = {} if path else {"files": [("image", ("a.jpg", REFERRED))]}
    fields = {"form_token": end_session(browser), "decision": "agree", "needs_in_person": "true"}
    refused = browser.send(
        "POST", target, data={**fields, "confirmed_by": "consensus", "sure": "yes"}, **files
    )
    assert (refused.status_code, refused.headers["location"]) == (303, FORM_LOST_URL)
    queue = browser.app.state.page.queue
    assert queue.waiting_cases()[0].count == 1
    assert not queue.find(number).is_read


@pytest.mark.parametrize("language", LANGUAGES)
def test_login_says_so_in_every_language_until_somebody_has_signed_in(
    open_page: Callable[..., Any], browse: Any, language: str
) -> None:
    browser, said = browse(open_page(), language), Texts(language)("login.lost")
    shown = browser.get(FORM_LOST_URL)
    assert f'role="alert" tabindex="-1" data-focus>{said}<' in shown.text
    assert f'action="{FORM_LOST_URL}"' in shown.text
    wrong = browser.post(FORM_LOST_URL, {"reader": ""})
    assert wrong.status_code == 401
    assert said in wrong.text
    assert browser.post(FORM_LOST_URL, {"reader": "A"}).headers["location"] == "/ui"
    assert said not in browser.get("/ui").text


def test_sign_in_form_that_outlived_its_session_is_shown_again(
    open_page: Callable[..., Any], browse: Any
) -> None:
    browser = browse(open_page())
    late = browser.send("POST", "/ui/login", data={"form_token": end_session(browser), "reader": "A"})
    assert (late.status_code, late.headers["location"]) == (303, FORM_LOST_URL)
    assert browser.post(FORM_LOST_URL, {"reader": "A"}).headers["location"] == "/ui"


def test_who_looks_or_leaves_has_lost_nothing(browser: Any) -> None:
    token = end_session(browser)
    assert browser.get("/ui/new").headers["location"] == "/ui/login"
    left = browser.send("POST", "/ui/logout", data={"form_token": token})
    assert left.headers["location"] == "/ui/login"
    assert Texts("en")("login.lost") not in browser.get("/ui/login").text


def refuse_session(browser: Any, tmp_path: Path, key: str) -> None:
    browser.cookies = httpx.Cookies()


def sign_in_again(browser: Any, tmp_path: Path, key: str) -> None:
    browser.sign_in("B", key)


def break_database(browser: Any, tmp_path: Path, key: str) -> None:
    with closing(sqlite3.connect(tmp_path / "queue.sqlite")) as database:
        database.execute("DROP TABLE readings")


def use_up_requests(browser: Any, tmp_path: Path, key: str) -> None:
    for _ in range(20):
        browser.get("/ui/pulse")


@pytest.mark.parametrize(
    ("happen", "status"),
    [(refuse_session, 401), (sign_in_again, 403), (break_database, 503), (use_up_requests, 429)],
)
def test_reason_of_a_reading_that_is_not_recorded_is_shown_to_who_wrote_it(
    happen: Callable[[Any, Path, str], None], status: int, open_page: Any, browse: Any, tmp_path: Path
) -> None:
    key = new_key(tmp_path / "keys", "one", "clinic")
    browser = browse(open_page(api_keys_file=tmp_path / "keys", rate_per_minute=20))
    browser.sign_in("A", key)
    number = browser.send_case(REFERRED)
    reading = {
        "form_token": browser.token(),
        "decision": "override",
        "reason": "Zz <b>reason",
        "readings": "0",
    }
    happen(browser, tmp_path, key)

    def send(site: str) -> httpx.Response:
        headers = {"Sec-Fetch-Site": site}
        return browser.send("POST", f"/ui/cases/{number}/reading", data=reading, headers=headers)

    refused = send("same-origin")
    assert refused.status_code == status
    assert re.search(r"<textarea [^>]*readonly[^>]*>Zz &lt;b&gt;reason</textarea>", refused.text)
    assert ('href="/ui/login"' in refused.text) is (status == 401)
    if status in (401, 403):  # its token proves nothing
        assert "Zz" not in send("cross-site").text  # another site's words are not shown as a reader's


def test_upload_of_many_bytes_or_with_a_pause_is_answered_and_not_cut_off(
    start: Callable[..., Any], flagged_bundle: Path, tmp_path: Path
) -> None:
    queue = str(tmp_path / "queue.sqlite")
    with start(flagged_bundle, tmp_path, TRIAGE_READING_QUEUE=queue) as server:
        files = {"image": ("a.jpg", REFERRED + bytes(15_000_000))}
        answer = httpx_60s.post(f"{server.url}/ui/cases", data={"form_token": "x"}, files=files)
        assert (answer.status_code, answer.headers["location"]) == (303, FORM_LOST_URL)
        with socket.create_connection(server.address, timeout=60) as connection:
            head = "POST /ui/cases HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000\r\n\r\n"
            connection.sendall(head.encode() + bytes(1000))
            time.sleep(lingering_close._QUIET_S + 1.5)
            for _ in range(2):  # a browser sends all of it before it looks for an answer
                connection.sendall(bytes(1000))
                time.sleep(0.5)
            assert connection.recv(65536).startswith(b"HTTP/1.1 303 ")
        assert server.stop() == 0


def test_script_is_told_whose_session_it_is_and_nobody_else_is(browser: Any, browse: Any) -> None:
    told = browser.get("/ui/session")
    assert told.json() == {"reader": "A. Reader", "form_token": browser.token()}
    assert told.headers["cache-control"] == "no-store"
    assert told.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in told.headers
    assert browser.get("/ui/session?case").json() == told.json()
    for signed_in_before in (browse(browser.app), browser):
        end_session(signed_in_before)
        asked = signed_in_before.get("/ui/session")
        assert (asked.status_code, asked.headers["location"]) == (303, "/ui/login")


def test_script_is_told_when_a_case_would_be_refused_before_its_form_is_read(
    browser: Any, tmp_path: Path
) -> None:
    def statuses() -> list[int]:
        return [browser.get(f"/ui/session{query}").status_code for query in ("", "?case")]

    service = browser.app.state.service
    with ExitStack() as others:
        for _ in range(service.pool.capacity):
            others.enter_context(service.pool.reserve_slot())
        assert statuses() == [200, 503]
    assert statuses() == [200, 200]
    with closing(sqlite3.connect(tmp_path / "queue.sqlite")) as database:
        database.execute("ALTER TABLE cases RENAME TO away")
        assert statuses() == [200, 503]
        database.execute("ALTER TABLE away RENAME TO cases")
    os.dup2(os.open("/dev/full", os.O_WRONLY), service.recorder._log._handle)
    assert browser.post("/ui/cases", files=[("image", ("a.jpg", REFERRED))]).status_code == 503
    assert statuses() == [200, 503]
