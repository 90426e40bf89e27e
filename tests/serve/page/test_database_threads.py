"""Database calls on threads: a burst waits for its turn, and nothing of a call is kept."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from triage_server.page.database import open_database
from triage_server.page.database_threads import MAX_PENDING_CALLS, THREADS, DatabaseThreads
from triage_server.problems import RequestError


@pytest.fixture
def threads() -> Iterator[DatabaseThreads]:
    made = DatabaseThreads(timeout_s=5.0)
    yield made
    made.close()


def test_burst_of_looks_waits_for_its_turn(threads: DatabaseThreads):
    def look(number: int) -> Callable[[], int]:
        return lambda: (time.sleep(0.02), number)[1]

    async def burst() -> list[int]:
        return await asyncio.gather(*(threads.run(look(number)) for number in range(20 * THREADS)))

    assert asyncio.run(burst()) == list(range(20 * THREADS))


def test_calls_beyond_any_burst_are_refused_at_once(threads: DatabaseThreads):
    async def flood() -> list[Any]:
        calls = [threads.run(lambda: time.sleep(0.01)) for _ in range(MAX_PENDING_CALLS + 1)]
        return await asyncio.gather(*calls, return_exceptions=True)

    *served, last = asyncio.run(flood())
    assert served == [None] * MAX_PENDING_CALLS
    assert isinstance(last, RequestError)
    assert last.code == "queue_unavailable"


class Photograph:
    """Something that can be seen to have gone."""


def test_nothing_of_a_call_is_kept_by_its_thread(threads: DatabaseThreads):
    async def story() -> None:
        brought, found = Photograph(), [Photograph()]
        kept = [weakref.ref(brought), weakref.ref(found[0])]
        await threads.run(lambda brought=brought: None)  # type: ignore[misc]
        del brought
        await threads.run(found.pop)
        deadline = time.monotonic() + 5
        while any(one() for one in kept):
            assert time.monotonic() < deadline, kept
            gc.collect()
            await asyncio.sleep(0.01)

    asyncio.run(story())


def test_each_thread_has_a_connection_that_is_kept(tmp_path: Path):
    engine = open_database(str(tmp_path / "queue.sqlite"))
    assert engine.pool.size() == THREADS  # type: ignore[attr-defined]
    engine.dispose()
