"""Accepts answers for callbacks, and reports their status to whoever sent the cases.

Imports the outbox, the dispatcher and the wire. A case is acknowledged only once its answer is in the outbox
and its line in the audit log.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from triage_server.audit_log import AuditLog
from triage_server.problems import RequestError
from triage_server.telemetry import Telemetry
from triage_server.timestamps import format_timestamp
from triage_server.webhooks.callbacks import Callback, Callbacks
from triage_server.webhooks.dispatcher import Dispatcher
from triage_server.webhooks.outbox import (
    Counts,
    OutboxEntry,
    OutboxFullError,
    OutboxThread,
    decrypt_answer,
    encrypt_answer,
)
from triage_server.wire import CaseStatus

log = logging.getLogger("triage_server")


class WebhookService:
    """Takes the answers of cases sent with a callback. Belongs to the event loop."""

    def __init__(
        self,
        callbacks: Callbacks,
        outbox: tuple[Path, int],
        audit: AuditLog,
        telemetry: Telemetry,
        *,
        keep_hours: int,
        first_pause_s: float,
    ) -> None:
        """Open the outbox.

        Args:
            callbacks: as configured.
            outbox: its file, and how many cases it may hold.
            audit: gets a line for each answer delivered or given up.
            telemetry: counts.
            keep_hours: how long delivery is tried, and how long after delivery the status can be asked for.
            first_pause_s: before the second attempt; three times as long before each further one.

        Raises:
            ConfigError: the outbox cannot be used.
        """
        self._callbacks, self._audit, self._telemetry = callbacks, audit, telemetry
        self._outbox = OutboxThread(*outbox, callbacks.by_name)
        keep_s = keep_hours * 3600.0
        self._dispatcher = Dispatcher(callbacks, self._outbox, audit, telemetry, keep_s, first_pause_s)
        self._keep_s, self._reserved = keep_s, 0

    def count_in_state(self, state: str) -> int:
        """Number of answers in this state."""
        return sum(count for (_, one), count in self._outbox.counts.items() if one == state)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver while the server runs; close the outbox at the end."""
        self._warn_of_unconfigured()
        dispatching = asyncio.create_task(self._dispatcher.run())
        try:
            yield
        finally:
            self._dispatcher.stop()
            await dispatching
            self.close()

    def close(self) -> None:
        """Close the outbox."""
        self._outbox.close()

    def resolve_callback(self, name: str | None, caller: str) -> Callback | None:
        """The callback of that name; without a name, the caller's only one, None if there is not exactly one.

        Raises:
            RequestError: there is no such callback for this caller.
        """
        if name is None:
            allowed = self._callbacks.for_caller(caller)
            return allowed[0] if len(allowed) == 1 else None
        found = self._callbacks.by_name.get(name)
        if found is None or not found.allows(caller):
            raise RequestError("callback_not_known")
        return found

    @contextmanager
    def reserve(self, callback: Callback) -> Iterator[None]:
        """Reserve room for one answer, from before its case is read.

        Answers given up stay until a person decides, so one receiver that never returns could fill the
        outbox. Therefore a callback gets no more once its own such answers take half of it. Answers for
        callbacks that are no longer configured take no room from the others.

        Raises:
            RequestError: the outbox is full of undelivered answers, or half of it is taken by answers for
                this callback that were given up.
        """
        undelivered = self._undelivered_counts()
        held = sum(count for (name, _), count in undelivered.items() if name in self._callbacks.by_name)
        given_up = undelivered.get((callback.name, "undelivered"), 0)
        if 2 * given_up >= self._outbox.capacity or held + self._reserved >= self._outbox.capacity:
            raise _outbox_full()
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def case_id(self, caller: str, idempotency_key: str | None, inputs: str) -> str:
        """A case id; under an Idempotency-Key the same for the same inputs, even after a restart."""
        if idempotency_key is None:
            return f"case_{secrets.token_hex(16)}"
        identity = f"{caller}\n{idempotency_key}\n{inputs}".encode()
        return f"case_{self._audit.hash_of(identity)[:32]}"

    async def accept(
        self, callback: Callback, case_id: str, sender: tuple[str, str], audit_hash: str, answer: bytes
    ) -> tuple[bytes, str | None]:
        """Store an answer in the outbox; only then may its case be acknowledged.

        Args:
            callback: where the answer goes.
            case_id: of the case.
            sender: caller, and id of the request.
            audit_hash: of the answer's line.
            answer: as its protocol writes it, JSON.

        Returns:
            The document of ``GET /v1/cases/{case_id}``, and the hash of the line of the answer in it, which
            is an earlier one if the outbox has the case already.

        Raises:
            RequestError: the outbox is full or cannot be written.
        """
        now = time.time()
        entry = OutboxEntry(
            case_id=case_id,
            caller=sender[0],
            callback=callback.name,
            request_id=sender[1],
            audit_hash=audit_hash,
            accepted_at=now,
            until=now + self._keep_s,
            state="pending",
            attempts=0,
            next_at=now,
            settled_at=None,
            last_status=None,
            sealed=encrypt_answer(callback.secrets[0], case_id, callback.name, answer),
        )
        try:
            stored = await self._outbox.run(lambda box: box.put(entry))
        except OutboxFullError:
            raise _outbox_full() from None
        except sqlite3.Error as error:
            raise _outbox_unavailable(error) from None
        if stored is entry:
            self._telemetry.count_webhook(callback.name, "accepted")
            self._dispatcher.wake()
        return self._status_document(stored), stored.audit_hash

    async def status(self, case_id: str, caller: str) -> bytes:
        """Status of a case, for the caller who sent it.

        Raises:
            RequestError: this caller sent no such case, or it has been deleted.
        """
        try:
            stored = await self._outbox.run(lambda box: box.find(case_id))
        except sqlite3.Error as error:
            raise _outbox_unavailable(error) from None
        if stored is None or stored.caller != caller:
            raise RequestError("case_not_known")
        return self._status_document(stored)

    def _undelivered_counts(self) -> Counts:
        return {key: count for key, count in self._outbox.counts.items() if key[1] != "delivered"}

    def _warn_of_unconfigured(self) -> None:
        unconfigured = {
            key: n for key, n in self._undelivered_counts().items() if key[0] not in self._callbacks.by_name
        }
        if unconfigured:
            log.warning(
                "%d answers in the outbox are for callbacks that are no longer configured (%s): "
                "configure them again, or drop the answers (triage-server webhooks drop)",
                sum(unconfigured.values()),
                ", ".join(sorted({name for name, _ in unconfigured})),
            )

    def _status_document(self, entry: OutboxEntry) -> bytes:
        status = CaseStatus(
            case_id=entry.case_id,
            callback=entry.callback,
            state=entry.state,
            accepted_at=format_timestamp(entry.accepted_at),
            attempts=entry.attempts,
            last_status=entry.last_status,
            settled_at=None if entry.settled_at is None else format_timestamp(entry.settled_at),
            audit_hash=entry.audit_hash,
            answer=None,
        )
        text = status.model_dump_json().encode()
        callback = self._callbacks.by_name.get(entry.callback)
        answer = None if callback is None else decrypt_answer(callback.secrets, entry)
        # Inserted verbatim: the log holds the hash of these bytes.
        return text if answer is None else text.removesuffix(b"null}") + answer + b"}"


def _outbox_full() -> RequestError:
    return RequestError("outbox_full", headers={"Retry-After": "60"})


def _outbox_unavailable(error: Exception) -> RequestError:
    log.error("the outbox cannot be used: %s", error)
    return RequestError("outbox_unavailable", headers={"Retry-After": "5"})
