"""Small words that have to be true: of a reason, of an outcome still open, and of what was done just now."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import tiny_bundle
from triage_server.page.texts import LANGUAGES

PICTURE = tiny_bundle.picture_bytes("below", "JPEG")


def test_reason_that_is_too_short_is_not_called_a_missing_one(browser: Any) -> None:
    number = browser.send_case(PICTURE)
    agreed = browser.read_case(number, "agree", "ok")
    assert agreed.status_code == 422
    assert "Say why you override" not in agreed.text
    assert "or leave it empty" in agreed.text
    assert "Say why you override" in browser.read_case(number, "override", "no").text


def test_address_of_a_refused_form_leads_to_the_form_and_does_not_say_that_the_case_was_deleted(
    browser: Any,
) -> None:
    number = browser.send_case(PICTURE)
    assert browser.read_case(number, "override").status_code == 422
    for form in ("reading", "outcome", "delete"):
        again = browser.get(f"/ui/cases/{number}/{form}")
        assert (again.status_code, again.headers["location"]) == (303, f"/ui/cases/{number}")
    assert browser.get("/ui/cases").headers["location"] == "/ui/new"


def test_white_space_of_a_text_processor_does_not_join_the_words_of_a_reason(browser: Any) -> None:
    number = browser.send_case(PICTURE)
    browser.read_case(number, "override", "grown from 2\u00a0to\u20093 mm\r\n\tin a\u3000month\x00\u00ad")
    (reading,) = browser.app.state.page.queue.find(number).readings
    assert reading.reason == "grown from 2 to 3 mm\n\tin a month"


def test_case_whose_outcome_is_unknown_is_still_asked_for_one(browser: Any) -> None:
    number = browser.send_case(PICTURE)
    browser.read_case(number)
    asked = f'aria-label="Record outcome of case {number}"'
    for needs, how, still in (("unknown", "not_yet", True), ("true", "examination", False)):
        assert asked in browser.get("/ui/read").text
        browser.record_outcome(number, needs, how)
        assert (asked in browser.get("/ui/read").text) is still


def test_what_an_address_says_was_done_is_believed_as_far_as_the_queue_bears_it_out(browser: Any) -> None:
    number = browser.send_case(PICTURE)

    def said(done: str, case: str = number) -> bool:
        return 'class="done"' in browser.get("/ui", params={"done": done, "case": case}).text

    claims = ("sent", "reading", "outcome", "deleted")
    assert [said(one) for one in claims] == [True, False, False, False]
    assert f"Case {number} is in the queue" in browser.get(f"/ui?done=sent&case={number}").text
    browser.read_case(number)
    assert [said(one) for one in claims] == [True, True, False, False]
    text = browser.get(f"/ui?done=sent&case={number}").text
    assert "is in the queue" not in text
    assert f"Case {number} was sent, and somebody has read it since" in text
    browser.record_outcome(number, "true")
    assert [said(one) for one in claims] == [True, True, True, False]
    browser.delete_case(number)
    assert [said(one) for one in claims] == [False, False, False, True]
    for case in ("anything!", "<b>x</b>", "2222-222a", ""):
        assert [said(one, case) for one in claims] == [False] * 4


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_an_address_alone_says_is_not_told_as_done(
    language: str, open_page: Callable[..., Any], browse: Any
) -> None:
    """Neither that a case was deleted which never was, nor that something was sent and lost."""
    browser = browse(open_page(), language)
    browser.sign_in()
    told = {"en": "There is no case BCDF-GHJK here now", "de": "Es gibt hier jetzt keinen Fall BCDF-GHJK"}
    assert told[language] in browser.get("/ui/read?done=deleted&case=BCDF-GHJK").text
    lost = {"en": "If you have just sent something", "de": "Falls Sie eben etwas gesendet haben"}
    assert lost[language] in browse(browser.app, language).get("/ui/login?kept=nothing").text


def test_waiting_time_keeps_the_capitals_of_the_language(open_page: Callable[..., Any], browse: Any) -> None:
    german = browse(open_page(), "de")
    german.sign_in()
    number = german.send_case(PICTURE)
    assert "Wartet seit unter einer Minute. Frist in 47 h 59 min." in german.get(f"/ui/cases/{number}").text
    queue = german.app.state.page.queue
    later = queue.now() + timedelta(days=3)
    queue.now = lambda: later
    text = german.get(f"/ui/cases/{number}").text
    assert "Wartet seit 3 T 0 h." in text
    assert "Frist vor 24 h 0 min verstrichen: als Nächstes lesen." in text
