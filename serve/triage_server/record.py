"""What the audit log records of a case, and the answers kept for repeated requests.

Imports the audit log, the bundle's schema and the problems.
"""

from __future__ import annotations

import asyncio
import copy
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from lesion_triage.bundle.history import NO_HISTORY
from lesion_triage.bundle.schema import Answer
from lesion_triage.errors import AuditLogError
from triage_server.audit_chain import ChainEnd
from triage_server.problems import RequestError

if TYPE_CHECKING:
    from triage_server.audit_log import AuditLog
    from triage_server.intake import SentCase

UNRECORDED = frozenset({"busy", "rate_limited", "stopping", "audit_unavailable"})
"""Refusals that say nothing about a case except to send it again; an overload must not fill the log."""
_KEEP_S = 24 * 3600.0
MAX_KEPT_PER_CALLER = 4096
"""Answers of one caller kept for repeats; the oldest is dropped for one more."""
_MAX_KEPT = 2 * MAX_KEPT_PER_CALLER
"""Of all callers together: some ten megabytes, or a hundred with the longest answers."""


@dataclass(frozen=True, slots=True)
class SentAnswer:
    """An answer as sent, and what the log and the counters record of it."""

    body: bytes
    language: str
    disposition: str
    priority_band: int
    codes: tuple[str, ...]
    """Reasons of the case, then those of its photographs."""
    fields: Mapping[str, object]
    repeated: bool = False
    case: SentCase | None = None
    """For the shadows, which score it after the answer; not kept for repeats."""


_INPUTS = {
    "photographs_hmac": "the photographs",
    "history_hmac": "the history",
    "repeats_hmac": "the references or the id that the answer repeats",
    "face": "the interface that was used",
    "callback": "the callback",
}
"""Fields of a line that must match for a repeat, with the client's names for them."""
_Entry = tuple[float, Mapping[str, object], SentAnswer]
"""When it was kept, for which inputs, and what."""


def decision_fields(answer: Answer) -> dict[str, object]:
    """What the log keeps of an answer: the decision, no text."""
    return {
        # Of the answer: a repeated one may come from a bundle served earlier.
        "bundle_sha256": answer.bundle_sha256,
        "certificate_id": answer.certificate_id,
        "disposition": answer.disposition.value,
        "priority_band": answer.priority_band,
        "score": answer.score,
        "threshold": answer.threshold,
        "reasons": [reason.code.value for reason in answer.reasons],
        "photograph_reasons": [[reason.code.value for reason in image.reasons] for image in answer.images],
    }


def sent_answer(answer: Answer, body: bytes, case: SentCase) -> SentAnswer:
    """The answer to ``case``, with the bytes in which its protocol writes it."""
    of_photographs = [reason.code.value for image in answer.images for reason in image.reasons]
    return SentAnswer(
        body=body,
        language=answer.language,
        disposition=answer.disposition.value,
        priority_band=answer.priority_band,
        codes=(*(reason.code.value for reason in answer.reasons), *of_photographs),
        fields={**decision_fields(answer), "answer_sha256": sha256(body).hexdigest()},
        case=case,
    )


