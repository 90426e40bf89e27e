"""Who asked what, when, and what was answered: one line for each answer, on the disk before it is sent.

Imports the chain and the exception tree. No photograph, no file name and no text of a history comes here,
only hashes under a key of the site.
"""

from __future__ import annotations

import asyncio
import fcntl
import hmac
import logging
import os
import queue
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from lesion_triage.errors import AuditLogError
from triage_server.audit_chain import End, file_name, files_of, spell, tail_of, torn_fields

KEY_FILE = "inputs.key"
_LOCK_FILE = "lock"
_MAX_GROUP = 512
_PROBE_EVERY_S = 1.0
_flush = getattr(os, "fdatasync", os.fsync)

log = logging.getLogger("triage_server")

Fields = Mapping[str, object]
_Job = tuple[Fields | None, "asyncio.Future[End]"]


def now() -> str:
    """UTC, ISO 8601, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class AuditLog:
    """The one writer of a log folder. ``append`` and ``probe`` belong to one event loop."""

    def __init__(self, folder: Path, rotate_bytes: int, opening: Fields | None = None) -> None:
        """Take a log over where it ends, or begin one; ``close`` gives it back.

        Args:
            folder: made if it is missing; readable by its owner alone.
            rotate_bytes: a file that is longer is followed by another.
            opening: a line to begin with; None: none.

        Raises:
            AuditLogError: another process writes it, its end is altered, or it cannot be written.
        """
        self._folder, self._rotate_bytes = folder, rotate_bytes
        self._end, self._handle, self._size = End(), -1, 0
        self._failed: str | None = None
        self._unrecorded = 0
        self._probed = 0.0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        with ExitStack() as undo:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._lock = _locked(folder)
                undo.callback(os.close, self._lock)
                self._key = _key(folder / KEY_FILE)
                self._take_over()
                if opening is not None:
                    self._append([{"time": now(), **opening}])
            except OSError as error:
                raise AuditLogError(
                    f"{folder}: the log cannot be written ({error.strerror}); mend that and start again."
                ) from None
            undo.pop_all()
        self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def end(self) -> End:
        """Number and hash of the last line on the disk."""
        return self._end

    @property
    def failed(self) -> bool:
        """The last write did not reach the disk, and nothing has reached it since."""
        return self._failed is not None

    def hash_of(self, data: bytes) -> str:
        """HMAC-SHA-256 under the site's key: tells two inputs apart, and tells nobody else what they are."""
        return hmac.digest(self._key, data, "sha256").hex()

    async def append(self, fields: Fields) -> End:
        """Write one line; several callers share one flush.

        Returns:
            The line's number and hash, once it is on the disk.

        Raises:
            AuditLogError: it is not. Nothing of it stays.
        """
        return await self._submit({"time": now(), **fields})

    async def probe(self) -> bool:
        """Whether the log can be written; after a failure this tries, once a second at most."""
        loop = asyncio.get_running_loop()
        if self.failed and loop.time() - self._probed >= _PROBE_EVERY_S:
            self._probed = loop.time()
            try:
                await self._submit(None)
            except AuditLogError:
                return False
        return not self.failed

    def close(self, closing: Fields | None = None) -> None:
        """Write what is waiting and a last line, if one is given, and let the folder go."""
        self._jobs.put(None)
        self._thread.join()
        if closing is not None:
            try:
                self._record([{"time": now(), **closing}])
            except OSError as error:
                self._fail(error, 0)
        os.close(self._handle)
        os.close(self._lock)

    async def _submit(self, fields: Fields | None) -> End:
        future: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._jobs.put((fields, future))
        return await future

    def _work(self) -> None:
        """The writing thread: whatever has come while the last group was being flushed is the next group."""
        while (job := self._jobs.get()) is not None:
            group, last = [job], False
            while len(group) < _MAX_GROUP and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    last = True
                    break
                group.append(following)
            self._settle(group)
            if last:
                return

    def _settle(self, group: Sequence[_Job]) -> None:
        outcome: list[End] | AuditLogError
        try:
            outcome = self._record([fields for fields, _ in group])
        except OSError as error:
            self._fail(error, sum(fields is not None for fields, _ in group))
            outcome = AuditLogError(f"{self._folder}: the audit log cannot be written ({error.strerror}).")
        loop = group[0][1].get_loop()
        try:
            loop.call_soon_threadsafe(_tell, [future for _, future in group], outcome)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _record(self, group: Sequence[Fields | None]) -> list[End]:
        lines = [fields for fields in group if fields is not None]
        if self._failed is not None:
            # What was left half written was never acknowledged.
            os.ftruncate(self._handle, self._size)
            resumed = {
                "event": "resumed",
                "time": now(),
                "error": self._failed,
                "unrecorded": self._unrecorded,
            }
            self._append([resumed])
            self._failed, self._unrecorded = None, 0
            log.warning("audit log is written again")
        ends = iter(self._append(lines)) if lines else iter(())
        return [self._end if fields is None else next(ends) for fields in group]

    def _append(self, lines: Sequence[Fields]) -> list[End]:
        """Lines behind each other, and one flush; in another file if this one is full."""
        if self._size >= self._rotate_bytes:
            self._rotate()
        end, ends, spelt = self._end, [], []
        for fields in lines:
            line, end = spell(fields, end)
            spelt.append(line)
            ends.append(end)
        self._write(b"".join(spelt), end)
        return ends

    def _write(self, data: bytes, end: End) -> None:
        """Bytes behind the open file, on the disk. On an error it may be longer than ``_size``."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]
        _flush(self._handle)
        self._size += len(data)
        self._end = end

    def _rotate(self) -> None:
        handle, size = _appending(self._folder / file_name(self._end.sequence + 1))
        os.close(self._handle)
        self._handle, self._size = handle, size
        _flush_names(self._folder)

    def _take_over(self) -> None:
        tail, files = tail_of(self._folder), files_of(self._folder)
        self._end = tail.end
        self._handle, self._size = _appending(files[-1] if files else self._folder / file_name(1))
        _flush_names(self._folder)
        if tail.line_end_missing:
            self._repair(b"\n", self._end)
        elif tail.remains:
            line, end = spell(torn_fields(now(), tail.remains), self._end)
            self._repair(b"\n" + line, end)

    def _repair(self, data: bytes, end: End) -> None:
        """All or nothing, and in the file that was left, however full: else the chain would never hold again."""
        try:
            self._write(data, end)
        except OSError:
            os.ftruncate(self._handle, self._size)
            raise

    def _fail(self, error: OSError, lines: int) -> None:
        self._unrecorded += lines
        if self._failed is None:
            log.error("audit log cannot be written: %s", error.strerror)
        self._failed = error.strerror or "unknown"


def _tell(futures: Sequence[asyncio.Future[End]], outcome: list[End] | AuditLogError) -> None:
    for position, future in enumerate(futures):
        if future.done():
            continue
        if isinstance(outcome, AuditLogError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome[position])


def _appending(file: Path) -> tuple[int, int]:
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    return handle, os.fstat(handle).st_size


def _flush_names(folder: Path) -> None:
    """Without it a power cut could undo that the file was made."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(folder: Path) -> int:
    """A lock that ends with the process, however it ends."""
    handle = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AuditLogError(
            f"{folder}: another server writes this audit log; give each server a folder of its own."
        ) from None
    return handle


def _key(file: Path) -> bytes:
    """The site's key, made at the first start: whole, or not there."""
    if not file.exists():
        draft = file.with_suffix(".tmp")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(file)
    return read_key(file)


def read_key(file: Path) -> bytes:
    """The key of a log folder.

    Raises:
        AuditLogError: not readable, or not 64 hexadecimal digits.
    """
    try:
        text = file.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise AuditLogError(f"{file}: cannot be read ({error.strerror}).") from None
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise AuditLogError(
            f"{file}: expected 64 hexadecimal digits; bring the key back from where it is kept."
        )
    return bytes.fromhex(text)
