"""The page's style, words and files: contrast, languages that agree, everything in the wheel."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path
from typing import get_args

import pytest

import triage_server
from lesion_triage.bundle.forbidden_words import forbidden_words_in
from triage_server.page.records import Decision
from triage_server.page.texts import LANGUAGES, Texts

PACKAGE = Path(triage_server.__file__).parent
STYLESHEET = (PACKAGE / "static" / "page.css").read_text(encoding="utf-8")
PAIRS = [
    *((ink, paper) for ink in ("ink", "muted", "accent", "warn") for paper in ("paper", "card", "tint")),
    ("warn", "warn-tint"),
    ("ink", "warn-tint"),
    ("muted", "warn-tint"),
    ("on-accent", "accent"),
    ("on-danger", "danger"),
    *(("on-band", f"band-{band}") for band in range(1, 5)),
]


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLESHEET, re.DOTALL)[:2]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    return found if scheme == "light" else found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_pair_of_colours_has_the_contrast_of_wcag_aa(scheme: str) -> None:
    found = colours(scheme)
    for ink, paper in PAIRS:
        lighter, darker = sorted((luminance(found[ink]), luminance(found[paper])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (ink, paper)


def texts(language: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((PACKAGE / "page" / "texts" / f"{language}.json").read_text("utf-8"))
    return found


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_agree_on_codes_and_placeholders_and_promise_nothing(language: str) -> None:
    here, english = texts(language), texts("en")
    assert {code: placeholders(text) for code, text in here.items()} == {
        code: placeholders(text) for code, text in english.items()
    }
    assert {
        code: forbidden_words_in(language, text)
        for code, text in here.items()
        if forbidden_words_in(language, text)
    } == {}
    same = {code for code in here if language != "en" and here[code] == english[code]}
    assert same <= {"band", "time.minutes", "time.hours", "certificate.bundle", "certificate.status"}


def test_no_text_and_no_class_is_left_that_nothing_shows() -> None:
    folders = (("templates", "*.html"), ("static", "*.js"), ("page", "*.py"))
    files = [path for folder, names in folders for path in sorted((PACKAGE / folder).glob(names))]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    fixed = {one for one in texts("en") if not one.startswith(("choice.", "problem."))}
    decisions = [f"reading.{decision}." for decision in get_args(Decision)]
    shown = {
        code
        for code in fixed
        if f'"{code}"' in source
        or f'"{code.rpartition(".")[0]}."' in source  # the rest is filled in
        or code.startswith(tuple(decisions))
    }
    assert fixed - shown == set()
    rules = re.sub(r"/\*.*?\*/", "", STYLESHEET, flags=re.DOTALL)
    styled = {
        name
        for selector in re.findall(r"([^{}]+)\{", rules)
        for name in re.findall(r"\.([a-z][\w-]*)", selector)
    }
    named = set(re.findall(r"[\w-]+", " ".join(re.findall(r'class(?:="|List\.add\(")([^"]+)', source))))
    assert {name for name in styled - named if not name.startswith("band-")} == set()


def test_numbers_are_written_as_the_language_writes_them() -> None:
    assert [Texts(language).number(0.95055) for language in ("en", "de")] == ["0.9506", "0,9506"]
    assert [Texts(language).percentage(0.975) for language in ("en", "de")] == ["97.5 %", "97,5 %"]


def test_no_forbidden_word_stands_in_a_template_a_script_or_the_source() -> None:
    suffixes = {".py", ".html", ".js", ".css", ".json"}
    files = [
        path for path in PACKAGE.rglob("*") if path.suffix in suffixes and "__pycache__" not in path.parts
    ]
    assert {"case.html", "page.js", "page.css", "en.json", "routes.py"} <= {path.name for path in files}
    word = re.compile(r"(?<![a-z])(benign|malignan|cancer|melanom|diagnos|safe|healthy|clear)", re.IGNORECASE)
    for path in files:
        assert not word.search(path.read_text(encoding="utf-8")), path.name


def test_script_makes_no_markup_from_text_and_asks_nobody_else() -> None:
    script = (PACKAGE / "static" / "page.js").read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|eval\(|Function\(|https?:|document\.write", script
    )
