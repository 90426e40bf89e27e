"""Delivers the outbox: each answer is tried until it is accepted or given up (at-least-once delivery).

Imports the outbox, the delivery, the audit log and the counters.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from lesion_triage.errors import AuditLogError
from triage_server.audit_log import AuditLog
from triage_server.telemetry import Telemetry
from triage_server.timestamps import format_timestamp
from triage_server.webhooks.callbacks import Callback, Callbacks
from triage_server.webhooks.delivery import Reply, deliver
from triage_server.webhooks.outbox import LONGEST_PAUSE_S, OutboxEntry, OutboxThread, decrypt_answer

Outcome = Literal["delivered", "undelivered"]
HTTP_GONE = 410
"""The receiver wants no more attempts."""
_PAUSE_GROWTH = 3.0
_MAX_CONCURRENT = 4
"""Concurrent deliveries to one callback: one that hangs delays only its own answers."""
_SWEEP_INTERVAL_S = 30.0
"""The ``retry`` subcommand, in another process, may have made entries pending again."""
_DRAIN_S = 5.0

log = logging.getLogger("triage_server")


@dataclass(slots=True)
class _UnsavedProgress:
    """What was done with an entry and could not be written to the outbox; lost with the process."""

    attempts: int = 0
    """Attempts."""
    outcome: tuple[Outcome, int | None] | None = None
    """Its outcome, if that has its line in the audit log: then it must not be sent again."""
    save_failures: int = 0
    """How often the outbox could not be written."""
    retry_at: float = 0.0
    """When to continue, in seconds since 1970."""


class Dispatcher:
    """Delivers on the event loop, from ``run`` to ``stop``."""

    def __init__(
        self,
        callbacks: Callbacks,
        outbox: OutboxThread,
        audit: AuditLog,
        telemetry: Telemetry,
        keep_s: float,
        first_pause_s: float,
    ) -> None:
        """Arguments as for ``WebhookService``."""
        self._callbacks, self._outbox, self._audit, self._telemetry = callbacks, outbox, audit, telemetry
        self._keep_s, self._first_pause_s = keep_s, first_pause_s
        self._wake_event = asyncio.Event()
        self._in_flight: dict[str, tuple[Callback, asyncio.Task[None]]] = {}
        self._unsaved: dict[str, _UnsavedProgress] = {}
        self._faults: dict[str, str] = {}
        """By callback: why the last attempt failed; none: it did not."""
        self._drain_deadline = math.inf
        self._last_sweep = -math.inf

    def wake(self) -> None:
        """Look again: something may be due."""
        self._wake_event.set()

    async def run(self) -> None:
        """Deliver until stopped; then finish, for a few seconds, what is due or in progress."""
        while True:
            self._wake_event = asyncio.Event()  # not woken since this round began
            pause = await self._dispatch_due()
            stopping = self._drain_deadline < math.inf
            if stopping and not self._in_flight and pause > 0:
                return
            if time.monotonic() >= self._drain_deadline:
                await self._cancel_in_flight()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1 if stopping else pause):
                    await self._wake_event.wait()

    def stop(self) -> None:
        """Begin to stop; what is not delivered in time waits for the next start."""
        self._drain_deadline = time.monotonic() + _DRAIN_S
        self.wake()

    async def _cancel_in_flight(self) -> None:
        tasks = [task for _, task in self._in_flight.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _dispatch_due(self) -> float:
        """Give up, delete and deliver what is due; returns seconds until something may be due."""
        pause = _SWEEP_INTERVAL_S
        if time.monotonic() - self._last_sweep >= _SWEEP_INTERVAL_S:
            self._last_sweep = time.monotonic()
            try:
                await self._sweep()
            except Exception as error:  # deliveries go on
                log.error("expired answers in the outbox could not be given up or deleted", exc_info=error)
        try:
            for callback in self._callbacks.by_name.values():
                pause = min(pause, await self._start_deliveries(callback))
        except Exception as error:  # the disk may work again next time
            log.error("deliveries are delayed", exc_info=error)
        return pause

    async def _start_deliveries(self, callback: Callback) -> float:
        """Begin as many deliveries as are allowed; returns seconds until the next can begin."""
        busy = {case_id for case_id, (one, _) in self._in_flight.items() if one is callback}
        now, slots = time.time(), _MAX_CONCURRENT - len(busy)
        excluded = busy | {case_id for case_id, progress in self._unsaved.items() if progress.retry_at > now}
        if slots > 0:
            entries = await self._outbox.run(lambda box: box.due(callback.name, now, slots, excluded))
            for entry in entries:
                task = asyncio.create_task(self._process(callback, entry))
                self._in_flight[entry.case_id] = (callback, task)
                excluded.add(entry.case_id)
            busy.update(entry.case_id for entry in entries)
        if len(busy) >= _MAX_CONCURRENT:
            return math.inf  # the first to finish wakes us
        due = await self._outbox.run(lambda box: box.next_at(callback.name, excluded))
        retries = [progress.retry_at for progress in self._unsaved.values() if progress.retry_at > now]
        return max(0.0, min([math.inf if due is None else due, *retries]) - time.time())

    async def _process(self, callback: Callback, entry: OutboxEntry) -> None:
        try:
            with self._tracking_progress(entry) as progress:
                if progress.outcome is None:
                    await self._attempt(callback, entry, progress)
                else:
                    await self._settle(entry, progress, *progress.outcome)
        finally:
            self._in_flight.pop(entry.case_id, None)
            self.wake()

    @contextmanager
    def _tracking_progress(self, entry: OutboxEntry) -> Iterator[_UnsavedProgress]:
        """Remember what was done with an entry if the outbox cannot be written, and pause that entry."""
        progress = self._unsaved.setdefault(entry.case_id, _UnsavedProgress())
        try:
            yield progress
        except Exception as error:  # the entry stays in the outbox and is tried again
            log.error("delivery failed", exc_info=error, extra={"fields": {"case_id": entry.case_id}})
            progress.retry_at = time.time() + self._backoff_s(progress.save_failures)
            progress.save_failures += 1
        else:
            del self._unsaved[entry.case_id]

    async def _attempt(self, callback: Callback, entry: OutboxEntry, progress: _UnsavedProgress) -> None:
        answer = decrypt_answer(callback.secrets, entry)
        if answer is None:
            log.error(
                "an answer for callback %s cannot be decrypted: its secret is no longer configured",
                callback.name,
            )
            await self._settle(entry, progress, "undelivered", entry.last_status)
            return
        progress.attempts += 1
        try:
            reply = await deliver(callback, entry.case_id, int(time.time()), event_payload(entry, answer))
        except Exception as error:  # whatever it was, it counts as an attempt without reply
            log.error("delivery failed", exc_info=error, extra={"fields": {"case_id": entry.case_id}})
            reply = Reply(None, fault="internal error")
        self._log_change(callback.name, reply)
        if reply.is_accepted:
            await self._settle(entry, progress, "delivered", reply.status)
            return
        if reply.status != HTTP_GONE:
            self._telemetry.count_webhook(entry.callback, "failed")
            if entry.until > time.time():
                await self._postpone(entry, progress, reply)
                return
        await self._settle(entry, progress, "undelivered", reply.status)

    def _log_change(self, callback: str, reply: Reply) -> None:
        """Log why deliveries begin to fail, once for each cause, and that they succeed again."""
        before = self._faults.pop(callback, "")
        if not reply.is_accepted:
            self._faults[callback] = reply.fault or f"it answered {reply.status}"
            if self._faults[callback] != before:
                log.warning("callback %s did not take an answer: %s", callback, self._faults[callback])
        elif before:
            log.info("callback %s takes answers again", callback)

    async def _settle(
        self, entry: OutboxEntry, progress: _UnsavedProgress, state: Outcome, status: int | None
    ) -> None:
        """Write the audit line, then the outbox: a delivery without a line is repeated."""
        if progress.outcome is None:
            line = {
                "event": state,
                "request_id": entry.request_id,
                "caller": entry.caller,
                "case_id": entry.case_id,
                "callback": entry.callback,
                "attempts": entry.attempts + progress.attempts,
                "receiver_status": status,
            }
            try:
                await self._audit.append(line)
            except AuditLogError:
                await self._postpone(entry, progress, Reply(status))
                return
            progress.outcome = (state, status)
        moment = time.time()
        await self._outbox.run(lambda box: box.settle(entry, progress.attempts, state, status, moment))
        self._telemetry.count_webhook(entry.callback, state)

    async def _postpone(self, entry: OutboxEntry, progress: _UnsavedProgress, reply: Reply) -> None:
        """Try again later: not before the receiver asks, within limits, nor after the last attempt is due."""
        now, pause = time.time(), self._backoff_s(entry.attempts + progress.attempts - 1)
        next_at = now + min(max(pause, reply.retry_after_s), LONGEST_PAUSE_S)
        if entry.until > now:
            next_at = min(next_at, entry.until)
        await self._outbox.run(lambda box: box.postpone(entry, progress.attempts, reply.status, next_at))

    def _backoff_s(self, attempts: int) -> float:
        """Seconds to pause: exponential in the number of ``attempts``, with jitter."""
        pause_s = self._first_pause_s * _PAUSE_GROWTH ** min(max(attempts, 0), 20)
        return min(pause_s * (0.75 + random.random() / 2), LONGEST_PAUSE_S)

    async def _sweep(self) -> None:
        """Give up expired entries to callbacks no longer configured, and delete old delivered ones."""
        before, now = time.time() - self._keep_s, time.time()
        for entry in await self._outbox.run(lambda box: box.expired_unconfigured(now)):
            with self._tracking_progress(entry) as progress:
                outcome = progress.outcome or ("undelivered", entry.last_status)
                await self._settle(entry, progress, *outcome)
            if self._audit.failed:
                break  # a disk that hangs would delay each further line as long, and so the shutdown
        await self._outbox.run(lambda box: box.delete_delivered(before))


def event_payload(entry: OutboxEntry, answer: bytes) -> bytes:
    """Type, time and data of the event, as the specification recommends; the answer is inserted verbatim."""
    data = {"case_id": entry.case_id, "request_id": entry.request_id, "audit_hash": entry.audit_hash}
    data_json = json.dumps(data, separators=(",", ":")).encode().removesuffix(b"}")
    head = f'{{"type":"case.answered","timestamp":"{format_timestamp(entry.accepted_at)}","data":'.encode()
    return head + data_json + b',"answer":' + answer + b"}}"
