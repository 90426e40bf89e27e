"""The outbox: answers waiting for delivery, in a small SQLite file that survives a killed process.

Imports sqlite3, cryptography and the exceptions. It holds no photograph, and answers only encrypted, under a
key derived from their callback's secret, which is stored elsewhere.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import math
import os
import secrets
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lesion_triage.errors import ConfigError

Result = TypeVar("Result")
State = Literal["pending", "delivered", "undelivered"]
Counts = Mapping[tuple[str, str], int]

LONGEST_PAUSE_S = 4 * 3600.0
"""Between two attempts, at most."""
_SCHEMA_VERSION = 1
_NONCE_BYTES = 12
_SCHEMA = """
CREATE TABLE cases (
    case_id TEXT PRIMARY KEY, caller TEXT NOT NULL, callback TEXT NOT NULL, request_id TEXT NOT NULL,
    audit_hash TEXT, accepted_at REAL NOT NULL, until REAL NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, next_at REAL NOT NULL, settled_at REAL, last_status INTEGER,
    sealed BLOB NOT NULL
) STRICT;
CREATE INDEX due ON cases (state, callback, next_at);
"""
_CONFIGURED = "callback IN (SELECT value FROM json_each(?))"
_NOT_IN = "AND case_id NOT IN (SELECT value FROM json_each(?))"
"""One JSON list, since the number of placeholders in a statement is limited."""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One accepted case. Times are seconds since 1970, UTC."""

    case_id: str
    caller: str
    """As in the audit log. Only this caller may ask for the case."""
    callback: str
    request_id: str
    audit_hash: str | None
    accepted_at: float
    until: float
    """After this time one more attempt is made, then delivery is given up."""
    state: State
    attempts: int
    next_at: float
    settled_at: float | None
    """When it was delivered or given up; None: not yet."""
    last_status: int | None
    """Status of the receiver's last reply; None: no reply, or none that is HTTP."""
    sealed: bytes


class OutboxFullError(Exception):
    """The outbox has no room: every place holds an answer that was not delivered."""


class Outbox:
    """Access to the file, by one thread. Only the ``webhooks`` subcommands also write to it."""

    def __init__(self, path: Path, capacity: int, callbacks: Collection[str]) -> None:
        """Open an outbox, or make one.

        Args:
            path: made if it is missing, readable by its owner alone.
            capacity: cases that it may hold. Delivered ones make room, the oldest first.
            callbacks: names that are configured. Entries for any other do not count, as no more of them come.

        Raises:
            ConfigError: another server uses it, it is of another version, or it cannot be used.
        """
        self._capacity, self._configured = capacity, json.dumps(list(callbacks))
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"{path}: the outbox cannot be used ({error.strerror}).") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._connection = open_database(path)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigError(f"{path}: another server uses this outbox; give each server its own.") from None
        except BaseException:
            os.close(self._lock)
            raise

    def put(self, entry: OutboxEntry) -> OutboxEntry:
        """Store an entry, unless there is one with its case id; that one is then kept.

        Returns:
            The entry stored under this case id.

        Raises:
            OutboxFullError: there is no room.
            sqlite3.Error: it could not be stored.
        """
        with self._connection:
            existing = self.find(entry.case_id)
            if existing is not None:
                return existing
            count_sql = f"SELECT count(*) FROM cases WHERE {_CONFIGURED}"  # noqa: S608
            excess = (
                self._connection.execute(count_sql, (self._configured,)).fetchone()[0] + 1 - self._capacity
            )
            if excess > 0:
                delivered_sql = f"SELECT case_id FROM cases WHERE state = 'delivered' AND {_CONFIGURED}"  # noqa: S608
                delete_sql = (
                    f"DELETE FROM cases WHERE case_id IN ({delivered_sql} ORDER BY settled_at LIMIT ?)"  # noqa: S608
                )
                deleted = self._connection.execute(delete_sql, (self._configured, excess))
                if deleted.rowcount < excess:
                    raise OutboxFullError
            marks = ", ".join("?" * len(OutboxEntry.__slots__))
            values = [getattr(entry, name) for name in OutboxEntry.__slots__]
            self._connection.execute(f"INSERT INTO cases VALUES ({marks})", values)  # noqa: S608 - marks alone
        return entry

    def find(self, case_id: str) -> OutboxEntry | None:
        """The entry with this case id; None: there is none."""
        return next(iter(self._read("WHERE case_id = ?", case_id)), None)

    def due(self, callback: str, now: float, limit: int, excluded: Collection[str]) -> list[OutboxEntry]:
        """Pending entries for this callback that are due, the longest due first, but none in ``excluded``.

        One that would be due later than any pause lasts was stored before the clock was set back: it is due.
        """
        due = f"state = 'pending' AND callback = ? AND next_at NOT BETWEEN ? AND ? {_NOT_IN}"
        return self._read(
            f"WHERE {due} ORDER BY next_at LIMIT ?",
            callback,
            math.nextafter(now, math.inf),
            now + LONGEST_PAUSE_S,
            json.dumps(list(excluded)),
            limit,
        )

    def next_at(self, callback: str, excluded: Collection[str]) -> float | None:
        """When the next entry for this callback is due; None: none is pending."""
        query = f"SELECT min(next_at) FROM cases WHERE state = 'pending' AND callback = ? {_NOT_IN}"  # noqa: S608
        row = self._connection.execute(query, (callback, json.dumps(list(excluded)))).fetchone()[0]
        return None if row is None else float(row)

    def settle(
        self, entry: OutboxEntry, attempts: int, state: State, status: int | None, settled_at: float
    ) -> None:
        """Record the outcome of an entry, after ``attempts`` further attempts."""
        self._change(entry, attempts, "state = ?, settled_at = ?, last_status = ?", state, settled_at, status)

    def postpone(self, entry: OutboxEntry, attempts: int, status: int | None, next_at: float) -> None:
        """Try an entry again later, after ``attempts`` further attempts."""
        self._change(entry, attempts, "next_at = ?, last_status = ?", next_at, status)

    def expired_unconfigured(self, now: float) -> list[OutboxEntry]:
        """Expired entries whose callback is no longer configured."""
        return self._read(
            f"WHERE state = 'pending' AND until <= ? AND NOT {_CONFIGURED}", now, self._configured
        )

    def delete_delivered(self, settled_before: float) -> None:
        """Delete entries delivered before this time. Those given up wait for a person's decision."""
        with self._connection:
            statement = "DELETE FROM cases WHERE state = 'delivered' AND settled_at <= ?"
            self._connection.execute(statement, (settled_before,))

    def counts(self) -> Counts:
        """Number of entries by callback, configured or not, and state."""
        query = "SELECT callback, state, count(*) FROM cases GROUP BY callback, state"
        return {(callback, state): count for callback, state, count in self._connection.execute(query)}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        os.close(self._lock)

    def _read(self, where: str, *values: object) -> list[OutboxEntry]:
        names = ", ".join(OutboxEntry.__slots__)
        return [
            OutboxEntry(*row)
            for row in self._connection.execute(f"SELECT {names} FROM cases {where}", values)  # noqa: S608
        ]

    def _change(self, entry: OutboxEntry, attempts: int, assignments: str, *values: object) -> None:
        with self._connection:
            self._connection.execute(
                f"UPDATE cases SET attempts = attempts + ?, {assignments} WHERE case_id = ?",  # noqa: S608
                (attempts, *values, entry.case_id),
            )


