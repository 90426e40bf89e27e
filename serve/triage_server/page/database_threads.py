"""The page's own threads for database calls, with a time limit.

Imports the problems. A database that hangs must hold up only the page: not the threads of other modules, and
not the shutdown of the server.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from triage_server.problems import RequestError

Result = TypeVar("Result")

THREADS = 8
"""Threads; the engine keeps a connection open for each."""
MAX_PENDING_CALLS = 64 * THREADS
"""Calls that may be running or waiting at once. A case's page requests eight photographs together, so a few
readers make a burst, which waits. Bytes of photographs are counted by the pool."""
CALL_TIMEOUT_S = 12.0
"""Longer than the database's own statement timeout, so that the database reports it first."""
_SHUTDOWN_S = 3.0
_running = threading.local()


@dataclass(slots=True)
class _Call:
    work: Callable[[], Any] | None
    """None: nobody waits for it any more, and what it held has been released."""
    future: asyncio.Future[Any]


class DatabaseThreads:
    """Threads for blocking work. The count of calls belongs to the event loop."""

    def __init__(self, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._pending = 0
        # Daemons, so that a database that never answers cannot keep the server from ending.
        self._threads = [
            threading.Thread(target=self._run_calls, name=f"database-{number}", daemon=True)
            for number in range(THREADS)
        ]

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run blocking work on a thread.

        Raises:
            RequestError: ``queue_unavailable``: it was not done in time, or too much is waiting already. The
                work is then not done later either: see ``is_abandoned``.
        """
        if self._pending >= MAX_PENDING_CALLS:
            raise queue_unavailable()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()
        self._pending += 1
        call = _Call(work, future)
        self._calls.put(call)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError:
            raise queue_unavailable() from None
        finally:
            self._pending -= 1
            call.work = None

    def close(self) -> None:
        """Stop the threads. Those held up by a database are waited for briefly, then left behind."""
        for _ in self._threads:
            self._calls.put(None)
        deadline = time.monotonic() + _SHUTDOWN_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run_calls(self) -> None:
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for a call and run it; False: none will come. A function: no local keeps its data alive."""
        call = self._calls.get()
        if call is None:
            return False
        work, future = call.work, call.future
        if work is None or future.cancelled():
            return True
        _running.future = future
        try:
            result, error = work(), None
        except Exception as raised:
            result, error = None, raised
        finally:
            _running.future = None
        with suppress(RuntimeError):  # the loop has ended
            future.get_loop().call_soon_threadsafe(_set_result, future, result, error)
        return True


def is_abandoned() -> bool:
    """Whether nobody waits any more for what this thread is doing."""
    future: asyncio.Future[Any] | None = getattr(_running, "future", None)
    return future is not None and future.cancelled()


def queue_unavailable() -> RequestError:
    """The refusal when the database does not answer."""
    return RequestError("queue_unavailable", headers={"Retry-After": "5"})


def _set_result(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():  # the request has gone
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
