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
from triage_server.timestamps import written
from triage_server.webhooks.callbacks import Callback, Callbacks
from triage_server.webhooks.delivery import Reply, deliver
from triage_server.webhooks.outbox import Letter, OutboxThread, unsealed

Settled = Literal["delivered", "undelivered"]
GONE = 410
"""The receiver wants no more attempts."""
_PAUSE_GROWTH = 3.0
_LONGEST_PAUSE_S = 4 * 3600.0
_AT_ONCE = 4
"""Concurrent deliveries to one callback: one that hangs delays only its own answers."""
_LOOK_EVERY_S = 30.0
"""The ``retry`` subcommand, in another process, may have made letters pending again."""
_DRAIN_S = 5.0

log = logging.getLogger("triage_server")


@dataclass(slots=True)
class _Trouble:
    """What was done with a letter and could not be written to the outbox; lost with the process."""

    tries: int = 0
    """Attempts."""
    written: tuple[Settled, int | None] | None = None
    """Its outcome, if that has its line in the audit log: then it must not be sent again."""
    times: int = 0
    """How often the outbox could not be written."""
    until: float = 0.0
    """When to continue, in seconds since 1970."""


class Dispatcher:
    """Delivers on the event loop, from ``work`` to ``stop``."""

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
        self._woken = asyncio.Event()
        self._under_way: dict[str, tuple[Callback, asyncio.Task[None]]] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._until = math.inf
        self._looked = -math.inf

    def wake(self) -> None:
        """Look again: something may be due."""
        self._woken.set()

    async def work(self) -> None:
        """Deliver until stopped; then finish, for a few seconds, what is due or in progress."""
        while True:
            self._woken = asyncio.Event()  # not woken since this round began
            pause = await self._round()
            stopping = self._until < math.inf
            if stopping and not self._under_way and pause > 0:
                return
            if time.monotonic() >= self._until:
                await self._break_off()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1 if stopping else pause):
                    await self._woken.wait()

    def stop(self) -> None:
        """Begin to stop; what is not delivered in time waits for the next start."""
        self._until = time.monotonic() + _DRAIN_S
        self.wake()

    async def _break_off(self) -> None:
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _round(self) -> float:
        """Give up, delete and deliver what is due; returns seconds until something may be due."""
        pause = _LOOK_EVERY_S
        if time.monotonic() - self._looked >= _LOOK_EVERY_S:
            self._looked = time.monotonic()
            try:
                await self._give_up_and_forget()
            except Exception as error:  # deliveries go on
                log.error("expired answers in the outbox could not be given up or deleted", exc_info=error)
        try:
            for callback in self._callbacks.by_name.values():
                pause = min(pause, await self._send_out(callback))
        except Exception as error:  # the disk may work again next time
            log.error("deliveries are delayed", exc_info=error)
        return pause

    async def _send_out(self, callback: Callback) -> float:
        """Begin as many deliveries as are allowed; returns seconds until the next can begin."""
        busy = {case_id for case_id, (one, _) in self._under_way.items() if one is callback}
        moment, free = time.time(), _AT_ONCE - len(busy)
        left = busy | {case_id for case_id, trouble in self._troubles.items() if trouble.until > moment}
        if free > 0:
            letters = await self._outbox.do(lambda box: box.due(callback.name, moment, free, left))
            for letter in letters:
                task = asyncio.create_task(self._try(callback, letter))
                self._under_way[letter.case_id] = (callback, task)
                left.add(letter.case_id)
            busy.update(letter.case_id for letter in letters)
        if len(busy) >= _AT_ONCE:
            return math.inf  # the first to finish wakes us
        due = await self._outbox.do(lambda box: box.next_at(callback.name, left))
        again = [trouble.until for trouble in self._troubles.values() if trouble.until > moment]
        return max(0.0, min([math.inf if due is None else due, *again]) - time.time())

    async def _try(self, callback: Callback, letter: Letter) -> None:
        try:
            with self._remembered(letter) as trouble:
                if trouble.written is None:
                    await self._attempt(callback, letter, trouble)
                else:
                    await self._settle(letter, trouble, *trouble.written)
        finally:
            self._under_way.pop(letter.case_id, None)
            self.wake()

    @contextmanager
    def _remembered(self, letter: Letter) -> Iterator[_Trouble]:
        """Remember what was done with a letter if the outbox cannot be written, and pause that letter."""
        trouble = self._troubles.setdefault(letter.case_id, _Trouble())
        try:
            yield trouble
        except Exception as error:  # the letter stays in the outbox and is tried again
            log.error("delivery failed", exc_info=error, extra={"fields": {"case_id": letter.case_id}})
            trouble.until = time.time() + self._pause(trouble.times)
            trouble.times += 1
        else:
            del self._troubles[letter.case_id]

    async def _attempt(self, callback: Callback, letter: Letter, trouble: _Trouble) -> None:
        answer = unsealed(callback.secrets, letter)
        if answer is None:
            log.error(
                "an answer for callback %s cannot be decrypted: its secret is no longer configured",
                callback.name,
            )
            await self._settle(letter, trouble, "undelivered", letter.last_status)
            return
        trouble.tries += 1
        try:
            reply = await deliver(callback, letter.case_id, int(time.time()), message(letter, answer))
        except Exception as error:  # whatever it was, it counts as an attempt without reply
            log.error("delivery failed", exc_info=error, extra={"fields": {"case_id": letter.case_id}})
            reply = Reply(None)
        if reply.taken:
            await self._settle(letter, trouble, "delivered", reply.status)
            return
        if reply.status != GONE:
            self._telemetry.webhook(letter.callback, "failed")
            if letter.until > time.time():
                await self._postpone(letter, trouble, reply)
                return
        await self._settle(letter, trouble, "undelivered", reply.status)

    async def _settle(self, letter: Letter, trouble: _Trouble, state: Settled, status: int | None) -> None:
        """Write the audit line, then the outbox: a delivery without a line is repeated."""
        if trouble.written is None:
            line = {
                "event": state,
                "request_id": letter.request_id,
                "caller": letter.caller,
                "case_id": letter.case_id,
                "callback": letter.callback,
                "attempts": letter.attempts + trouble.tries,
                "receiver_status": status,
            }
            try:
                await self._audit.append(line)
            except AuditLogError:
                await self._postpone(letter, trouble, Reply(status))
                return
            trouble.written = (state, status)
        moment = time.time()
        await self._outbox.do(lambda box: box.settle(letter, trouble.tries, state, status, moment))
        self._telemetry.webhook(letter.callback, state)

    async def _postpone(self, letter: Letter, trouble: _Trouble, reply: Reply) -> None:
        """Try again later: not before the receiver asks, within limits, nor after the last attempt is due."""
        moment, pause = time.time(), self._pause(letter.attempts + trouble.tries - 1)
        next_at = moment + min(max(pause, reply.retry_after_s or 0.0), _LONGEST_PAUSE_S)
        if letter.until > moment:
            next_at = min(next_at, letter.until)
        await self._outbox.do(lambda box: box.postpone(letter, trouble.tries, reply.status, next_at))

    def _pause(self, before: int) -> float:
        """Seconds to pause: exponential in the number of attempts ``before``, with jitter."""
        grown = self._first_pause_s * _PAUSE_GROWTH ** min(max(before, 0), 20)
        return min(grown * (0.75 + random.random() / 2), _LONGEST_PAUSE_S)

    async def _give_up_and_forget(self) -> None:
        """Give up expired letters to callbacks no longer configured, and delete old delivered ones."""
        before, now = time.time() - self._keep_s, time.time()
        for letter in await self._outbox.do(lambda box: box.stranded(now)):
            with self._remembered(letter) as trouble:
                written = trouble.written or ("undelivered", letter.last_status)
                await self._settle(letter, trouble, *written)
            if self._audit.failed:
                break  # a disk that hangs would delay each further line as long, and so the shutdown
        await self._outbox.do(lambda box: box.forget(before))


def message(letter: Letter, answer: bytes) -> bytes:
    """Type, time and data of the event, as the specification recommends; the answer is inserted verbatim."""
    data = {"case_id": letter.case_id, "request_id": letter.request_id, "audit_hash": letter.audit_hash}
    said = json.dumps(data, separators=(",", ":")).encode().removesuffix(b"}")
    head = f'{{"type":"case.answered","timestamp":"{written(letter.accepted_at)}","data":'.encode()
    return head + said + b',"answer":' + answer + b"}}"