class OutboxThread:
    """The outbox for the event loop: each call runs on one thread and updates ``counts``."""

    def __init__(self, path: Path, capacity: int, callbacks: Collection[str]) -> None:
        """Open it; arguments and errors as for ``Outbox``."""
        self._outbox = Outbox(path, capacity, callbacks)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self.capacity = capacity
        self.counts = self._outbox.counts()

    async def run(self, operation: Callable[[Outbox], Result]) -> Result:
        """Run ``operation`` on the outbox and return its result."""

        def work() -> tuple[Result, Counts]:
            return operation(self._outbox), self._outbox.counts()

        found, self.counts = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        return found

    def close(self) -> None:
        """Close the file."""
        self._thread.shutdown()
        self._outbox.close()


def open_database(path: Path, *, existing: bool = False) -> sqlite3.Connection:
    """The file as a database with its tables.

    Raises:
        ConfigError: it cannot be used; or ``existing``, and there is none.
    """
    try:
        if existing and not path.is_file():
            raise ConfigError(f"{path}: no outbox here.")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        connection = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # an acknowledged case survives a power cut
        connection.execute("PRAGMA secure_delete = ON")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        elif version != _SCHEMA_VERSION:
            raise ConfigError(f"{path}: expected an outbox of version {_SCHEMA_VERSION}, found {version}.")
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"{path}: the outbox cannot be used ({error}).") from None
    return connection


def encrypt_answer(key: bytes, case_id: str, callback: str, answer: bytes) -> bytes:
    """An answer encrypted with AES-256-GCM, bound to its case id and callback."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(_encryption_key(key)).encrypt(nonce, answer, f"{case_id}.{callback}".encode())


def decrypt_answer(keys: Sequence[bytes], entry: OutboxEntry) -> bytes | None:
    """The answer in an entry; None if none of these keys decrypts it."""
    nonce, text = entry.sealed[:_NONCE_BYTES], entry.sealed[_NONCE_BYTES:]
    for key in keys:
        try:
            bound = f"{entry.case_id}.{entry.callback}".encode()
            return AESGCM(_encryption_key(key)).decrypt(nonce, text, bound)
        except InvalidTag:
            continue
    return None


def _encryption_key(secret: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"lesion-triage outbox 1").derive(secret)
