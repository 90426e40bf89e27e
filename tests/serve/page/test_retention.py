"""What is too old is forgotten whatever one case, one disk or one reader of the file does."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from lesion_triage.bundle.history import NO_HISTORY
from lesion_triage.bundle.scorer import Scorer
from triage_server.page import retention
from triage_server.page.case_locks import CaseLocks
from triage_server.page.database import open_database
from triage_server.page.records import Actor
from triage_server.page.retention import Retention
from triage_server.page.store import ReadingQueue

READER = Actor("key:0123456789ab", "Dr A")
PICTURE = tiny_bundle.picture_bytes("referred", "JPEG")


@pytest.fixture(scope="module")
def answers(tiny_bundle: Path) -> tuple[Any, ...]:
    scorer = Scorer.open(tiny_bundle)
    judged = scorer.decide_case([PICTURE], NO_HISTORY)
    return (scorer.answer(judged, NO_HISTORY, scorer.languages.catalogue("en")),)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[ReadingQueue]:
    made = ReadingQueue(open_database(str(tmp_path / "queue.sqlite")), keep_days=30)
    yield made
    made.close()


def read_case(queue: ReadingQueue, answers: Any, photograph: bytes = PICTURE) -> str:
    """Its number."""
    number = queue.draw_number()
    queue.add(number, answers, [photograph], NO_HISTORY, READER.caller)
    queue.record_reading(number, READER, "agree", "", readings_seen=0)
    return number


def last_of_a_large_file(folder: Path, queue: ReadingQueue, answers: Any) -> str:
    """Number of a read case that lies behind three others, with the journal empty."""
    for _ in range(3):
        queue.add(queue.draw_number(), answers, [os.urandom(300_000)], NO_HISTORY, READER.caller)
    number = read_case(queue, answers, os.urandom(300_000))
    execute_sql(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
    return number


LIMIT_BYTES = 700_000
"""Room for the journal of its deletion, and none for its pages at the end of that file."""


def advance_clock(queue: ReadingQueue, days: int = 100) -> None:
    """So much time goes by."""
    clock = queue.now
    queue.now = lambda: clock() + timedelta(days=days)


def is_deleted(queue: ReadingQueue, number: str) -> bool:
    return queue.find_or_none(number) is None


def make_retention(queue: ReadingQueue, record: Callable[[str], None] = lambda _: None) -> Retention:
    async def run_in_thread(work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)

    async def written(event: str, number: str) -> None:
        if event == "deletion":
            record(number)

    return Retention(queue, run_in_thread, written, CaseLocks())


def execute_sql(folder: Path, *said: str) -> None:
    with closing(sqlite3.connect(folder / "queue.sqlite", timeout=10)) as base, base:
        for one in said:
            base.execute(one)


@contextmanager
def full_disk(largest_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond that, or is written there."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def test_deletion_is_done_though_the_disk_does_not_let_the_journal_go(
    browser: Any, answers: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    queue = browser.app.state.page.queue
    number = last_of_a_large_file(tmp_path, queue, answers)
    with full_disk(LIMIT_BYTES):
        done = browser.delete_case(number)
    assert (done.status_code, is_deleted(queue, number)) == (303, True)
    (said,) = [record.getMessage() for record in caplog.records if "journal" in record.getMessage()]
    assert number not in said


def test_full_disk_does_not_end_the_forgetting(
    browser: Any, answers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_INTERVAL_S", 0.1)
    page = browser.app.state.page
    first = last_of_a_large_file(tmp_path, page.queue, answers)
    advance_clock(page.queue)

    async def story() -> None:
        async with page.open():
            with full_disk(LIMIT_BYTES):
                await wait_until(lambda: is_deleted(page.queue, first))
            second = read_case(page.queue, answers)
            advance_clock(page.queue)
            await wait_until(lambda: is_deleted(page.queue, second))

    asyncio.run(story())
    assert all(not thread.is_alive() for thread in page._database_threads._threads)


def events(folder: Path) -> list[str]:
    """Of the audit log, about what was deleted."""
    text = "".join(file.read_text() for file in sorted((folder / "audit").glob("*.jsonl")))
    found = [json.loads(line)["event"] for line in text.splitlines()]
    return [event for event in found if event.startswith("deletion")]


async def wait_until(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(what):
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


def test_case_that_cannot_be_deleted_holds_up_no_other(
    queue: ReadingQueue, answers: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, *others = [read_case(queue, answers) for _ in range(3)]
    advance_clock(queue)
    execute_sql(tmp_path, "UPDATE cases SET arrived_at = 'Zz' WHERE id = 1")
    assert asyncio.run(make_retention(queue).delete_expired_cases()) == 2
    assert all(is_deleted(queue, number) for number in others)
    assert [record.getMessage() for record in caplog.records] == [
        "an expired case could not be deleted and is kept for now"
    ]
    execute_sql(tmp_path, "UPDATE cases SET arrived_at = '2020-01-01 00:00:00'")
    assert asyncio.run(make_retention(queue).delete_expired_cases()) == 1
    assert is_deleted(queue, broken)


def test_case_that_a_reader_deletes_meanwhile_holds_up_no_other_and_is_no_error(
    queue: ReadingQueue, answers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = [read_case(queue, answers) for _ in range(3)]
    advance_clock(queue)

    def reader(number: str) -> None:
        if number == numbers[0]:
            queue.delete(number)

    assert asyncio.run(make_retention(queue, reader).delete_expired_cases()) == 2
    assert all(is_deleted(queue, number) for number in numbers)
    assert caplog.records == []


def test_database_that_takes_nothing_gets_three_lines_in_the_audit_log_and_is_tried_again(
    browser: Any, answers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    page = browser.app.state.page
    numbers = [read_case(page.queue, answers) for _ in range(7)]
    advance_clock(page.queue)
    execute_sql(tmp_path, "CREATE TRIGGER full BEFORE DELETE ON cases BEGIN SELECT RAISE(FAIL, 'full'); END")

    async def story() -> None:
        async with page.open():
            await wait_until(
                lambda: any("next attempt within the hour" in one.getMessage() for one in caplog.records)
            )
            assert events(tmp_path) == ["deletion", "deletion_failed"] * 3
            execute_sql(tmp_path, "DROP TRIGGER full")
            monkeypatch.setattr(retention, "_INTERVAL_S", 0.1)

    asyncio.run(story())
    assert not any(is_deleted(page.queue, number) for number in numbers)
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == [
        "an expired case could not be deleted and is kept for now: queue_unavailable",
        "an expired case could not be deleted and is kept for now: queue_unavailable",
        "expired cases could not be deleted; next attempt within the hour: queue_unavailable",
    ]


def test_outcome_that_is_told_while_old_cases_are_deleted_keeps_its_case(
    queue: ReadingQueue, answers: Any
) -> None:
    numbers = [read_case(queue, answers) for _ in range(3)]
    advance_clock(queue)

    def reader(number: str) -> None:
        if number == numbers[1]:
            queue.record_outcome(number, READER, True, "histopathology", 0)

    assert asyncio.run(make_retention(queue, reader).delete_expired_cases()) == 2
    assert [is_deleted(queue, number) for number in numbers] == [True, False, True]


def test_case_that_a_reader_tells_an_outcome_of_first_has_no_line_that_it_was_deleted(
    browser: Any, answers: Any, tmp_path: Path
) -> None:
    page = browser.app.state.page
    number, forgotten = read_case(page.queue, answers), read_case(page.queue, answers)
    advance_clock(page.queue)
    listed = page.queue.expired_numbers

    def expired_then_outcome() -> list[str]:
        found = listed()
        page.queue.record_outcome(number, READER, True, "histopathology", 0)
        return found

    page.queue.expired_numbers = expired_then_outcome
    assert asyncio.run(page.retention.delete_expired_cases()) == 1
    assert (is_deleted(page.queue, number), is_deleted(page.queue, forgotten)) == (False, True)
    assert events(tmp_path) == ["deletion"]


def test_case_that_another_server_s_reader_keeps_has_a_line_that_says_so(
    queue: ReadingQueue, answers: Any
) -> None:
    """Between the line and the deletion, where no lock of this server reaches."""
    number, written = read_case(queue, answers), []
    advance_clock(queue)

    async def run_in_thread(work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)

    async def record(event: str, of: str) -> None:
        written.append(event)
        if event == "deletion":
            queue.record_outcome(of, READER, True, "histopathology", 0)

    assert asyncio.run(Retention(queue, run_in_thread, record, CaseLocks()).delete_expired_cases()) == 0
    assert not is_deleted(queue, number)
    assert written == ["deletion", "deletion_failed"]
