"""Deletes expired cases, once an hour. Imports the queue and the problems."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from triage_server.page.case_locks import CaseLocks
from triage_server.page.store import ReadingQueue
from triage_server.problems import RequestError

_INTERVAL_S = 3600.0
_MAX_FAILURES = 3
"""In a row; then the cause is not the cases, and each further failure would only fill the log."""

log = logging.getLogger("triage_server")


class Retention:
    """Deletes expired cases. Belongs to the event loop; database calls run on threads."""

    def __init__(
        self,
        queue: ReadingQueue,
        run_in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        record: Callable[[str, str], Awaitable[None]],
        case_locks: CaseLocks,
    ) -> None:
        """Does not start the task.

        Args:
            queue: has the cases.
            run_in_thread: runs a database call.
            record: writes ``deletion`` or ``deletion_failed`` of the case of this number to the audit log.
            case_locks: locks shared with readers who change a case.
        """
        self._queue, self._run_in_thread = queue, run_in_thread
        self._record, self._case_locks = record, case_locks

    async def run(self) -> None:
        """Delete expired cases until cancelled: now, and then once an hour."""
        while True:
            try:
                await self.delete_expired_cases()
            except Exception as error:  # it may have recovered by the next round
                _log_error("expired cases could not be deleted; next attempt within the hour", error)
            try:
                # Even if nothing was deleted now: an earlier round may have met a reader, or a kill.
                await self._run_in_thread(self._queue.empty_journal)
            except Exception as error:
                _log_error(
                    "the reading queue's journal could not be emptied; next attempt within the hour", error
                )
            await asyncio.sleep(_INTERVAL_S)

    async def delete_expired_cases(self) -> int:
        """Delete all expired cases, each after its line in the audit log; returns how many.

        Raises:
            RequestError: nothing can be recorded, or the database fails; earlier deletions stand.
        """
        deleted, in_a_row = 0, 0
        for number in await self._run_in_thread(self._queue.expired_numbers):
            try:
                async with self._case_locks.lock(number):
                    deleted += await self._delete_if_expired(number)
            except Exception as error:  # the other cases must not wait for this one
                in_a_row += 1
                if in_a_row == _MAX_FAILURES:
                    raise
                _log_error("an expired case could not be deleted and is kept for now", error)
            else:
                in_a_row = 0
        return deleted

    async def _delete_if_expired(self, number: str) -> bool:
        """Delete one case, unless somebody has deleted it or recorded something in the meantime."""
        if not await self._run_in_thread(partial(self._queue.is_expired, number)):
            return False
        await self._record("deletion", number)
        deleted: bool = False
        try:
            deleted = await self._run_in_thread(partial(self._queue.delete_expired_case, number))
        finally:
            if not deleted:  # another server's reader was quicker, or the database failed
                await self._record("deletion_failed", number)
        return deleted


def _log_error(what: str, error: Exception) -> None:
    """Log an error without the text of an exception, which may quote data."""
    if isinstance(error, RequestError):
        log.error("%s: %s", what, error.code)
    else:
        log.error("%s", what, exc_info=error)
