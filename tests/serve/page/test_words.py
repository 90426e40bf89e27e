"""Small words that have to be true: of a reason, of an outcome still open, and of what was done just now."""

from __future__ import annotations

from typing import Any

import pytest

import tiny_bundle

PICTURE = tiny_bundle.picture_bytes("below", "JPEG")


def test_reason_that_is_too_short_is_not_called_a_missing_one(browser: Any) -> None:
    number = browser.send_case(PICTURE)
    agreed = browser.read_case(number, "agree", "ok")
    assert agreed.status_code == 422
    assert "Say why you override" not in agreed.text
    assert "or leave it empty" in agreed.text
    assert "Say why you override" in browser.read_case(number, "override", "no").text


def test_case_whose_outcome_is_unknown_is_still_asked_for_one(browser: Any) -> None:
    number = browser.send_case(PICTURE)
    browser.read_case(number)
    asked = f'aria-label="Record the outcome of case {number}"'
    for needs, how, still in (("unknown", "not_yet", True), ("true", "examination", False)):
        assert asked in browser.get("/ui/read").text
        browser.tell_outcome(number, needs, how)
        assert (asked in browser.get("/ui/read").text) is still
