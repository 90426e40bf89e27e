"""What waits on the page is told to whoever watches the server, also while nobody looks at the page."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import httpx_60s
from lesion_triage.bundle.history import NO_HISTORY
from tiny_bundle import picture_bytes
from triage_server.page import queue_metrics
from triage_server.page.database import migrate_at, open_database
from triage_server.page.database_threads import DatabaseThreads
from triage_server.page.queue_metrics import QueueMetrics
from triage_server.page.records import Actor, QueueDepth
from triage_server.page.store import ReadingQueue
from triage_server.telemetry import Telemetry

START = datetime(2026, 1, 1, tzinfo=UTC)
PICTURE = picture_bytes("referred", "JPEG")


def at(queue: ReadingQueue, hours: float) -> None:
    queue.now = lambda: START + timedelta(hours=hours)


def add(queue: ReadingQueue, answers: tuple[Any, ...], deadline_hours: float | None) -> str:
    number = queue.draw_number()
    due = [answer.model_copy(update={"deadline_hours": deadline_hours}) for answer in answers]
    queue.add(number, due, [PICTURE], NO_HISTORY, "key:0123456789ab")
    return number


def test_unread_cases_are_counted_with_those_past_their_deadline(queue: ReadingQueue, answers: Any) -> None:
    at(queue, 0)
    assert queue.depth() == QueueDepth(0, 0, 0.0)
    first = add(queue, answers, 2)
    at(queue, 1)
    add(queue, answers, None)
    assert queue.depth() == QueueDepth(2, 0, 3600.0)
    at(queue, 2)
    assert queue.depth() == QueueDepth(2, 0, 7200.0)  # at its deadline, not past it
    at(queue, 3)
    assert queue.depth() == QueueDepth(2, 1, 10800.0)
    queue.record_reading(first, Actor("key:0123456789ab", "Dr A"), "agree", "", readings_seen=0)
    assert queue.depth() == QueueDepth(1, 0, 7200.0)
    at(queue, -1)  # a clock that was set back
    assert queue.depth() == QueueDepth(1, 0, 0.0)


def gauges(telemetry: Telemetry) -> list[str]:
    text = telemetry.render().decode()
    names = ("waiting", "overdue", "longest_wait_seconds")
    return [re.search(rf"^triage_queue_{name} (\S+)$", text, re.MULTILINE)[1] for name in names]  # type: ignore[index]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.01)


def test_gauges_follow_the_queue_and_are_no_number_while_the_database_says_nothing(
    tmp_path: Path, answers: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(queue_metrics, "_INTERVAL_S", 0.01)
    caplog.set_level(logging.ERROR, "triage_server")
    path = tmp_path / "queue.sqlite"
    migrate_at(str(path))
    queue, threads = ReadingQueue(open_database(str(path)), keep_days=30), DatabaseThreads()
    telemetry = Telemetry("a", "b")
    watch = QueueMetrics(queue, threads.run, telemetry)
    unknown = ["NaN"] * 3
    assert gauges(telemetry) == unknown

    def rename(old: str, new: str) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as base:
            base.execute(f"ALTER TABLE {old} RENAME TO {new}")

    async def go() -> None:
        task = asyncio.create_task(watch.run())
        await until(lambda: gauges(telemetry) == ["0.0"] * 3)
        at(queue, 0)
        add(queue, answers, 1)
        at(queue, 2)
        await until(lambda: gauges(telemetry) == ["1.0", "1.0", "7200.0"])
        rename("cases", "gone")
        await until(lambda: gauges(telemetry) == unknown)
        await asyncio.sleep(0.1)
        rename("gone", "cases")
        await until(lambda: gauges(telemetry) == ["1.0", "1.0", "7200.0"])
        task.cancel()

    asyncio.run(go())
    threads.close()
    queue.close()
    assert [record.getMessage() for record in caplog.records] == [
        "the reading queue cannot be counted: RequestError"
    ]


def test_server_with_a_page_tells_them_and_one_without_has_none(
    start: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    for setting in ({}, {"TRIAGE_READING_QUEUE": str(tmp_path / "queue.sqlite")}):
        with start(tiny_bundle, tmp_path, **setting) as server:
            page = httpx_60s.get(f"{server.url}/metrics").text
            assert ("triage_queue_waiting" in page) == bool(setting)
            assert server.stop() == 0
