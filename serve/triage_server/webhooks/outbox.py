"""The outbox: answers waiting for delivery, in a small SQLite file that survives a killed process.

Imports sqlite3, cryptography and the exceptions. It holds no photograph, and answers only encrypted, under a
key derived from their callback's secret, which is stored elsewhere.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
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

Found = TypeVar("Found")
State = Literal["pending", "delivered", "undelivered"]
Counts = Mapping[tuple[str, str], int]

_VERSION = 1
_NONCE_BYTES = 12
_TABLE = """
CREATE TABLE cases (
    case_id TEXT PRIMARY KEY, caller TEXT NOT NULL, callback TEXT NOT NULL, request_id TEXT NOT NULL,
    audit_hash TEXT, accepted_at REAL NOT NULL, until REAL NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, next_at REAL NOT NULL, settled_at REAL, last_status INTEGER,
    sealed BLOB NOT NULL
) STRICT;
CREATE INDEX due ON cases (state, callback, next_at);
"""
_NAMED = "callback IN (SELECT value FROM json_each(?))"
_BUT = "AND case_id NOT IN (SELECT value FROM json_each(?))"
"""One JSON list, since the number of placeholders in a statement is limited."""


@dataclass(frozen=True, slots=True)
class Letter:
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


class FullError(Exception):
    """The outbox has no room: every place holds an answer that was not delivered."""


class Outbox:
    """Access to the file, by one thread. Only the ``webhooks`` subcommands also write to it."""

    def __init__(self, path: Path, capacity: int, callbacks: Collection[str]) -> None:
        """Open an outbox, or make one.

        Args:
            path: made if it is missing, readable by its owner alone.
            capacity: cases that it may hold. Delivered ones make room, the oldest first.
            callbacks: names that are configured. Letters for any other do not count, as no more of them come.

        Raises:
            ConfigError: another server uses it, it is of another version, or it cannot be used.
        """
        self._capacity, self._named = capacity, json.dumps(list(callbacks))
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigError(f"{path}: the outbox cannot be used ({error.strerror}).") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._base = opened(path)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigError(f"{path}: another server uses this outbox; give each server its own.") from None
        except BaseException:
            os.close(self._lock)
            raise

    def put(self, letter: Letter) -> Letter:
        """Store a letter, unless there is one with its case id; that one is then kept.

        Returns:
            The letter stored under this case id.

        Raises:
            FullError: there is no room.
            sqlite3.Error: it could not be stored.
        """
        with self._base:
            kept = self.find(letter.case_id)
            if kept is not None:
                return kept
            held = f"SELECT count(*) FROM cases WHERE {_NAMED}"  # noqa: S608
            over = self._base.execute(held, (self._named,)).fetchone()[0] + 1 - self._capacity
            if over > 0:
                said = f"SELECT case_id FROM cases WHERE state = 'delivered' AND {_NAMED}"  # noqa: S608
                oldest = f"DELETE FROM cases WHERE case_id IN ({said} ORDER BY settled_at LIMIT ?)"  # noqa: S608
                gone = self._base.execute(oldest, (self._named, over))
                if gone.rowcount < over:
                    raise FullError
            marks = ", ".join("?" * len(Letter.__slots__))
            values = [getattr(letter, name) for name in Letter.__slots__]
            self._base.execute(f"INSERT INTO cases VALUES ({marks})", values)  # noqa: S608 - marks alone
        return letter

    def find(self, case_id: str) -> Letter | None:
        """The letter with this case id; None: there is none."""
        return next(iter(self._read("WHERE case_id = ?", case_id)), None)

    def due(self, callback: str, moment: float, most: int, but: Collection[str]) -> list[Letter]:
        """Pending letters for this callback that are due, the longest due first, without those in ``but``."""
        said = f"WHERE state = 'pending' AND callback = ? AND next_at <= ? {_BUT} ORDER BY next_at LIMIT ?"
        return self._read(said, callback, moment, json.dumps(list(but)), most)

    def next_at(self, callback: str, but: Collection[str]) -> float | None:
        """When the next letter for this callback is due; None: none is pending."""
        said = f"SELECT min(next_at) FROM cases WHERE state = 'pending' AND callback = ? {_BUT}"  # noqa: S608
        found = self._base.execute(said, (callback, json.dumps(list(but)))).fetchone()[0]
        return None if found is None else float(found)

    def settle(self, letter: Letter, tries: int, state: State, status: int | None, moment: float) -> None:
        """Record the outcome of a letter, after ``tries`` further attempts."""
        self._change(letter, tries, "state = ?, settled_at = ?, last_status = ?", state, moment, status)

    def postpone(self, letter: Letter, tries: int, status: int | None, next_at: float) -> None:
        """Try a letter again later, after ``tries`` further attempts."""
        self._change(letter, tries, "next_at = ?, last_status = ?", next_at, status)

    def stranded(self, moment: float) -> list[Letter]:
        """Expired letters whose callback is no longer configured."""
        return self._read(f"WHERE state = 'pending' AND until <= ? AND NOT {_NAMED}", moment, self._named)

    def forget(self, settled_before: float) -> None:
        """Delete letters delivered before this time. Those given up wait for a person's decision."""
        with self._base:
            said = "DELETE FROM cases WHERE state = 'delivered' AND settled_at <= ?"
            self._base.execute(said, (settled_before,))

    def counts(self) -> Counts:
        """Number of letters by callback, configured or not, and state."""
        said = "SELECT callback, state, count(*) FROM cases GROUP BY callback, state"
        return {(callback, state): count for callback, state, count in self._base.execute(said)}

    def close(self) -> None:
        """Close the file."""
        self._base.close()
        os.close(self._lock)

    def _read(self, said: str, *values: object) -> list[Letter]:
        names = ", ".join(Letter.__slots__)
        return [Letter(*row) for row in self._base.execute(f"SELECT {names} FROM cases {said}", values)]  # noqa: S608

    def _change(self, letter: Letter, tries: int, said: str, *values: object) -> None:
        with self._base:
            self._base.execute(
                f"UPDATE cases SET attempts = attempts + ?, {said} WHERE case_id = ?",  # noqa: S608
                (tries, *values, letter.case_id),
            )


