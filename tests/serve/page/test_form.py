"""A form that was refused says what is at fault, and that its photographs have to be chosen again."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle

PICTURE = tiny_bundle.picture_bytes("referred", "JPEG")
CHOOSE_AGAIN = {"en": "Choose all photographs again", "de": "Wählen Sie alle Fotos noch einmal aus"}


@pytest.mark.parametrize("language", sorted(CHOOSE_AGAIN))
@pytest.mark.parametrize(
    ("fields", "second"),
    [({}, b"no picture"), ({"age_years": "old"}, PICTURE), ({"earlier_case": "2222-2222"}, PICTURE)],
)
def test_refused_form_says_that_photographs_are_to_be_chosen_again(
    language: str, fields: dict[str, str], second: bytes, browser: Any
) -> None:
    browser.language = language
    files = [("image", ("a.jpg", PICTURE)), ("image", ("b.jpg", second))]
    assert CHOOSE_AGAIN[language] in browser.post("/ui/cases", fields, files=files).text


def test_form_without_photographs_does_not_speak_of_choosing_again(browser: Any) -> None:
    assert CHOOSE_AGAIN["en"] not in browser.post("/ui/cases", {}, files=[("image", ("", b""))]).text
    assert CHOOSE_AGAIN["en"] not in browser.get("/ui/new").text


@pytest.mark.parametrize(("language", "said"), [("en", "up to 67.1 MB"), ("de", "bis 67,1 MB")])
def test_limit_has_the_decimal_mark_of_the_language_and_is_a_number_for_the_script(
    language: str, said: str, browse: Any, open_page: Callable[..., Any]
) -> None:
    browser_in_language = browse(open_page(max_body_bytes=67_200_000), language)
    browser_in_language.sign_in()
    shown = browser_in_language.get("/ui/new").text
    assert said in shown
    assert 'data-limit="67.1"' in shown


@pytest.mark.parametrize("max_body_bytes", [1_000_000, 1_060_000, 2**20])
def test_photographs_of_the_size_that_the_form_allows_are_taken(
    max_body_bytes: int, open_page: Callable[..., Any], browse: Any
) -> None:
    """A request that is too long is refused before it is read, and nothing of its form is shown again."""
    browser = browse(open_page(max_body_bytes=max_body_bytes))
    browser.sign_in()
    limit = re.search(r'data-limit="([0-9.]+)"', browser.get("/ui/new").text)
    assert limit
    largest = PICTURE + bytes(round(float(limit[1]) * 1e6) - 16 * len(PICTURE))
    files = [("image", (f"{number:03}" * 80, PICTURE)) for number in range(15)] + [("image", ("a", largest))]
    browser.post("/ui/cases", {"age_years": "61"}, files=files)
    assert browser.app.state.page.queue.waiting_cases()[0].count == 1


def test_form_with_two_answers_to_one_question_is_refused(browser: Any) -> None:
    number = browser.send_case(PICTURE)
    reading = {"decision": ["override", "agree"], "reason": "seen", "readings": "0"}
    assert "request_not_valid" in browser.post(f"/ui/cases/{number}/reading", reading).text
    queue = browser.app.state.page.queue
    assert not queue.find(number).is_read
    files = [("image", ("a.jpg", PICTURE))]
    assert "request_not_valid" in browser.post("/ui/cases", {"bleeding": ["yes", "no"]}, files=files).text
    assert queue.waiting_cases()[0].count == 1


def test_field_of_a_form_beside_photographs_has_a_limit(browser: Any) -> None:
    sent = browser.post("/ui/cases", {"bleeding": "y" * 20_000}, files=[("image", ("a.jpg", PICTURE))])
    assert "request_not_valid" in sent.text


def check_history_is_kept(text: str) -> None:
    assert 'value="61"' in text
    assert re.search(r'<select id="bleeding".*?value="yes" selected', text, re.DOTALL)
    assert CHOOSE_AGAIN["en"] in text


def test_too_many_photographs_leave_the_history_as_it_was_told(browser: Any) -> None:
    """Else it would be sent again without it, and a red flag would be missing."""
    fields, files = {"age_years": "61", "bleeding": "yes"}, [("image", ("a.jpg", PICTURE))] * 60
    refused = browser.post("/ui/cases", fields, files=files)
    assert refused.status_code == 422
    assert "Too many photographs" in refused.text
    check_history_is_kept(refused.text)
    assert browser.app.state.page.queue.waiting_cases()[0].count == 0


def test_form_of_an_ended_session_leaves_the_history_as_it_was_told_to_who_has_signed_in_again(
    browser: Any,
) -> None:
    fields = {"form_token": browser.token(), "age_years": "61", "bleeding": "yes"}
    browser.sign_in()

    def send(site: str) -> Any:
        files, headers = [("image", ("a.jpg", PICTURE))], {"Sec-Fetch-Site": site}
        return browser.send("POST", "/ui/cases", data=fields, files=files, headers=headers)

    refused = send("same-origin")
    assert refused.status_code == 403
    check_history_is_kept(refused.text)
    assert fields["form_token"] not in refused.text
    assert 'value="61"' not in send("cross-site").text
    assert browser.app.state.page.queue.waiting_cases()[0].count == 0


def test_case_that_the_server_could_not_take_leaves_the_history_as_it_was_told(
    browser: Any, tmp_path: Path
) -> None:
    base = sqlite3.connect(tmp_path / "queue.sqlite", isolation_level=None)
    base.execute("CREATE TRIGGER full BEFORE INSERT ON cases BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
    base.close()
    fields = {"age_years": "61", "bleeding": "yes"}
    refused = browser.post("/ui/cases", fields, files=[("image", ("a.jpg", PICTURE))])
    assert refused.status_code == 503
    assert "Nothing was saved" in refused.text
    assert "Please check your entries" not in refused.text
    check_history_is_kept(refused.text)