class Recorder:
    """The audit log, if there is one, as the case pipeline sees it."""

    def __init__(self, log: AuditLog | None, bundle_sha256: str, certificate_id: str) -> None:
        self._log = log
        self._served = {"bundle_sha256": bundle_sha256, "certificate_id": certificate_id}
        self._key = secrets.token_bytes(32)

    def for_bundle(self, bundle_sha256: str, certificate_id: str) -> Recorder:
        """The same log and key, for lines that name another bundle."""
        other = copy.copy(self)
        other._served = {"bundle_sha256": bundle_sha256, "certificate_id": certificate_id}
        return other

    @property
    def has_log(self) -> bool:
        """Whether lines are written anywhere."""
        return self._log is not None

    def hash_of(self, data: bytes) -> str:
        """Keyed hash of an input: under the site's key, or without a log under a random one."""
        return self._log.hash_of(data) if self._log else hmac.digest(self._key, data, "sha256").hex()

    def input_hashes(self, case: SentCase, repeats: bytes = b"") -> dict[str, object]:
        """Hashes of the inputs, in the order sent. Run it beside the event loop: it reads every byte.

        Args:
            case: as sent.
            repeats: whatever else was sent and appears in the answer.
        """
        said = None if case.history == NO_HISTORY else self.hash_of(case.history.to_json().encode())
        photographs = [self.hash_of(image) for image in case.images]
        further = {"repeats_hmac": self.hash_of(repeats)} if repeats else {}
        return {"photographs_hmac": photographs, "history_hmac": said, **further}

    async def is_writable(self) -> bool:
        """Whether an answer could be recorded now; after a failure this tries."""
        return self._log is None or await self._log.probe()

    async def require_writable(self) -> None:
        """Refuse a case before it is read if its answer could not be recorded.

        Raises:
            RequestError: the log cannot be written.
        """
        if not await self.is_writable():
            raise _audit_unavailable()

    async def write(
        self, event: str, request_id: str, caller: str, fields: Mapping[str, object]
    ) -> ChainEnd | None:
        """Write one line to disk.

        Returns:
            Its number and hash; None if there is no log.

        Raises:
            RequestError: it could not be written, so no answer may be given.
        """
        if self._log is None:
            return None
        who = {"event": event, "request_id": request_id, "caller": caller}
        try:
            return await self._log.append({**who, **self._served, **fields})
        except AuditLogError:
            raise _audit_unavailable() from None


class IdempotencyCache:
    """Answers by caller and Idempotency-Key: in memory, for a day, the newest few thousand of each caller."""

    def __init__(self) -> None:
        self._entries: dict[str, OrderedDict[str, _Entry]] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._in_progress: dict[tuple[str, str], asyncio.Event] = {}

    def begin(self, caller: str, key: str) -> asyncio.Event | None:
        """Begin a request under a key; belongs to the event loop.

        Returns:
            None: it has begun, and ``end`` must follow. Otherwise another request under this key is in
            progress, and this event is set when it ends; only then is it known whether both are the same
            case.
        """
        other = self._in_progress.get((caller, key))
        if other is None:
            self._in_progress[caller, key] = asyncio.Event()
        return other

    def end(self, caller: str, key: str) -> None:
        """End a request under a key, whether or not it left an answer."""
        self._in_progress.pop((caller, key)).set()

    def find(self, caller: str, key: str, inputs: Mapping[str, object]) -> SentAnswer | None:
        """The answer that these inputs got under this key; None if the key is new or its answer is forgotten.

        Raises:
            RequestError: the key was used before with other inputs.
        """
        with self._lock:
            kept = self._entries[caller].get(key) if caller in self._entries else None
        if kept is None or time.monotonic() - kept[0] > _KEEP_S:
            return None
        if kept[1] != inputs:
            raise RequestError("repeated_differently", differing=_differing_inputs(kept[1], inputs))
        return kept[2]

    def keep(self, caller: str, key: str, inputs: Mapping[str, object], answer: SentAnswer) -> None:
        """Keep an answer that was recorded."""
        with self._lock:
            mine = self._entries.setdefault(caller, OrderedDict())
            self._count += key not in mine
            mine[key] = (time.monotonic(), dict(inputs), replace(answer, case=None))
            mine.move_to_end(key)
            if len(mine) > MAX_KEPT_PER_CALLER:
                self._drop(caller)
            elif self._count > _MAX_KEPT:
                # From the caller with most: a busy one must not push out the others' answers.
                self._drop(max(self._entries, key=lambda one: len(self._entries[one])))

    def _drop(self, caller: str) -> None:
        self._entries[caller].popitem(last=False)
        self._count -= 1
        if not self._entries[caller]:
            del self._entries[caller]


def _differing_inputs(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    names = [name for name in _INPUTS if before.get(name) != now.get(name)]
    return ", ".join(_INPUTS[name] for name in names) or "something else"


def _audit_unavailable() -> RequestError:
    return RequestError("audit_unavailable", headers={"Retry-After": "2"})
