"""Cases are drawn for follow-up whatever they are, and nobody is told which before they have been read."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import tiny_bundle
from lesion_triage.bundle.forbidden_words import forbidden_words_in
from lesion_triage.bundle.history import History
from lesion_triage.bundle.schema import Disposition
from triage_server.page import export
from triage_server.page.database import migrate_at, open_database
from triage_server.page.records import Actor
from triage_server.page.store import ReadingQueue
from triage_server.page.texts import LANGUAGES

REFERRED, BELOW = (tiny_bundle.picture_bytes(kind, "JPEG") for kind in ("referred", "below"))
READER = Actor("key:0123456789ab", "Dr A")
WANTED = {
    "en": "Drawn at random for follow-up: its outcome is wanted, whatever the answer and the reading were.",
    "de": "Zur Nachverfolgung ausgelost: Der Befund wird gebraucht, unabhängig von Antwort und Lesung.",
}
COUNTED = {
    "en": "Drawn at random for follow-up: {} of {} read cases have a known outcome.",
    "de": "Zur Nachverfolgung ausgelost: {} von {} gelesenen Fällen haben einen bekannten Befund.",
}
HINTS = re.compile(r"at random|follow-up|ausgelost|Nachverfolgung", re.IGNORECASE)
FORM_ID = re.compile(r'name="form_id" value="[^"]+"')


@contextmanager
def opened(address: str, share: float) -> Iterator[ReadingQueue]:
    queue = ReadingQueue(open_database(address), keep_days=30, follow_up_share=share)
    try:
        yield queue
    finally:
        queue.close()


def add(queue: ReadingQueue, answers: Any, history: History | None = None, earlier: str | None = None) -> str:
    number = queue.draw_number()
    queue.add(number, answers, [REFERRED], history or History(), READER.caller, earlier)
    return number


def rarer_than_a_millionth(drawn: int, cases: int, share: Fraction) -> bool:
    """Whether so few, or so many, of independent draws come up less often than once in a million."""

    def probability(counts: range) -> Fraction:
        weights = (comb(cases, k) * share.numerator**k * (1 - share).numerator ** (cases - k) for k in counts)
        return Fraction(sum(weights), share.denominator**cases)

    limit = Fraction(1, 2_000_000)
    return probability(range(drawn + 1)) < limit or probability(range(drawn, cases + 1)) < limit


def test_share_of_cases_is_drawn_whatever_was_answered_and_told(tmp_path: Path, answers: Any) -> None:
    """Of each disposition, with and without a history; and no draw tells of the next."""
    address, share, each = str(tmp_path / "queue.sqlite"), Fraction(3, 10), 200
    kinds = [(said, told) for said in Disposition for told in (History(), History(bleeding=True))]
    with opened(address, float(share)) as queue:
        for _ in range(each):
            for said, told in kinds:
                add(queue, [answers[0].model_copy(update={"disposition": said})], told)
        with queue._engine.connect() as connection:
            rows = connection.execute(text("SELECT drawn, follow_up_share FROM cases ORDER BY id")).all()
    assert {row.follow_up_share for row in rows} == {0.3}
    drawn = [bool(row.drawn) for row in rows]
    assert len(drawn) == each * len(kinds)
    for part in (*Disposition, *{told for _, told in kinds}):
        of_part = [drawn[k :: len(kinds)] for k, kind in enumerate(kinds) if part in kind]
        assert not rarer_than_a_millionth(sum(map(sum, of_part)), each * len(of_part), share), part
    assert not rarer_than_a_millionth(sum(drawn), len(drawn), share)
    pairs = list(zip(drawn[::2], drawn[1::2], strict=True))
    assert not rarer_than_a_millionth(sum(map(all, pairs)), len(pairs), share**2)


def test_all_are_drawn_at_1_and_none_at_0_and_each_case_keeps_its_own_share(
    database_address: str, answers: Any
) -> None:
    migrate_at(database_address)
    found = {}
    for share in (0.0, 1.0, 0.0):
        with opened(database_address, share) as queue:
            found |= {add(queue, answers): share for _ in range(20)}
    with opened(database_address, 0.5) as queue:
        for number, share in found.items():
            case = queue.find(number)
            assert (case.follow_up_share, case.drawn) == (share, share == 1.0)


def test_a_person_is_drawn_as_a_whole(tmp_path: Path, answers: Any) -> None:
    address = str(tmp_path / "queue.sqlite")
    with opened(address, 0.0) as queue:
        undrawn_before = add(queue, answers)
    with opened(address, 0.5) as queue:
        firsts = [add(queue, answers) for _ in range(60)]
    with opened(address, 0.9) as queue:
        for first in firsts:
            cases = [queue.find(number) for number in (first, add(queue, answers, earlier=first))]
            assert [case.follow_up_share for case in cases] == [0.5, 0.5]
            assert cases[0].drawn == cases[1].drawn
            assert cases[0].person == cases[1].person
        assert {queue.find(first).drawn for first in firsts} == {True, False}
    with opened(address, 1.0) as queue:  # nobody was drawn then, so there is nothing to go on with
        later = queue.find(add(queue, answers, earlier=undrawn_before))
        assert (later.follow_up_share, later.drawn) == (1.0, True)


def test_setting_reaches_the_cases_and_is_off_by_default(open_page: Callable[..., Any], browse: Any) -> None:
    for settings, kept in (({}, (0.0, False)), ({"reading_queue_follow_up_share": 1.0}, (1.0, True))):
        browser = browse(open_page(**settings))
        browser.sign_in()
        case = browser.app.state.page.queue.find(browser.send_case(BELOW))
        assert (case.follow_up_share, case.drawn) == kept


# Before a case is read


def all_that_is_shown(browser: Any, number: str) -> dict[str, tuple[int, dict[str, str], bytes]]:
    """Status, header and body of all that the page answers about an unread case, form ids aside."""
    answered = {}
    for language in LANGUAGES:
        browser.language = language
        for path in (
            *("/ui", "/ui/pulse", "/ui/read", "/ui/new", "/ui/certificate", f"/ui?done=sent&case={number}"),
            *(f"/ui/cases/{number}", f"/ui/cases/{number}/photographs/0", "/ui/session"),
        ):
            answered[f"{language} GET {path}"] = browser.get(path)
        refused = {
            "reading": {"decision": "override", "readings": "0"},
            "outcome": {"needs_in_person": "false", "confirmed_by": "consensus", "outcomes": "0"},
            "delete": {"sure": "yes", "records": "0"},
        }
        for form, fields in refused.items():
            response = browser.post(f"/ui/cases/{number}/{form}", fields)
            assert response.status_code in (409, 422)
            answered[f"{language} POST {form}"] = response
        answered[f"{language} POST export"] = browser.post("/ui/export")
    return {
        name: (
            response.status_code,
            {key: value for key, value in response.headers.items() if key != "x-request-id"},
            FORM_ID.sub("", re.sub(r"Request [0-9a-f]+|Anfrage [0-9a-f]+", "", response.text)).encode()
            if response.headers["content-type"].startswith("text/")
            else response.content,
        )
        for name, response in answered.items()
    }


def say_drawn(database: Path, number: str, drawn: bool) -> None:
    with sqlite3.connect(database) as connection:
        changed = connection.execute(
            "UPDATE cases SET drawn = ?, follow_up_share = ? WHERE number = ?", (drawn, drawn / 2, number)
        )
        assert changed.rowcount == 1
    connection.close()


@pytest.mark.parametrize("picture", [REFERRED, BELOW])
def test_nothing_that_is_shown_of_an_unread_case_depends_on_whether_it_was_drawn(
    picture: bytes, browser: Any, tmp_path: Path
) -> None:
    """Beside read cases of which one was drawn, so that the page has something to say of drawn ones."""
    queue, database = browser.app.state.page.queue, tmp_path / "queue.sqlite"
    now = queue.now()
    queue.now = lambda: now
    unread, *read = (browser.send_case(one) for one in (picture, BELOW, REFERRED))
    for number in read:
        browser.read_case(number)
    browser.record_outcome(read[0], "true")
    shown = []
    for drawn in (False, True):
        say_drawn(database, read[1], drawn=True)
        say_drawn(database, unread, drawn=drawn)
        assert (queue.find(unread).drawn, queue.find(unread).outcome_is_wanted) == (drawn, False)
        shown.append(all_that_is_shown(browser, unread))
    assert shown[0] == shown[1]
    of_unread = [body for name, (_, _, body) in shown[1].items() if name.endswith(("/ui", unread))]
    assert len(of_unread) == 3 * len(LANGUAGES)
    assert not any(HINTS.search(body.decode()) for body in of_unread)
    say_drawn(database, read[1], drawn=False)  # of a case that was read, it is told
    differing = {name for name, said in all_that_is_shown(browser, unread).items() if said != shown[1][name]}
    assert differing == {f"{one} {shows}" for one in LANGUAGES for shows in ("GET /ui/read", "POST export")}


def test_drawn_case_and_another_like_it_have_the_same_pages_but_for_their_numbers(
    open_page: Callable[..., Any], browse: Any
) -> None:
    """As they arrive, under one setting and the other, shown by one server and the other."""
    browsers = [browse(open_page(reading_queue_follow_up_share=share)) for share in (0.0, 1.0)]
    now = browsers[0].app.state.page.queue.now()
    for browser in browsers:
        browser.app.state.page.queue.now = lambda: now
        browser.sign_in()
    numbers = [browser.send_case(BELOW, itching="yes") for browser in browsers]
    found = [browsers[0].app.state.page.queue.find(number).drawn for number in numbers]
    assert found == [False, True]
    tokens = re.compile(r'name="form_(?:id|token)" value="[^"]+"')
    pages, entries = set(), set()
    for browser in browsers:
        _, *queued = browser.get("/ui").text.split("</ol>")[0].split('<li class="card entry')
        assert len(queued) == len(numbers)
        entries |= {one.replace(number, "").strip() for number, one in zip(numbers, queued, strict=True)}
        pages |= {tokens.sub("", browser.get(f"/ui/cases/{one}").text).replace(one, "") for one in numbers}
    assert (len(pages), len(entries)) == (1, 1)


def test_audit_log_does_not_say_which_cases_were_drawn(
    open_page: Callable[..., Any], browse: Any, tmp_path: Path
) -> None:
    """Whoever reads cases may read it."""
    lines = []
    for share, folder in ((0.0, "audit"), (1.0, "audit1")):
        browser = browse(open_page(reading_queue_follow_up_share=share))
        browser.sign_in()
        number = browser.send_case(BELOW)
        browser.read_case(number)
        browser.record_outcome(number, "false")
        written = [
            json.loads(line)
            for file in sorted((tmp_path / folder).glob("*.jsonl"))
            for line in file.read_text().splitlines()
        ]
        assert [line["event"] for line in written] == ["answer", "reading", "outcome"]
        lines.append([sorted(line) for line in written])
        assert not any(re.search("drawn|follow_up_share", json.dumps(line)) for line in written)
    assert lines[0] == lines[1]


# After it was read


@pytest.mark.parametrize("language", LANGUAGES)
def test_case_that_was_read_says_that_it_was_drawn_until_its_outcome_is_known(
    language: str, open_page: Callable[..., Any], browse: Any, tmp_path: Path
) -> None:
    browser = browse(open_page(reading_queue_follow_up_share=1.0), language)
    browser.sign_in()
    first, second, other, unread = (browser.send_case(BELOW) for _ in range(4))
    say_drawn(tmp_path / "queue.sqlite", other, drawn=False)
    for number in (other, first, second):
        browser.read_case(number)

    def told() -> tuple[list[str], list[str]]:
        """The cases whose own page says it, and those of which the list does."""
        listed = browser.get("/ui/read").text
        rows = re.findall(r"<tr>\s*<th scope=\"row\">.*?</tr>", listed, re.DOTALL)
        numbers = (first, second, other, unread)
        return (
            [number for number in numbers if WANTED[language] in browser.get(f"/ui/cases/{number}").text],
            [number for number in numbers for row in rows if number in row and WANTED[language] in row],
        )

    counted = COUNTED[language]
    assert told() == ([first, second],) * 2
    assert counted.format(0, 2) in browser.get("/ui/read").text
    browser.record_outcome(first, "unknown", "not_yet")
    assert told() == ([first, second],) * 2
    browser.record_outcome(first, "false")
    assert told() == ([second],) * 2
    assert counted.format(1, 2) in browser.get("/ui/read").text
    browser.record_outcome(first, "unknown", "not_yet")  # takes nothing back
    assert told() == ([second],) * 2
    listed = [case.number for case in browser.app.state.page.queue.read_cases().cases]
    assert listed == [other, second, first]  # as without a draw
    assert forbidden_words_in(language, WANTED[language] + counted) == []


def test_page_says_nothing_of_drawn_cases_where_none_was_drawn(browser: Any) -> None:
    number = browser.send_case(BELOW)
    browser.read_case(number)
    for path in ("/ui/read", f"/ui/cases/{number}"):
        assert not re.search(r"at random", browser.get(path).text)


# Exported


def tables_of(queue: ReadingQueue) -> dict[str, str]:
    content = b"".join(export.zip_chunks(queue, queue.read_cases_with_sizes()))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if "/" not in name}


def rows_of(table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(table)))


def test_follow_up_table_has_a_row_for_each_read_case_and_drawn_table_the_rows_of_the_drawn_ones(
    database_address: str, answers: Any
) -> None:
    migrate_at(database_address)
    with opened(database_address, 0.0) as queue:
        plain, alone = add(queue, answers), add(queue, answers)
    with opened(database_address, 1.0) as queue:
        numbers = [queue.draw_number() for _ in range(3)]
        below = [one.model_copy(update={"disposition": Disposition.below_threshold}) for one in answers]
        for number, said in zip(numbers, (below, answers, answers), strict=True):
            queue.add(number, said, [REFERRED, BELOW], History(), READER.caller, same_person_as=plain)
        missed, open_, unread = numbers
        with queue._engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE answers SET document = '{}' "
                    "WHERE case_id = (SELECT id FROM cases WHERE number = :number)"
                ),
                {"number": open_},
            )
        for number in (plain, alone, missed, open_):
            queue.record_reading(number, READER, "agree", "", readings_seen=0)
        for number, needs in ((plain, False), (alone, True), (missed, True), (open_, None)):
            queue.record_outcome(number, READER, needs, "consensus", 0)
        person, another = (queue.find(number).person for number in (plain, alone))
        assert person != another
        arrived = {number: queue.find(number).urgency.arrived_at for number in (plain, alone, missed, open_)}
        tables = tables_of(queue)
    follow_up = rows_of(tables["follow-up.csv"])
    named = answers[0].certificate_id
    assert tables["follow-up.csv"].splitlines()[0] == (
        "case,patient_id,arrived_at,certificate_id,disposition,follow_up_share,drawn,needs_in_person"
    )
    referred = answers[0].disposition.value
    assert [tuple(row.values()) for row in follow_up] == [
        (
            number,
            patient,
            arrived[number].isoformat(timespec="seconds"),
            certificate,
            said,
            share,
            drawn,
            needs,
        )
        for number, patient, certificate, said, share, drawn, needs in (
            (plain, person, named, referred, "0.0", "false", "false"),
            (alone, another, named, referred, "0.0", "false", "true"),
            (missed, person, named, "below_threshold", "1.0", "true", "true"),
            (open_, person, "", referred, "1.0", "true", ""),
        )
    ]
    assert all(row["arrived_at"].endswith("+00:00") for row in follow_up)
    cases = rows_of(tables["cases.csv"])
    assert {row["lesion_id"] for row in cases} == {plain, alone, missed}
    assert rows_of(tables["drawn.csv"]) == [row for row in cases if row["lesion_id"] == missed]
    assert len(rows_of(tables["drawn.csv"])) == 2  # photographs
    assert not any(unread in table for table in tables.values())
    readme = " ".join(tables["README.txt"].split())
    assert "drawn at random, whatever was answered: 1 of 2 read cases have a known outcome." in readme
    assert "lesion-triage watch BUNDLE --cases follow-up.csv" in readme
    assert "lesion-triage recertify BUNDLE --cases drawn.csv --site NAME" in readme
    assert "Cases that nobody has read yet are in none of these tables." in readme


def test_without_a_drawn_case_there_is_no_drawn_table_and_the_readme_names_none(
    queue: ReadingQueue, answers: Any
) -> None:
    number = add(queue, answers)
    queue.record_reading(number, READER, "agree", "", readings_seen=0)
    queue.record_outcome(number, READER, True, "consensus", 0)
    tables = tables_of(queue)
    assert set(tables) == {"cases.csv", "follow-up.csv", "readings.csv", "outcomes.csv", "README.txt"}
    assert "drawn.csv" not in tables["README.txt"]
    assert "drawn at random, whatever was answered: 0 of 0 read cases" in tables["README.txt"]
