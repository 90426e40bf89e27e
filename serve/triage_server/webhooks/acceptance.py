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
from triage_server.timestamps import written
from triage_server.webhooks.callbacks import Callback, Callbacks
from triage_server.webhooks.dispatcher import Dispatcher
from triage_server.webhooks.outbox import Counts, FullError, Letter, OutboxThread, sealed, unsealed
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
        self._keep_s, self._coming = keep_s, 0

    def count_in_state(self, state: str) -> int:
        """Number of letters in this state."""
        return sum(count for (_, one), count in self._outbox.counts.items() if one == state)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver while the server runs; close the outbox at the end."""
        self._warn_of_stranded()
        working = asyncio.create_task(self._dispatcher.work())
        try:
            yield
        finally:
            self._dispatcher.stop()
            await working
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
        waiting = self._untaken()
        held = sum(count for (name, _), count in waiting.items() if name in self._callbacks.by_name)
        given_up = waiting.get((callback.name, "undelivered"), 0)
        if 2 * given_up >= self._outbox.capacity or held + self._coming >= self._outbox.capacity:
            raise _full()
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def case_id(self, caller: str, idempotency_key: str | None, inputs: str) -> str:
        """A case id; under an Idempotency-Key the same for the same inputs, even after a restart."""
        if idempotency_key is None:
            return f"case_{secrets.token_hex(16)}"
        said = f"{caller}\n{idempotency_key}\n{inputs}".encode()
        return f"case_{self._audit.hash_of(said)[:32]}"

    async def accept(
        self, callback: Callback, case_id: str, who: tuple[str, str], audit_hash: str, answer: bytes
    ) -> bytes:
        """Store an answer in the outbox; only then may its case be acknowledged.

        Args:
            callback: where the answer goes.
            case_id: of the case.
            who: caller, and id of the request.
            audit_hash: of the answer's line.
            answer: as its protocol writes it, JSON.

        Returns:
            The document of ``GET /v1/cases/{case_id}``.

        Raises:
            RequestError: the outbox is full or cannot be written.
        """
        moment = time.time()
        letter = Letter(
            case_id=case_id,
            caller=who[0],
            callback=callback.name,
            request_id=who[1],
            audit_hash=audit_hash,
            accepted_at=moment,
            until=moment + self._keep_s,
            state="pending",
            attempts=0,
            next_at=moment,
            settled_at=None,
            last_status=None,
            sealed=sealed(callback.secrets[0], case_id, callback.name, answer),
        )
        try:
            kept = await self._outbox.do(lambda box: box.put(letter))
        except FullError:
            raise _full() from None
        except sqlite3.Error as error:
            raise _unavailable(error) from None
        if kept is letter:
            self._telemetry.webhook(callback.name, "accepted")
            self._dispatcher.wake()
        return self._said(kept)

    async def status(self, case_id: str, caller: str) -> bytes:
        """Status of a case, for the caller who sent it.

        Raises:
            RequestError: this caller sent no such case, or it has been deleted.
        """
        try:
            kept = await self._outbox.do(lambda box: box.find(case_id))
        except sqlite3.Error as error:
            raise _unavailable(error) from None
        if kept is None or kept.caller != caller:
            raise RequestError("case_not_known")
        return self._said(kept)

    def _untaken(self) -> Counts:
        return {key: count for key, count in self._outbox.counts.items() if key[1] != "delivered"}

    def _warn_of_stranded(self) -> None:
        gone = {key: n for key, n in self._untaken().items() if key[0] not in self._callbacks.by_name}
        if gone:
            log.warning(
                "%d answers in the outbox are for callbacks that are no longer configured (%s): "
                "configure them again, or drop the answers (triage-server webhooks drop)",
                sum(gone.values()),
                ", ".join(sorted({name for name, _ in gone})),
            )

    def _said(self, letter: Letter) -> bytes:
        status = CaseStatus(
            case_id=letter.case_id,
            callback=letter.callback,
            state=letter.state,
            accepted_at=written(letter.accepted_at),
            attempts=letter.attempts,
            last_status=letter.last_status,
            settled_at=None if letter.settled_at is None else written(letter.settled_at),
            audit_hash=letter.audit_hash,
            answer=None,
        )
        text = status.model_dump_json().encode()
        callback = self._callbacks.by_name.get(letter.callback)
        answer = None if callback is None else unsealed(callback.secrets, letter)
        # Inserted verbatim: the log holds the hash of these bytes.
        return text if answer is None else text.removesuffix(b"null}") + answer + b"}"


def _full() -> RequestError:
    return RequestError("outbox_full", headers={"Retry-After": "60"})


def _unavailable(error: Exception) -> RequestError:
    log.error("the outbox cannot be used: %s", error)
    return RequestError("outbox_unavailable", headers={"Retry-After": "5"})
