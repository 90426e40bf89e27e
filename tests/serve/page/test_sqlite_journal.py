"""What was deleted leaves SQLite's journal as soon as nobody reads the file, and nobody waits for that."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import tiny_bundle
from triage_server.page import retention
from triage_server.page.database import open_database
from triage_server.page.store import ReadingQueue

PICTURE = tiny_bundle.picture_bytes("referred", "JPEG")


def files_containing(folder: Path, photograph: bytes) -> list[str]:
    """Files of the database in which some of it can be found."""
    piece = photograph[-200:]
    return sorted(file.name for file in folder.glob("queue.sqlite*") if piece in file.read_bytes())


@contextmanager
def open_reader(folder: Path) -> Iterator[None]:
    """Another program, that makes a copy for instance."""
    with closing(sqlite3.connect(folder / "queue.sqlite")) as base:
        base.execute("BEGIN")
        base.execute("SELECT count(*) FROM cases").fetchone()
        yield
        base.rollback()


@pytest.fixture
def read(browser: Any) -> tuple[Any, str, bytes]:
    """The page, a case on it that was read, and its photograph as it lies in the database."""
    number = browser.send_case(PICTURE)
    browser.read_case(number)
    page = browser.app.state.page
    return page, number, page.queue.photograph(number, 0)[1]


def journal_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if "journal" in one.getMessage()]


def test_reader_of_the_file_holds_up_neither_a_deletion_nor_who_writes(
    browser: Any, read: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page, number, photograph = read
    with open_reader(tmp_path):
        began = time.monotonic()
        assert browser.delete_case(number).status_code == 303
        browser.read_case(browser.send_case(PICTURE))
        assert time.monotonic() - began < 5
        assert files_containing(tmp_path, photograph) != []
    (said,) = journal_lines(caplog)
    assert said.endswith("another program is reading the database")
    assert number not in said
    with page.queue._engine.connect() as connection:  # who has it next is as patient as ever
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000


def test_journal_is_emptied_within_a_round_of_the_reader_s_leave(
    read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    page, number, photograph = read
    monkeypatch.setattr(retention, "_INTERVAL_S", 0.1)

    async def story() -> None:
        async with page.open():
            with open_reader(tmp_path):
                await page.run_in_thread(lambda: page.queue.delete(number))
                await asyncio.sleep(1.0)  # some rounds
                assert files_containing(tmp_path, photograph) != []
            end = time.monotonic() + 10
            while files_containing(tmp_path, photograph):
                assert time.monotonic() < end
                await asyncio.sleep(0.05)

    asyncio.run(story())
    assert len(journal_lines(caplog)) > 1


def test_what_a_killed_server_left_in_the_journal_is_gone_with_the_next_start(
    read: Any, open_page: Any, tmp_path: Path
) -> None:
    page, number, photograph = read
    page.close()
    pid = os.fork()
    if pid == 0:  # the child dies before it empties the journal, and closes nothing
        killed = ReadingQueue(open_database(str(tmp_path / "queue.sqlite")), keep_days=-1)
        os._exit(9 if killed.delete_expired_case(number) else 1)
    assert os.waitpid(pid, 0)[1] == 9 << 8
    assert files_containing(tmp_path, photograph) != []
    again = open_page().state.page

    async def story() -> None:
        async with again.open():
            end = time.monotonic() + 10
            while files_containing(tmp_path, photograph):
                assert time.monotonic() < end
                await asyncio.sleep(0.05)

    asyncio.run(story())