class OutboxThread:
    """The outbox for the event loop: each call runs on one thread and updates ``counts``."""

    def __init__(self, path: Path, capacity: int, callbacks: Collection[str]) -> None:
        """Open it; arguments and errors as for ``Outbox``."""
        self._outbox = Outbox(path, capacity, callbacks)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox")
        self.capacity = capacity
        self.counts = self._outbox.counts()

    async def do(self, errand: Callable[[Outbox], Found]) -> Found:
        """Run ``errand`` on the outbox and return its result."""

        def work() -> tuple[Found, Counts]:
            return errand(self._outbox), self._outbox.counts()

        found, self.counts = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        return found

    def close(self) -> None:
        """Close the file."""
        self._thread.shutdown()
        self._outbox.close()


def opened(path: Path, *, existing: bool = False) -> sqlite3.Connection:
    """The file as a database with its tables.

    Raises:
        ConfigError: it cannot be used; or ``existing``, and there is none.
    """
    try:
        if existing and not path.is_file():
            raise ConfigError(f"{path}: no outbox here.")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        base = sqlite3.connect(path, timeout=10.0, check_same_thread=False)
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = FULL")  # an acknowledged case survives a power cut
        base.execute("PRAGMA secure_delete = ON")
        (version,) = base.execute("PRAGMA user_version").fetchone()
        if version == 0:
            base.executescript(f"BEGIN; {_TABLE} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            raise ConfigError(f"{path}: expected an outbox of version {_VERSION}, found {version}.")
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"{path}: the outbox cannot be used ({error}).") from None
    return base


def sealed(key: bytes, case_id: str, callback: str, answer: bytes) -> bytes:
    """An answer encrypted with AES-256-GCM, bound to its case id and callback."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(_sealing_key(key)).encrypt(nonce, answer, f"{case_id}.{callback}".encode())


def unsealed(keys: Sequence[bytes], letter: Letter) -> bytes | None:
    """The answer in a letter; None if none of these keys decrypts it."""
    nonce, text = letter.sealed[:_NONCE_BYTES], letter.sealed[_NONCE_BYTES:]
    for key in keys:
        try:
            bound = f"{letter.case_id}.{letter.callback}".encode()
            return AESGCM(_sealing_key(key)).decrypt(nonce, text, bound)
        except InvalidTag:
            continue
    return None


def _sealing_key(secret: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"lesion-triage outbox 1").derive(secret)
