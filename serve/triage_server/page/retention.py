"""What was kept for long enough is forgotten, once an hour. Imports the queue and the problems."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from triage_server.page.store import Queue
from triage_server.page.turns import Turns
from triage_server.problems import RequestError

_LOOK_EVERY_S = 3600.0
_MOST_FAILURES = 3
"""In a row; by then it is not the cases, and each further one would have a line in the log for nothing."""

log = logging.getLogger("triage_server")


class Retention:
    """Forgets what is too old. Belongs to the event loop, and asks the database beside it."""

    def __init__(
        self,
        queue: Queue,
        beside: Callable[[Callable[[], Any]], Awaitable[Any]],
        record: Callable[[str, str], Awaitable[None]],
        turns: Turns,
    ) -> None:
        """Does not start the task.

        Args:
            queue: has the cases.
            beside: runs what asks the database.
            record: writes an event down, ``deletion`` or ``deletion_failed``, of the case of this number.
            turns: that readers take too, who change a case.
        """
        self._queue, self._beside, self._record, self._turns = queue, beside, record, turns

    async def work(self) -> None:
        """Forget until cancelled: now, and then once an hour."""
        while True:
            try:
                await self.forget_expired()
            except Exception as error:  # the next look may find it mended
                _tell("the reading queue forgets later", error)
            try:
                # Also where nothing was deleted now: a reader of the file, or a kill, came between.
                await self._beside(self._queue.empty_journal)
            except Exception as error:
                _tell("the reading queue's journal is emptied later", error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def forget_expired(self) -> int:
        """Delete what was kept for long enough, each with its line in the audit log first; says how many.

        Raises:
            RequestError: nothing can be recorded, or the database takes nothing; what was deleted by then is.
        """
        forgotten, in_a_row = 0, 0
        for number in await self._beside(self._queue.expired):
            try:
                async with self._turns.of(number):
                    forgotten += await self._forget(number)
            except Exception as error:  # the others are not to wait for this one
                in_a_row += 1
                if in_a_row == _MOST_FAILURES:
                    raise
                _tell("a case is kept for longer than it should be", error)
            else:
                in_a_row = 0
        return forgotten

    async def _forget(self, number: str) -> bool:
        """Delete one case, unless a reader was quicker, who deleted it or told an outcome."""
        if not await self._beside(partial(self._queue.is_expired, number)):
            return False
        await self._record("deletion", number)
        done: bool = False
        try:
            done = await self._beside(partial(self._queue.take_out_expired, number))
        finally:
            if not done:  # a reader of another server was quicker, or the database did not do it
                await self._record("deletion_failed", number)
        return done


def _tell(what: str, error: Exception) -> None:
    """In the log, without what an exception's text may quote."""
    if isinstance(error, RequestError):
        log.error("%s: %s", what, error.code)
    else:
        log.error("%s", what, exc_info=error)
