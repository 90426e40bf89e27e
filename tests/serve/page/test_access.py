"""Who does not see the page hears its parts, its languages and what is at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from lesion_triage.bundle.languages import Languages
from lesion_triage.bundle.messages import Catalogue
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from triage_server.app import create_app
from triage_server.page.records import Actor
from triage_server.settings import Settings

PICTURE, BLACK = (tiny_bundle.picture_bytes(kind, "JPEG") for kind in ("referred", "black"))
MARKER = "ZZ"


@pytest.fixture
def french(browse: Any, flagged_bundle: Path, tmp_path: Path) -> Iterator[Any]:
    """A browser that asks for a language of the site's own catalogue, which the page does not speak."""
    marked = _with_marker(json.loads(Catalogue.load("en").to_json()))
    (tmp_path / "fr.json").write_text(json.dumps({**marked, "language": "fr", "decimal_mark": ","}))
    bundle = open_bundle(flagged_bundle)
    codes = [flag.code for flag in bundle.policy.red_flags.flags]
    scorer = Scorer(bundle, languages=Languages.for_flags(codes, extra=tmp_path))
    settings = Settings(bundle=flagged_bundle, threads=1, reading_queue=str(tmp_path / "queue.sqlite"))
    app = create_app(bundle, scorer, settings, None)
    browser = browse(app, "fr")
    browser.sign_in()
    yield browser
    app.state.page.close()
    app.state.service.pool.close()


def _with_marker(texts: Any) -> Any:
    """The texts of a catalogue, each begun by a word that no other language has."""
    if isinstance(texts, dict):
        return {name: _with_marker(value) for name, value in texts.items() if value is not None}
    return f"{MARKER} {texts}" if isinstance(texts, str) else texts


def languages_by_source(text: str) -> set[str]:
    """The languages in which words of the site's catalogue are said to be, and those in which ours are."""
    found, stack = set(), []
    body = re.sub(r"<(script|style|head)\b.*?</\1>|<!.*?>", "", text, flags=re.DOTALL)
    for closing, tag, inside, words in re.findall(r"<(/?)(\w+)([^>]*)>([^<]*)", body):
        if closing:
            while stack and stack.pop()[0] != tag:
                pass
        elif tag not in ("input", "img", "br", "meta", "link"):
            said = re.search(r' lang="(\w+)"', inside)
            stack.append((tag, said[1] if said else stack[-1][1] if stack else ""))
        if words.strip() and stack:
            source = "theirs" if MARKER in words else "ours"
            found.add(f"{source} {stack[-1][1]}")
    return found


def test_words_of_a_language_that_the_page_does_not_speak_say_which_it_is(french: Any) -> None:
    number = french.send_case(PICTURE, BLACK, bleeding="yes", diameter_mm="7")
    for path in ("/ui", "/ui/new", f"/ui/cases/{number}", "/ui/read", "/ui/certificate"):
        assert languages_by_source(french.get(path).text) == {"theirs fr", "ours en"}, path


@pytest.mark.parametrize("path", ["/ui", "/ui/new", "/ui/read", "/ui/certificate", "case"])
def test_headings_go_down_step_by_step_and_all_stands_in_a_landmark(path: str, browser: Any) -> None:
    number = browser.send_case(PICTURE)
    browser.read_case(browser.send_case(PICTURE))
    text = browser.get(f"/ui/cases/{number}" if path == "case" else path).text
    levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    body = text.split("<body>")[1]
    outside = re.sub(
        r"<(header|main|footer)\b.*?</\1>(?=\s*<(?:main|footer|/body))", "", body, flags=re.DOTALL
    )
    assert 'class="drawn"' in text
    assert 'class="drawn"' not in outside


@pytest.mark.parametrize("path", ["/ui", "/ui/read"])
def test_two_ways_through_a_list_have_names_of_their_own(path: str, browser: Any) -> None:
    queue, number = browser.app.state.page.queue, browser.send_case(PICTURE)
    case = queue.find(number)
    for _ in range(100):
        queue.add(queue.draw_number(), list(case.answers.values()), [PICTURE], case.history, "x")
    if path == "/ui/read":
        for one in [one.number for part in (1, 2) for one in queue.waiting_cases(part)[0].cases]:
            queue.record_reading(one, Actor("x", "y"), "agree", "", readings_seen=0)
    names = re.findall(r'<nav[^>]* aria-label="([^"]+)"', browser.get(path).text)
    assert len(names) == len(set(names)) == 3


def invalid_fields_of(text: str) -> set[str]:
    return set(re.findall(r'<(?:input|select|textarea)[^>]* name="(\w+)"[^>]* aria-invalid="true"', text))


def test_what_is_at_fault_says_so_and_is_where_the_complaint_leads(
    browser: Any, browse: Callable[..., Any]
) -> None:
    files = [("image", ("a.jpg", PICTURE))]
    assert invalid_fields_of(browser.get("/ui/new").text) == set()
    wrong = browser.post("/ui/cases", {"age_years": "old", "bleeding": "maybe"}, files=files).text
    assert invalid_fields_of(wrong) == {"age_years", "bleeding"}
    assert '<a href="#bleeding">' in wrong
    assert invalid_fields_of(browser.post("/ui/cases", {"earlier_case": "2222-2222"}, files=files).text) == {
        "earlier_case"
    }
    assert invalid_fields_of(browser.post("/ui/cases", files=[("image", ("a", b"x"))]).text) == {"image"}
    number = browser.send_case(PICTURE)
    assert invalid_fields_of(browser.read_case(number, "override").text) == {"reason"}
    assert 'role="radiogroup" aria-invalid="true"' in browser.read_case(number, "").text
    browser.read_case(number)
    assert invalid_fields_of(browser.record_outcome(number, "true", "not_yet").text) == {"confirmed_by"}
    assert invalid_fields_of(browser.post(f"/ui/cases/{number}/delete").text) == {"sure"}
    assert invalid_fields_of(browse(browser.app).sign_in("").text) == {"reader"}


@pytest.mark.parametrize("language", ["en", "de"])
def test_what_a_link_is_called_holds_the_words_that_it_shows(language: str, browser: Any) -> None:
    """Who speaks to the browser says what is to be seen (WCAG 2.2, 2.5.3)."""
    number = browser.send_case(PICTURE)
    browser.read_case(browser.send_case(PICTURE))
    browser.language, compared = language, 0
    for path in ("/ui", "/ui/read", f"/ui/cases/{number}"):
        named = re.findall(
            r'<(a|button)\b[^>]* aria-label="([^"]+)"[^>]*>([^<]+)</\1>', browser.get(path).text
        )
        for _, name, shown in named:
            assert shown.casefold() in name.casefold(), path
        compared += len(named)
    assert compared >= 2


def test_photograph_opens_beside_the_form_that_is_being_filled_in(browser: Any) -> None:
    """No browser keeps what was typed into a page that it may not store, and a reason may be long."""
    number = browser.send_case(PICTURE, PICTURE)
    page = browser.get(f"/ui/cases/{number}")
    links = re.findall(r'<a href="[^"]*/photographs/[0-9]"([^>]*)>', page.text)
    assert len(links) == 2
    assert all('target="_blank"' in link and "in a new tab" in link for link in links)
    assert page.headers["referrer-policy"] == "no-referrer"
