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

CLERKS = 8
"""Threads; the engine keeps a connection open for each."""
MOST = 64 * CLERKS
"""Calls that may be running or waiting at once. A case's page requests eight photographs together, so a few
readers make a burst, which waits. Bytes of photographs are counted by the pool."""
PATIENCE_S = 12.0
"""Longer than the database's own statement timeout, so that the database reports it first."""
_AT_THE_END_S = 3.0
_here = threading.local()


@dataclass(slots=True)
class _Errand:
    work: Callable[[], Any] | None
    """None: nobody waits for it any more, and what it held has been released."""
    future: asyncio.Future[Any]


class Clerks:
    """Threads for blocking work. The count of calls belongs to the event loop."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience = patience_s
        self._errands: SimpleQueue[_Errand | None] = SimpleQueue()
        self._here = 0
        # Daemons, so that a database that never answers cannot keep the server from ending.
        self._threads = [
            threading.Thread(target=self._work, name=f"clerk-{number}", daemon=True)
            for number in range(CLERKS)
        ]

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run blocking work beside the event loop.

        Raises:
            RequestError: ``queue_unavailable``: it was not done in time, or too much is waiting already. The
                work is then not done later either: see ``abandoned``.
        """
        if self._here >= MOST:
            raise unavailable()
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        for thread in self._threads:
            if thread.ident is None:
                thread.start()
        self._here += 1
        errand = _Errand(work, future)
        self._errands.put(errand)
        try:
            async with asyncio.timeout(self._patience):
                return await future
        except TimeoutError:
            raise unavailable() from None
        finally:
            self._here -= 1
            errand.work = None

    def close(self) -> None:
        """Stop the threads. Those held up by a database are waited for briefly, then left behind."""
        for _ in self._threads:
            self._errands.put(None)
        patience_ends = time.monotonic() + _AT_THE_END_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, patience_ends - time.monotonic()))

    def _work(self) -> None:
        while self._round():
            pass

    def _round(self) -> bool:
        """Wait for a call and run it; False: none will come. A function: no local keeps its data alive."""
        errand = self._errands.get()
        if errand is None:
            return False
        work, future = errand.work, errand.future
        if work is None or future.cancelled():
            return True
        _here.future = future
        try:
            result, error = work(), None
        except Exception as raised:
            result, error = None, raised
        finally:
            _here.future = None
        with suppress(RuntimeError):  # the loop has ended
            future.get_loop().call_soon_threadsafe(_tell, future, result, error)
        return True


def abandoned() -> bool:
    """Whether nobody waits any more for what this thread is doing."""
    future: asyncio.Future[Any] | None = getattr(_here, "future", None)
    return future is not None and future.cancelled()


def unavailable() -> RequestError:
    """The refusal when the database does not answer."""
    return RequestError("queue_unavailable", headers={"Retry-After": "5"})


def _tell(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():  # the request has gone
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
