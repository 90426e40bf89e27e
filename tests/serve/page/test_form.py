"""A form that was refused says what is at fault, and that its photographs have to be chosen again."""

from __future__ import annotations

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
    language: str, said: str, browse: Any, browser: Any
) -> None:
    browser_in_language = browse(browser.app, language)
    browser_in_language.sign_in()
    shown = browser_in_language.get("/ui/new").text
    assert said in shown
    assert 'data-limit="67.1"' in shown


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
