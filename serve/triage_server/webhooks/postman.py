"""Empties the outbox: each answer is brought to its callback until it is taken or time is up.

Imports the outbox, the delivery, the audit log and the counters.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Literal

from lesion_triage.errors import AuditLogError
from triage_server.audit_log import AuditLog
from triage_server.telemetry import Telemetry
from triage_server.webhooks.callbacks import Callback, Callbacks
from triage_server.webhooks.delivery import Reply, deliver
from triage_server.webhooks.outbox import Letter, OutboxThread, unsealed

GONE = 410
"""The receiver wants no more of it."""
_PAUSE_GROWTH = 3.0
_LONGEST_PAUSE_S = 4 * 3600.0
_AT_ONCE = 4
"""Deliveries under way to one callback: one that hangs holds up its own answers alone."""
_LOOK_EVERY_S = 30.0
"""An errand beside the server may have set something out again."""
_DRAIN_S = 5.0

log = logging.getLogger("triage_server")


class Postman:
    """Works on the event loop, from ``work`` to ``stop``."""

    def __init__(
        self,
        callbacks: Callbacks,
        outbox: OutboxThread,
        audit: AuditLog,
        telemetry: Telemetry,
        keep_s: float,
        first_pause_s: float,
    ) -> None:
        """Arguments as of ``Post``."""
        self._callbacks, self._outbox, self._audit, self._telemetry = callbacks, outbox, audit, telemetry
        self._keep_s, self._first_pause_s = keep_s, first_pause_s
        self._woken = asyncio.Event()
        self._under_way: dict[str, tuple[Callback, asyncio.Task[None]]] = {}
        self._until = math.inf
        self._looked = -math.inf

    def wake(self) -> None:
        """Something may be due."""
        self._woken.set()

    async def work(self) -> None:
        """Deliver until stopped; then what is due or under way, for some seconds."""
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
        """Take leave; what is not delivered by then waits for the next start."""
        self._until = time.monotonic() + _DRAIN_S
        self.wake()

    async def _break_off(self) -> None:
        tasks = [task for _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _round(self) -> float:
        """Give up, forget, send out; seconds until something is due."""
        pause = _LOOK_EVERY_S
        try:
            if time.monotonic() - self._looked >= _LOOK_EVERY_S:
                self._looked = time.monotonic()
                await self._give_up_and_forget()
            for callback in self._callbacks.by_name.values():
                pause = min(pause, await self._send_out(callback))
        except Exception as error:  # the next look may find the disk mended
            log.error("deliveries are held up", exc_info=error)
        return pause

    async def _send_out(self, callback: Callback) -> float:
        """Begin as many deliveries as there are free hands; seconds until one may be due that has a hand."""
        busy = [case_id for case_id, (one, _) in self._under_way.items() if one is callback]
        if len(busy) < _AT_ONCE:
            moment, free = time.time(), _AT_ONCE - len(busy)
            for letter in await self._outbox.do(lambda box: box.due(callback.name, moment, free, busy)):
                task = asyncio.create_task(self._try(callback, letter))
                self._under_way[letter.case_id] = (callback, task)
                busy.append(letter.case_id)
        if len(busy) >= _AT_ONCE:
            return math.inf  # whoever is done first wakes us
        due = await self._outbox.do(lambda box: box.next_at(callback.name, busy))
        return math.inf if due is None else max(0.0, due - time.time())

    async def _try(self, callback: Callback, letter: Letter) -> None:
        try:
            answer = unsealed(callback.secrets, letter)
            if answer is None:
                log.error("an answer to callback %s was sealed under a secret that is gone", callback.name)
                await self._settle(letter, "undelivered", Reply(None))
                return
            reply = await deliver(callback, letter.case_id, int(time.time()), message(letter, answer))
            if reply.taken or reply.status == GONE:
                await self._settle(letter, "delivered" if reply.taken else "undelivered", reply)
            else:
                self._telemetry.webhook(letter.callback, "failed")
                await self._postpone(letter, reply)
        except Exception as error:  # it stays in the outbox, and is tried again
            log.error("delivery failed", exc_info=error, extra={"fields": {"case_id": letter.case_id}})
            await asyncio.sleep(1.0)
        finally:
            self._under_way.pop(letter.case_id, None)
            self.wake()

    async def _settle(self, letter: Letter, state: Literal["delivered", "undelivered"], reply: Reply) -> None:
        """The line in the log, then the outbox: what was delivered without a line is delivered again."""
        line = {
            "event": state,
            "request_id": letter.request_id,
            "caller": letter.caller,
            "case_id": letter.case_id,
            "callback": letter.callback,
            "attempts": letter.attempts + 1,
            "receiver_status": reply.status,
        }
        try:
            await self._audit.append(line)
        except AuditLogError:
            await self._postpone(letter, reply)
            return
        await self._outbox.do(lambda box: box.settle(letter, state, reply.status, time.time()))
        self._telemetry.webhook(letter.callback, state)

    async def _postpone(self, letter: Letter, reply: Reply) -> None:
        """Three times longer after each attempt, in part by chance, and no sooner than the receiver asks."""
        grown = self._first_pause_s * _PAUSE_GROWTH ** min(letter.attempts, 20)
        wanted = max(grown * (0.75 + random.random() / 2), reply.retry_after_s or 0.0)
        next_at = time.time() + min(wanted, _LONGEST_PAUSE_S)
        await self._outbox.do(lambda box: box.postpone(letter, reply.status, next_at))

    async def _give_up_and_forget(self) -> None:
        before, now = time.time() - self._keep_s, time.time()
        for letter in await self._outbox.do(lambda box: box.overdue(now)):
            if letter.case_id not in self._under_way:
                await self._settle(letter, "undelivered", Reply(letter.last_status))
        await self._outbox.do(lambda box: box.forget(before))


def message(letter: Letter, answer: bytes) -> bytes:
    """Type, time and data of the event, as the specification recommends; the answer's bytes as they are."""
    data = {"case_id": letter.case_id, "request_id": letter.request_id, "audit_hash": letter.audit_hash}
    said = json.dumps(data, separators=(",", ":")).encode().removesuffix(b"}")
    head = f'{{"type":"case.answered","timestamp":"{written(letter.accepted_at)}","data":'.encode()
    return head + said + b',"answer":' + answer + b"}}"


def written(moment: float) -> str:
    """UTC, ISO 8601, milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
