"""Who speaks with the database: a few threads of the page's own, and a limit to everybody's patience.

Imports the problems. A database that does not answer must hold up nothing but the page: neither the threads
of other rooms, nor an end of the server.
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
"""The engine keeps a connection open for each."""
MOST = 64 * CLERKS
"""Errands that may be here at once. A case's page asks for eight photographs in one go, so that a few readers
make a burst; it waits for its turn. Bytes of photographs that are brought are counted by the pool."""
PATIENCE_S = 12.0
"""Longer than a statement may run on the database, which then says so itself."""
_AT_THE_END_S = 3.0
_here = threading.local()


@dataclass(slots=True)
class _Errand:
    work: Callable[[], Any] | None
    """None: nobody waits for it any more, and what it held is let go."""
    future: asyncio.Future[Any]


class Clerks:
    """Threads that run what blocks. Their count belongs to the event loop."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience = patience_s
        self._errands: SimpleQueue[_Errand | None] = SimpleQueue()
        self._here = 0
        # Daemons: a database that never answers must not keep the server from its end.
        self._threads = [
            threading.Thread(target=self._work, name=f"clerk-{number}", daemon=True)
            for number in range(CLERKS)
        ]

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run something that blocks, beside the event loop.

        Raises:
            RequestError: ``queue_unavailable``: it was not done in time, or too much waits already. What was
                not done by then is not done later: see ``abandoned``.
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
        """Let the threads go; those that a database holds are waited for a moment, and then left behind."""
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
        """Wait for an errand and run it; False: there will be none. A function: nothing of it is kept."""
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
    """Whether nobody waits any more for what this thread does."""
    future: asyncio.Future[Any] | None = getattr(_here, "future", None)
    return future is not None and future.cancelled()


def unavailable() -> RequestError:
    """The database does not answer."""
    return RequestError("queue_unavailable", headers={"Retry-After": "5"})


def _tell(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():  # whoever asked has gone
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
