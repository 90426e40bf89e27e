"""Two readers of one case: neither records a reading without having seen the other's."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from triage_server.audit_chain import files_of
from triage_server.page.texts import LANGUAGES, Texts

PICTURE = tiny_bundle.picture_bytes("below", "JPEG")


@pytest.mark.parametrize("language", LANGUAGES)
def test_second_reader_is_shown_the_other_reading_before_anything_is_recorded(
    language: str, browser: Any, browse: Any, tmp_path: Path
) -> None:
    number, texts = browser.send_case(PICTURE), Texts(language)
    second = browse(browser.app, language)
    second.sign_in("Dr B")
    shown = second.get(f"/ui/cases/{number}").text
    assert browser.read_case(number, "override", "seen in the clinic").status_code == 303
    late = second.read_case(number, "agree", "as it was", shown)
    assert late.status_code == 409
    assert texts.problem("read_meanwhile") in late.text
    assert "seen in the clinic" in late.text
    assert '<a href="#readings">' in late.text
    assert ">as it was</textarea>" in late.text
    assert f"<details open>\n    <summary>{texts('reading.again')}" in late.text
    queue = browser.app.state.page.queue
    assert len(queue.find(number).readings) == 1
    events = b"".join(file.read_bytes() for file in files_of(tmp_path / "audit"))
    assert events.count(b'"event":"reading"') == 1
    assert texts("reading.disputed") not in late.text
    assert second.read_case(number, "agree", "as it was", late.text).status_code == 303
    assert [one.actor.reader for one in queue.find(number).readings] == ["A. Reader", "Dr B"]
    assert texts("reading.disputed") in second.get(f"/ui/cases/{number}").text


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_has_a_case_open_is_said_to_others_until_it_is_read(
    language: str, browser: Any, browse: Any
) -> None:
    number, other, texts = browser.send_case(PICTURE), browser.send_case(PICTURE), Texts(language)
    second = browse(browser.app, language)
    second.sign_in("Dr <b>")
    reader = {"reader": "A. Reader", "time": texts("time.now")}
    in_queue, on_case = texts("queue.opened", **reader), texts("reading.opened", **reader)

    assert in_queue not in second.get("/ui").text
    browser.get(f"/ui/cases/{number}")
    assert second.get("/ui").text.count(in_queue) == 1
    assert on_case in second.get(f"/ui/cases/{number}").text
    assert on_case not in second.get(f"/ui/cases/{other}").text
    assert "Dr &lt;b&gt;" in browser.get("/ui").text  # both are told, and nobody is told of himself
    assert "A. Reader opened" not in browser.get(f"/ui/cases/{number}").text

    browser.read_case(number)
    assert on_case not in second.get(f"/ui/cases/{number}").text


def test_case_that_was_opened_a_while_ago_counts_as_closed(browser: Any, browse: Any) -> None:
    number, second = browser.send_case(PICTURE), browse(browser.app)
    second.sign_in("Dr B")
    queue = browser.app.state.page.queue
    browser.get(f"/ui/cases/{number}")
    clock = queue.now
    queue.now = lambda: clock() + timedelta(minutes=14)
    assert "A. Reader opened this case 14 min ago" in second.get("/ui").text
    queue.now = lambda: clock() + timedelta(minutes=15)
    assert "A. Reader opened" not in second.get("/ui").text
    second.get(f"/ui/cases/{number}")
    browser.get(f"/ui/cases/{number}")
    assert "A. Reader opened this case under a minute ago" in second.get("/ui").text


@pytest.mark.parametrize("what", ["reading", "delete"])
def test_of_two_who_send_at_the_same_moment_one_is_recorded_and_the_other_is_told(
    what: str, browser: Any, browse: Any, tmp_path: Path
) -> None:
    number, second = browser.send_case(PICTURE), browse(browser.app)
    second.sign_in("Dr B")
    if what == "delete":
        browser.read_case(number)
    fields = {"reading": {"decision": "agree", "readings": "0"}, "delete": {"sure": "yes", "records": "1"}}[
        what
    ]

    async def send(reader: Any, form: dict[str, str]) -> int:
        async with reader.async_client() as client:
            return (await client.post(f"/ui/cases/{number}/{what}", data=form)).status_code

    async def story() -> list[int]:
        return await asyncio.gather(*(send(*one) for one in sent))

    sent = [(reader, {"form_token": reader.token(), **fields}) for reader in (browser, second)]
    assert sorted(asyncio.run(story())) == [303, {"reading": 409, "delete": 404}[what]]
    event = {"reading": b"reading", "delete": b"deletion"}[what]
    events = b"".join(file.read_bytes() for file in files_of(tmp_path / "audit"))
    assert events.count(b'"event":"' + event + b'"') == 1
    kept = browser.app.state.page.queue.find_or_none(number)
    assert len(kept.readings) == 1 if what == "reading" else kept is None


def test_reading_of_a_page_that_does_not_say_what_it_showed_is_not_recorded(browser: Any) -> None:
    number = browser.send_case(PICTURE)
    for readings in ({}, {"readings": ""}, {"readings": "1"}, {"readings": "x"}):
        refused = browser.post(f"/ui/cases/{number}/reading", {"decision": "agree", **readings})
        assert refused.status_code == 409
    assert not browser.app.state.page.queue.find(number).is_read


@pytest.mark.parametrize("language", LANGUAGES)
def test_outcome_is_not_recorded_over_one_that_its_reader_has_not_seen(
    language: str, browser: Any, browse: Any
) -> None:
    number, second = browser.send_case(PICTURE), browse(browser.app, language)
    second.sign_in("Dr B")
    browser.read_case(number)
    opened = second.get(f"/ui/cases/{number}").text
    browser.record_outcome(number, "true")
    for page_text in (opened, "no such field"):
        late = second.record_outcome(number, "false", "follow_up", page_text)
        assert late.status_code == 409
        assert Texts(language).problem("outcome_meanwhile") in late.text
        assert 'href="#outcomes"' in late.text
    queue = browser.app.state.page.queue
    assert [one.needs_in_person for one in queue.find(number).outcomes] == [True]
    assert second.record_outcome(number, "false", "follow_up").status_code == 303
    assert [one.needs_in_person for one in queue.find(number).outcomes] == [True, False]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("recorded", ["reading", "outcome"])
def test_case_is_not_deleted_with_a_record_that_the_deleting_reader_has_not_seen(
    recorded: str, language: str, browser: Any, browse: Any, tmp_path: Path
) -> None:
    number, second = browser.send_case(PICTURE), browse(browser.app, language)
    second.sign_in("Dr B")
    browser.read_case(number)
    if recorded == "reading":
        browser.read_case(number, "override", "must be seen")
    else:
        browser.record_outcome(number, "true")
    for records in ("1", "", "x"):
        refused = second.delete_case(number, records=records)
        assert refused.status_code == 409
        assert Texts(language)("delete.meanwhile") in refused.text
    assert browser.app.state.page.queue.find(number).is_read
    events = b"".join(file.read_bytes() for file in files_of(tmp_path / "audit"))
    assert b'"event":"deletion' not in events
    assert second.delete_case(number).status_code == 303


def test_readings_that_agree_with_each_other_are_not_called_contradictory(browser: Any) -> None:
    number = browser.send_case(PICTURE)
    browser.read_case(number)
    browser.read_case(number)
    assert Texts("en")("reading.disputed") not in browser.get(f"/ui/cases/{number}").text


@pytest.mark.parametrize("language", LANGUAGES)
def test_list_of_read_cases_marks_those_whose_readings_contradict_each_other(
    language: str, browser: Any, browse: Any
) -> None:
    disputed, agreed, once = (browser.send_case(PICTURE) for _ in range(3))
    second = browse(browser.app, language)
    second.sign_in("Dr B")
    for reader, number, decision in (
        *((browser, disputed, "override"), (second, disputed, "agree")),
        *((browser, agreed, "agree"), (second, agreed, "agree"), (second, once, "override")),
    ):
        assert reader.read_case(number, decision, "as I saw it").status_code == 303
    rows = {
        number: row
        for row in second.get("/ui/read").text.split("<tr>")
        for number in (disputed, agreed, once)
        if f'href="/ui/cases/{number}"' in row
    }
    mark = Texts(language)("read.disputed")
    assert {number: mark in row for number, row in rows.items()} == {
        disputed: True,
        agreed: False,
        once: False,
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_list_of_read_cases_marks_those_whose_outcomes_contradict_each_other(
    language: str, browser: Any
) -> None:
    browser.language = language
    told = {"true false": True, "true unknown": True, "unknown true": False, "true": False, "": False}
    numbers = {outcomes: browser.send_case(PICTURE) for outcomes in told}
    for outcomes, number in numbers.items():
        browser.read_case(number)
        for needs in outcomes.split():
            how = "not_yet" if needs == "unknown" else "histopathology"
            assert browser.record_outcome(number, needs, how).status_code == 303
    rows = browser.get("/ui/read").text.split("<tr>")
    mark = Texts(language)("read.contradictory")
    for outcomes, number in numbers.items():
        (row,) = [row for row in rows if f'href="/ui/cases/{number}"' in row]
        assert (mark in row) is told[outcomes]
