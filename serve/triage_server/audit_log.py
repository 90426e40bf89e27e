"""The audit log: one line for each answer or refusal, on disk before the answer is sent.

Imports the chain, the folder, the bundle's writer and the exceptions. No photograph, no file name and no text
of a history is written here, only hashes under a key of the site.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import logging
import math
import os
import queue
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Self

from lesion_triage.bundle.files import flush as flush_names
from lesion_triage.errors import AuditLogError
from triage_server.audit_chain import ChainEnd, encode_line, file_name, files_of, read_tail, torn_fields
from triage_server.audit_folder import create_folder, lock_folder, open_for_append, read_or_create_key
from triage_server.timestamps import current_timestamp, parse_timestamp

DEFAULT_TIMEOUT_S = 10.0
"""A line that takes longer counts as failed: a network disk may hang without an error."""
_MAX_GROUP = 512
_PROBE_EVERY_S = 1.0
_flush = getattr(os, "fdatasync", os.fsync)

log = logging.getLogger("triage_server")

Fields = Mapping[str, object]
_Job = tuple[Fields | None, "asyncio.Future[ChainEnd]"]


class AuditLog:
    """The one writer of a log folder. ``append`` and ``probe`` belong to one event loop."""

    def __init__(
        self,
        folder: Path,
        rotate_bytes: int,
        opening: Fields | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Continue a log where it ends, or begin one; ``close`` releases it.

        Args:
            folder: made if it is missing, readable by its owner alone.
            rotate_bytes: a file that has reached this size is followed by another.
            opening: a line to begin with; None: none.
            timeout_s: how long a line may take to reach the disk, and how long ``close`` waits.

        Raises:
            AuditLogError: another process writes the log, its end was altered, its key is lost, or it
                cannot be written.
        """
        self._folder, self._rotate_bytes, self._timeout_s = folder, rotate_bytes, timeout_s
        self._slow = f"did not answer within {timeout_s:g} s"
        self._end, self._file, self._handle, self._size = ChainEnd(), folder, -1, 0
        self.continued_from: datetime | None = None
        """When the line was written after which this continues; None: there is none, or it does not say."""
        self._half_written = False
        """Whether the file may end with bytes of a write that failed."""
        self._failed: str | None = None
        self._unrecorded = 0
        self._probed = 0.0
        self._waiting: deque[tuple[float, asyncio.Future[ChainEnd]]] = deque()
        self._timer_due_at = -math.inf
        self._late = False
        self._closing: Fields | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        with ExitStack() as undo:
            try:
                create_folder(folder)
                self._lock = lock_folder(folder)
                undo.callback(os.close, self._lock)
                self._key = read_or_create_key(folder, begun=bool(files_of(folder)))
                self._take_over()
                if opening is not None:
                    self._append([{"time": current_timestamp(), **opening}])
            except OSError as error:
                raise AuditLogError(
                    f"{folder}: the log cannot be written ({error.strerror}); correct this and restart "
                    "the server."
                ) from None
            undo.pop_all()
        self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def end(self) -> ChainEnd:
        """Number and hash of the last line on disk."""
        return self._end

    @property
    def failed(self) -> bool:
        """Whether the last write failed or was too slow, and none has succeeded since."""
        return self._late or self._failed is not None

    def hash_of(self, data: bytes) -> str:
        """HMAC-SHA-256 under the site's key: equal inputs are recognised; without the key none is guessed."""
        return hmac.digest(self._key, data, "sha256").hex()

    async def append(self, fields: Fields) -> ChainEnd:
        """Write one line; concurrent callers share a flush.

        Returns:
            The line's number and hash, once it is on disk.

        Raises:
            AuditLogError: it did not reach the disk, or not in time. It leaves no trace, unless it was
                already being written when the time ran out.
        """
        return await self._submit({"time": current_timestamp(), **fields})

    async def probe(self) -> bool:
        """Whether the log can be written. After a failure this tries, at most once a second."""
        loop = asyncio.get_running_loop()
        if self._late:
            return False  # only the pending write can end this
        if self.failed and loop.time() - self._probed >= _PROBE_EVERY_S:
            self._probed = loop.time()
            try:
                await self._submit(None)
            except AuditLogError:
                return False
        return not self.failed

    def close(self, closing: Fields | None = None) -> None:
        """Write what is queued and, if given, a closing line; then release the folder."""
        self._closing = closing
        self._jobs.put(None)
        self._thread.join(self._timeout_s)
        if self._thread.is_alive():  # the thread, and what it holds, ends with the process
            log.error(
                "audit log abandoned at shutdown: the disk does not answer, and its last lines may be missing"
            )
            return
        os.close(self._handle)
        os.close(self._lock)

    async def _submit(self, fields: Fields | None) -> ChainEnd:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ChainEnd] = loop.create_future()
        self._jobs.put((fields, future))
        self._watch(loop, future)
        return await future

    def _watch(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[ChainEnd]) -> None:
        """One timer for all that wait: a timer for each line would almost always be cancelled unused."""
        moment = loop.time()
        while self._waiting and self._waiting[0][1].done():
            self._waiting.popleft()
        self._waiting.append((moment + self._timeout_s, future))
        if self._timer_due_at < moment:
            self._timer_due_at = moment + self._timeout_s
            loop.call_at(self._timer_due_at, self._fail_overdue, loop)

    def _fail_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail whatever has waited too long."""
        moment = loop.time()
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= moment):
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(AuditLogError(f"{self._folder}: the audit log's disk {self._slow}."))
                if not self._late:
                    log.error("audit log cannot be written: the disk %s", self._slow)
                self._late = True
        if self._waiting:
            self._timer_due_at = self._waiting[0][0]
            loop.call_at(self._timer_due_at, self._fail_overdue, loop)
        else:
            # No timer; the old time would pass for one if the clock has not moved.
            self._timer_due_at = -math.inf

    def _work(self) -> None:
        """The writing thread. Group commit: what arrived during the last flush is written next, together."""
        while (job := self._jobs.get()) is not None:
            group, last = [job], False
            while len(group) < _MAX_GROUP and not self._jobs.empty():
                following = self._jobs.get()
                if following is None:
                    last = True
                    break
                group.append(following)
            self._commit_group(group)
            if last:
                break
        if self._closing is not None:
            try:
                self._record([{"time": current_timestamp(), **self._closing}])
            except OSError as error:
                self._fail(error.strerror, 0)

    def _commit_group(self, group: Sequence[_Job]) -> None:
        outcome: list[ChainEnd] | AuditLogError
        wanted = [job for job in group if not _has_timed_out(job)]
        if len(wanted) < len(group):
            self._fail(f"the disk {self._slow}", _lines(group) - _lines(wanted))
        try:
            outcome = self._record([fields for fields, _ in wanted])
        except OSError as error:
            self._fail(error.strerror, _lines(wanted))
            outcome = AuditLogError(f"{self._folder}: the audit log cannot be written ({error.strerror}).")
        loop = group[0][1].get_loop()
        try:
            loop.call_soon_threadsafe(self._resolve_futures, [future for _, future in wanted], outcome)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _record(self, group: Sequence[Fields | None]) -> list[ChainEnd]:
        lines = [fields for fields in group if fields is not None]
        self._check_file()
        if self._half_written:
            self._cut_half_written()
        if self._failed is not None:
            resumed = {
                "event": "resumed",
                "time": current_timestamp(),
                "error": self._failed,
                "unrecorded": self._unrecorded,
            }
            self._append([resumed])
            self._failed, self._unrecorded = None, 0
            log.warning("audit log can be written again")
        ends = iter(self._append(lines)) if lines else iter(())
        return [self._end if fields is None else next(ends) for fields in group]

    def _check_file(self) -> None:
        """Refuse to write to a file that is not as this server left it.

        Nobody would find the lines in one that was moved or deleted. In one that was shortened, or written to
        by another program, they would not follow the line before them.

        Raises:
            OSError: there is another file at its path, or none, or its size is not that of our lines.
        """
        found = os.fstat(self._handle)
        try:
            in_place = os.path.samestat(self._file.stat(), found)
        except FileNotFoundError:
            in_place = False
        if not in_place:
            why = f"{self._file.name} was moved or deleted; put it back, or restart the server"
            raise OSError(errno.ESTALE, why)
        if found.st_size < self._size or (found.st_size > self._size and not self._half_written):
            why = (
                f"{self._file.name} has {found.st_size} bytes, and this server left it with {self._size}: "
                "another program shortens it or writes to it; stop that, then restore it or restart"
            )
            raise OSError(errno.ESTALE, why)

    def _append(self, lines: Sequence[Fields]) -> list[ChainEnd]:
        """Write lines together and flush once, into a new file if this one is full."""
        if self._size >= self._rotate_bytes:
            self._rotate()
        end, ends, encoded = self._end, [], []
        for fields in lines:
            line, end = encode_line(fields, end)
            encoded.append(line)
            ends.append(end)
        self._write(b"".join(encoded), end)
        return ends

    def _write(self, data: bytes, end: ChainEnd) -> None:
        """Append bytes and flush them: all of them, or none."""
        rest = memoryview(data)
        self._half_written = True
        try:
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            _flush(self._handle)
        except OSError:
            with suppress(OSError):  # if this fails too, it is cut off before the next line
                self._cut_half_written()
            raise
        self._half_written = False
        self._size += len(data)
        self._end = end

    def _cut_half_written(self) -> None:
        """Cut off what a failed write left behind; it was never acknowledged."""
        os.ftruncate(self._handle, self._size)
        self._half_written = False

    def _rotate(self) -> None:
        file = self._folder / file_name(self._end.sequence + 1)
        handle, size = open_for_append(file)
        try:
            flush_names(self._folder)  # before a line is in it; if this fails, the next line tries again
        except OSError:
            os.close(handle)
            raise
        os.close(self._handle)
        self._file, self._handle, self._size = file, handle, size

    def _take_over(self) -> None:
        tail, files = read_tail(self._folder), files_of(self._folder)
        self._end, self.continued_from = tail.end, parse_timestamp(tail.time)
        self._file = files[-1] if files else self._folder / file_name(1)
        self._handle, self._size = open_for_append(self._file)
        flush_names(self._folder)
        # Always in the file that was left, however full; in another one the chain would not verify.
        if tail.line_end_missing:
            self._write(b"\n", self._end)
        elif tail.remains:
            line, end = encode_line(torn_fields(current_timestamp(), tail.remains), self._end)
            self._write(b"\n" + line, end)

    def _fail(self, why: str | None, lines: int) -> None:
        self._unrecorded += lines
        if self._failed is None:
            log.error("audit log cannot be written: %s", why)
        self._failed = why or "unknown"

    def _resolve_futures(
        self, futures: Sequence[asyncio.Future[ChainEnd]], outcome: list[ChainEnd] | AuditLogError
    ) -> None:
        if self._late and not isinstance(outcome, AuditLogError):
            log.warning("audit log can be written again")
        self._late = False
        for position, future in enumerate(futures):
            if future.done():
                continue
            if isinstance(outcome, AuditLogError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome[position])


def _has_timed_out(job: _Job) -> bool:
    """Whether the caller was told that nothing was recorded. A request whose client has left is recorded."""
    return job[1].done() and not job[1].cancelled()


def _lines(group: Sequence[_Job]) -> int:
    return sum(fields is not None for fields, _ in group)
