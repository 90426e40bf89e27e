"""Several cases of one person: whoever opens one sees the others, and none moves another."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event

import tiny_bundle
from lesion_triage.bundle.history import History
from triage_server.page.records import Actor
from triage_server.page.store import ReadingQueue
from triage_server.page.texts import LANGUAGES, Texts
from triage_server.problems import RequestError

REFERRED, BELOW = (tiny_bundle.picture_bytes(kind, "JPEG") for kind in ("referred", "below"))
READER = Actor("key:0123456789ab", "Dr A")


def add(queue: ReadingQueue, answers: Any, earlier: str | None = None, band: int = 4) -> str:
    number = queue.draw_number()
    banded = [one.model_copy(update={"priority_band": band, "deadline_hours": 48.0}) for one in answers]
    queue.add(number, banded, [BELOW], History(), READER.caller, same_person_as=earlier)
    return number


def others(queue: ReadingQueue, number: str) -> tuple[list[str], list[str]]:
    case, newer, older = queue.find_with_others(number)
    assert case == queue.find(number)
    return [one.number for one in newer], [one.number for one in older]


def test_case_comes_with_all_others_of_its_person_and_with_nobody_elses(
    queue: ReadingQueue, answers: Any
) -> None:
    first = add(queue, answers)
    add(queue, answers)
    second = add(queue, answers, first)
    third = add(queue, answers, second)
    assert others(queue, first) == ([third, second], [])
    assert others(queue, second) == ([third], [first])
    assert others(queue, third) == ([], [second, first])
    queue.record_reading(second, READER, "agree", "", 0)
    assert [one.is_read for one in queue.find_with_others(first)[1]] == [False, True]
    queue.delete(second)
    assert others(queue, first) == ([third], [])
    for number in ("2222-2222", "\x00"):
        with pytest.raises(RequestError, match="Nothing is served"):
            queue.find_with_others(number)


@pytest.mark.parametrize("band", [1, 4])
def test_newer_case_leaves_the_older_one_its_band_its_deadline_and_its_place(
    band: int, queue: ReadingQueue, answers: Any
) -> None:
    first, stranger = add(queue, answers, band=3), add(queue, answers, band=3)
    before = queue.find(first)
    newer = add(queue, answers, first, band=band)
    assert replace(queue.find(first), documents={}) == replace(before, documents={})
    rest = [case.number for case in queue.waiting_cases()[0].cases if case.number != newer]
    assert rest == [first, stranger]
    queue.record_reading(newer, READER, "agree", "", 0)
    assert [case.number for case in queue.waiting_cases()[0].cases] == [first, stranger]
    due = before.urgency.due_at
    assert due is not None
    queue.now = lambda: due + timedelta(seconds=1)  # type: ignore[method-assign]
    urgent = add(queue, answers, band=1)
    assert next(case.number for case in queue.waiting_cases()[0].cases) == first, urgent


def test_queue_names_the_newest_waiting_case_of_the_same_person(queue: ReadingQueue, answers: Any) -> None:
    first, alone = add(queue, answers), add(queue, answers)

    def marks() -> dict[str, tuple[str, int]]:
        return {
            case.number: (case.newer.number, case.newer.urgency.band)
            for case in queue.waiting_cases()[0].cases
            if case.newer
        }

    assert marks() == {}
    second = add(queue, answers, first, band=1)
    assert marks() == {first: (second, 1)}
    third = add(queue, answers, first, band=2)
    assert marks() == {first: (third, 2), second: (third, 2)}
    queue.record_reading(third, READER, "agree", "", 0)
    assert marks() == {first: (second, 1)}
    queue.record_reading(first, READER, "agree", "", 0)
    assert marks() == {}
    assert [case.number for case in queue.waiting_cases()[0].cases] == [second, alone]


def test_number_of_queries_does_not_grow_with_the_cases_of_a_person(
    queue: ReadingQueue, answers: Any
) -> None:
    first = add(queue, answers)
    seen: list[int] = []
    statements: list[str] = []
    event.listen(queue._engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    for more in (0, 1, 4):
        for _ in range(more):
            add(queue, answers, first)
        queue.waiting_cases()  # reads each answer once
        statements.clear()
        queue.find_with_others(first)
        queue.waiting_cases()
        seen.append(len(statements))
    assert len(set(seen)) == 1


# What a person sees


def entry_of(text: str, number: str) -> str:
    """The queue's entry of a case."""
    (entry,) = [
        one
        for one in re.split('<li class="card entry', text)[1:]
        if f'<h2><a href="/ui/cases/{number}"' in one
    ]
    return entry


