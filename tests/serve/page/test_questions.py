"""The form asks the questions that the red flags are defined by, and takes no number for another one."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lesion_triage.bundle.history import History
from lesion_triage.bundle.red_flags import YES_NO_FIELDS
from triage_server.page.texts import LANGUAGES, Texts

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
