"""Deletes expired cases, once an hour. Imports the queue and the problems."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from triage_server.page.case_locks import CaseLocks
from triage_server.page.store import Queue
from triage_server.problems import RequestError

_LOOK_EVERY_S = 3600.0
_MOST_FAILURES = 3
"""In a row; then the cause is not the cases, and each further failure would only fill the log."""

log = logging.getLogger("triage_server")


class Retention:
    """Deletes expired cases. Belongs to the event loop; database calls run beside it."""

    def __init__(
        self,
        queue: Queue,
        run_in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        record: Callable[[str, str], Awaitable[None]],
        case_locks: CaseLocks,
    ) -> None:
        """Does not start the task.

        Args:
            queue: has the cases.
            beside: runs a database call.
            record: writes ``deletion`` or ``deletion_failed`` of the case of this number to the audit log.
            turns: locks shared with readers who change a case.
        """
        self._queue, self._run_in_thread, self._record, self._case_locks = queue, run_in_thread, record, case_locks

    async def work(self) -> None:
        """Delete expired cases until cancelled: now, and then once an hour."""
        while True:
            try:
                await self.forget_expired()
            except Exception as error:  # it may have recovered by the next round
                _tell("expired cases could not be deleted; next attempt within the hour", error)
            try:
                # Even if nothing was deleted now: an earlier round may have met a reader, or a kill.
                await self._run_in_thread(self._queue.empty_journal)
            except Exception as error:
                _tell("the reading queue's journal could not be emptied; next attempt within the hour", error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def forget_expired(self) -> int:
        """Delete all expired cases, each after its line in the audit log; returns how many.

        Raises:
            RequestError: nothing can be recorded, or the database fails; earlier deletions stand.
        """
        forgotten, in_a_row = 0, 0
        for number in await self._run_in_thread(self._queue.expired):
            try:
                async with self._case_locks.lock(number):
                    forgotten += await self._forget(number)
            except Exception as error:  # the other cases must not wait for this one
                in_a_row += 1
                if in_a_row == _MOST_FAILURES:
                    raise
                _tell("an expired case could not be deleted and is kept for now", error)
            else:
                in_a_row = 0
        return forgotten

    async def _forget(self, number: str) -> bool:
        """Delete one case, unless somebody has deleted it or recorded something in the meantime."""
        if not await self._run_in_thread(partial(self._queue.is_expired, number)):
            return False
        await self._record("deletion", number)
        done: bool = False
        try:
            done = await self._run_in_thread(partial(self._queue.take_out_expired, number))
        finally:
            if not done:  # another server's reader was quicker, or the database failed
                await self._record("deletion_failed", number)
        return done


def _tell(what: str, error: Exception) -> None:
    """Log an error without the text of an exception, which may quote data."""
    if isinstance(error, RequestError):
        log.error("%s: %s", what, error.code)
    else:
        log.error("%s", what, exc_info=error)