def others_shown(response: httpx.Response) -> str:
    """The list of other cases; empty if there is none."""
    found = re.search(r'<section aria-labelledby="others".*?</section>', response.text, re.DOTALL)
    return found[0] if found else ""


@pytest.mark.parametrize("language", LANGUAGES)
def test_whoever_opens_an_older_case_sees_that_a_newer_one_waits(
    language: str, open_page: Callable[..., Any], browse: Any
) -> None:
    browser, texts = browse(open_page(), language), Texts(language)
    browser.sign_in()
    first = browser.send_case(BELOW)
    assert others_shown(browser.get(f"/ui/cases/{first}")) == ""
    second = browser.send_case(BELOW, earlier_case=first, bleeding="yes")
    band = browser.app.state.page.queue.find(second).urgency.band
    assert band == 3
    shown = others_shown(browser.get(f"/ui/cases/{first}"))
    assert f'<a href="/ui/cases/{second}">{second}</a>' in shown
    for code in ("others.newer", "others.waiting", "others.newer_waits", "read.short.needs_in_person"):
        assert texts(code) in shown, code
    assert texts("band.of", band=band) in shown
    entry = entry_of(browser.get("/ui").text, first)
    assert f'href="/ui/cases/{second}"' in entry
    assert texts("queue.newer", band=band) in entry
    assert first not in entry_of(browser.get("/ui").text, second)
    shown = others_shown(browser.get(f"/ui/cases/{second}"))
    assert f'<a href="/ui/cases/{first}">{first}</a>' in shown
    assert texts("others.older") in shown
    assert texts("others.newer_waits") not in shown
    browser.read_case(second, "override", "bleeds since today")
    shown = others_shown(browser.get(f"/ui/cases/{first}"))
    assert texts("others.read") in shown
    assert texts("others.newer_waits") not in shown
    assert texts("queue.newer", band=band) not in browser.get("/ui").text
    assert texts("outcome.others") in browser.get(f"/ui/cases/{second}").text
    browser.record_outcome(second, "true")
    assert texts("others.read_known") in others_shown(browser.get(f"/ui/cases/{first}"))
    assert texts("others.newer") in others_shown(browser.get(f"/ui/cases/{first}"))


def test_newer_case_whose_answer_cannot_be_read_is_in_band_one_and_hides_nothing(
    browser: Any, written_by_another_version: Any
) -> None:
    first = browser.send_case(BELOW)
    second = browser.send_case(BELOW, earlier_case=first)
    written_by_another_version("answers", second, "document")
    shown, texts = others_shown(browser.get(f"/ui/cases/{first}")), Texts("en")
    assert texts("band.of", band=1) in shown
    assert texts("queue.newer", band=1) in entry_of(browser.get("/ui").text, first)


def test_new_photographs_of_a_case_are_sent_as_a_case_of_the_same_person_with_each_answer_asked_again(
    browser: Any,
) -> None:
    first = browser.send_case(BELOW, bleeding="no", changing="yes")
    link = re.search(r'href="(/ui/new\?[^"]+)"', browser.get(f"/ui/cases/{first}").text)
    assert link
    form = browser.get(link[1]).text
    named = re.search(r'name="earlier_case"[^>]* value="([^"]*)"', form)
    assert named
    assert named[1] == first
    assert not re.search(r'<option value="(yes|no)" selected', form)
    second = browser.send_case(REFERRED, earlier_case=named[1])
    assert second in others_shown(browser.get(f"/ui/cases/{first}"))


@pytest.mark.parametrize("sent", ["", "x", "<b>", "2222-222", "%00"])
def test_what_is_no_number_of_a_case_is_not_filled_in(sent: str, browser: Any) -> None:
    form = browser.get(f"/ui/new?earlier_case={sent}").text
    named = re.search(r'name="earlier_case"[^>]* value="([^"]*)"', form)
    assert named
    assert named[1] == ""


def test_outcome_of_a_lone_case_speaks_of_no_other(browser: Any) -> None:
    number = browser.send_case(BELOW)
    browser.read_case(number)
    assert Texts("en")("outcome.others") not in browser.get(f"/ui/cases/{number}").text
