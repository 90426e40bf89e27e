"""The form asks the questions that the red flags are defined by, and takes no number for another one."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from lesion_triage.bundle.history import History
from lesion_triage.bundle.red_flags import YES_NO_FIELDS
from triage_server.page.texts import LANGUAGES, Texts

PICTURE = tiny_bundle.picture_bytes("referred", "JPEG")
DEFINED = Path(__file__).resolve().parents[3] / "docs" / "red-flags.md"


def defined() -> dict[str, str]:
    """By field what docs/red-flags.md says that it asks."""
    table = DEFINED.read_text(encoding="utf-8").split("## The questions")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.+) \|$", table, re.MULTILINE)
    return {name: asks for names, asks in rows for name in re.findall(r"\w+", names)}


def test_words_of_the_form_are_those_that_define_the_questions() -> None:
    asked = {name: said for name, said in defined().items() if name in YES_NO_FIELDS}
    assert set(asked) == set(YES_NO_FIELDS)
    for name, said in asked.items():
        words = Texts("en")(f"question.{name}")
        assert words == said if said.endswith("?") else words.endswith(f"{said}?"), name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_field_is_asked_by_a_label_of_its_own_in_every_language(
    language: str, open_page: Callable[..., Any], browse: Any
) -> None:
    browser, texts = browse(open_page(), language), Texts(language)
    browser.sign_in()
    labels = dict(re.findall(r'<label for="(\w+)">(.*?)</label>', html.unescape(browser.get("/ui/new").text)))
    said = {name: texts(f"question.{name}") for name in History.model_fields}
    assert {name: labels[name] for name in said} == said
    assert len(set(said.values())) == len(said)
    assert all(said[name].endswith("?") for name in YES_NO_FIELDS)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("7", 7.0), ("7,5", 7.5), ("7.25", 7.25), ("007", 7.0), ("120", 120.0), ("0,1", 0.1)],
)
def test_number_is_kept_as_it_was_typed(typed: str, kept: float, browser: Any) -> None:
    number = browser.send_case(PICTURE, diameter_mm=typed)
    assert browser.app.state.page.queue.find(number).history.diameter_mm == kept


@pytest.mark.parametrize(
    "typed",
    [
        "1,040",
        "1.040",
        "1_0",
        "1e2",
        "+7",
        "-7",
        "7,",
        ",5",
        "1.0.4",
        "1 040",
        "7mm",
        "nan",
        "\u0667",
        "0",
        "501",
    ],
)
def test_number_that_may_mean_another_one_is_refused_with_words(typed: str, browser: Any) -> None:
    fields = {"diameter_mm": typed, "age_years": "61"}
    refused = browser.post("/ui/cases", fields, files=[("image", ("a.jpg", PICTURE))])
    assert refused.status_code == 422
    assert "a number from 0.1 to 500, written as 7 or 7.5" in refused.text
    assert "Age in years: a number" not in refused.text
    complaint = refused.text.partition('class="complaint"')[2].partition("</div>")[0]
    assert complaint.count("Largest diameter in mm") == 1
    assert browser.app.state.page.queue.waiting_cases()[0].count == 0


def test_numbers_are_shown_with_the_mark_of_the_language(browser: Any) -> None:
    number = browser.send_case(PICTURE, diameter_mm="7,5", duration_weeks="1040")
    for language, shown in (("en", "7.5"), ("de", "7,5")):
        browser.language = language
        text = browser.get(f"/ui/cases/{number}").text
        assert f"<dd>{shown}</dd>" in text
        assert "<dd>1040</dd>" in text
