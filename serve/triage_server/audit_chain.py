"""Format, chaining and verification of an audit log. Imports the exceptions and nothing of the server.

One JSON object a line, ASCII, keys sorted, ``hash`` last: the SHA-256 of the line without it. Each line has
its number and the hash of the line before. So altering, removing or inserting a line changes every later
hash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from lesion_triage.errors import AuditLogError

GENESIS = "0" * 64
"""What the very first line holds as the hash of the line before."""

_FILE = "audit-*.jsonl"
_MAX_LINE_BYTES = 1 << 20
"""Of a case with all its photographs it has some thousands."""
_LINE = re.compile(rb'(\{[ -~]*),"hash":"([0-9a-f]{64})"\}\n')


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """Where a chain ends: the number and the hash of its last line."""

    sequence: int = 0
    head: str = GENESIS


@dataclass(frozen=True)
class VerifiedLog:
    """What a verified log was found to hold."""

    begin: ChainEnd
    """The end that its first line follows; ``ChainEnd()`` if no earlier lines were removed."""
    end: ChainEnd
    files: int
    torn: int
    """Half-written lines left by a killed process; each is described by the line after it."""


@dataclass(frozen=True, slots=True)
class Tail:
    """How a log ends, before it is continued."""

    end: ChainEnd
    remains: bytes
    """Bytes of a half-written line, after the last whole one."""
    line_end_missing: bool
    """Whether the last line is whole except for its newline."""
    time: object
    """As the last whole line has it; None if there is none."""


@dataclass(frozen=True, slots=True)
class Line:
    """One whole line that matches its own hash. Whether it follows the line before is checked elsewhere."""

    fields: Mapping[str, object]
    hash: str


def file_name(first_sequence: int) -> str:
    """Name of the file that begins with this line; names sort in the order of the chain."""
    return f"audit-{first_sequence:012d}.jsonl"


def files_of(folder: Path) -> list[Path]:
    """The files of a log, in the order of the chain."""
    return sorted(folder.glob(_FILE))


def encode_line(fields: Mapping[str, object], after: ChainEnd) -> tuple[bytes, ChainEnd]:
    """One line that follows ``after``, and the new end of the chain."""
    numbered = {**fields, "sequence": after.sequence + 1, "previous": after.head}
    text = json.dumps(numbered, sort_keys=True, separators=(",", ":"), allow_nan=False)
    found = sha256(text.encode()).hexdigest()
    return f'{text[:-1]},"hash":"{found}"}}\n'.encode(), ChainEnd(after.sequence + 1, found)


def torn_fields(time: str, remains: bytes) -> dict[str, object]:
    """Fields of the line that describes the half-written one before it."""
    return {
        "event": "torn",
        "time": time,
        "torn_bytes": len(remains),
        "torn_sha256": sha256(remains).hexdigest(),
    }


def verify(
    path: Path,
    *,
    since: str | None = None,
    head: str | None = None,
    each: Callable[[Mapping[str, object]], None] | None = None,
) -> VerifiedLog:
    """Verify a whole log.

    Args:
        path: its folder, or one of its files.
        since: hash that the first line follows, if older files are kept elsewhere; None: the log begins with
            the very first line.
        head: hash recorded earlier; if no line has it, the log was cut off before that line.
        each: called with the fields of every verified line, in order.

    Raises:
        AuditLogError: names the first line that was altered, or what is missing.
    """
    files = files_of(path) if path.is_dir() else [path]
    if not files:
        raise AuditLogError(f"{path}: no audit log here, expected files such as {file_name(1)}.")
    reader = _ChainReader(since, head, each)
    for file in files:
        reader.read_file(file)
        if reader.remains:
            raise AuditLogError(
                f"{file}: line {reader.number + 1} is cut off ({len(reader.remains)} bytes, no end). If the "
                "server was killed, its next start with this log records that; otherwise the file was "
                "altered."
            )
    if reader.begin is None:
        raise AuditLogError(f"{path}: the log has no lines.")
    if not reader.head_found:
        raise AuditLogError(
            f"{path}: no line has the hash {head}, which was recorded earlier. The log ends with line "
            f"{reader.end.sequence}: later lines were removed, or it is another log."
        )
    return VerifiedLog(reader.begin, reader.end, len(files), reader.torn)


def read_tail(folder: Path) -> Tail:
    """The end of the chain in ``folder``, and what comes after its last whole line.

    Verifies the last two files: the process may have been killed just after it opened the last.

    Raises:
        AuditLogError: they hold a line that was altered, or no line of a log that had some.
    """
    reader, files = _ChainReader(None, None, None, starts_anywhere=True), files_of(folder)
    for file in files[-2:]:
        reader.read_file(file)
    if reader.begin is None and files and files[-1].name != file_name(1):
        raise AuditLogError(
            f"{files[-1]}: holds no whole line, and by its name is not the first file of the log; put "
            "the earlier files back, of which the last holds the end of the log."
        )
    line = _parse_line(reader.remains + b"\n")
    if line is not None and line.fields.get("previous") == reader.end.head:
        end = ChainEnd(reader.end.sequence + 1, line.hash)
        return Tail(end, b"", line_end_missing=True, time=line.fields.get("time"))
    return Tail(reader.end, reader.remains, line_end_missing=False, time=reader.time)


class _ChainReader:
    """Reads line by line, and knows what the next line must follow."""

    def __init__(
        self,
        since: str | None,
        head: str | None,
        each: Callable[[Mapping[str, object]], None] | None,
        *,
        starts_anywhere: bool = False,
    ) -> None:
        self._each = each
        self._since = GENESIS if since is None else since
        self._starts_anywhere = starts_anywhere
        self._head = head
        self.head_found = head is None or head == self._since
        self.begin: ChainEnd | None = None
        self.end = ChainEnd()
        self.remains = b""
        self.torn = 0
        self.time: object = None
        """Of the last line."""
        self.number = 0
        """Of the line in its file, from 1; for error messages."""

    def read_file(self, file: Path) -> None:
        self.number = 0
        torn = b""
        for raw in _lines(file):
            self.number += 1
            if torn:
                self._accept_torn_line(file, raw, torn)
                torn = b""
            elif not raw.endswith(b"\n"):
                self.remains = raw
                self.number -= 1
                return
            elif (line := _parse_line(raw)) is None:
                torn = raw
            else:
                self._accept_line(file, line)
        if torn:
            raise self._altered_error(file, self.number, "does not fit its own hash")

    def _accept_torn_line(self, file: Path, raw: bytes, torn: bytes) -> None:
        """Accept a line that does not match its hash only if the next line describes it as half written."""
        line = _parse_line(raw)
        told = torn_fields("", torn[:-1])
        if line is None or any(
            line.fields.get(key) != told[key] for key in ("event", "torn_bytes", "torn_sha256")
        ):
            raise self._altered_error(file, self.number - 1, "does not fit its own hash")
        self.torn += 1
        self._accept_line(file, line)

    def _accept_line(self, file: Path, line: Line) -> None:
        sequence, previous = line.fields.get("sequence"), line.fields.get("previous")
        if not isinstance(sequence, int) or not isinstance(previous, str):
            raise self._altered_error(
                file, self.number, "has no sequence number, or no hash of the line before it"
            )
        if self.begin is None:
            begin = ChainEnd(sequence - 1, previous)
            if not self._starts_anywhere and (
                previous != self._since or (begin.sequence == 0) != (previous == GENESIS)
            ):
                raise AuditLogError(
                    f"{file}: begins with line {sequence} of the log, which follows {previous} and not "
                    f"{self._since}; put the earlier files back, or give the hash that they end with "
                    "(--since)."
                )
            self.begin = self.end = begin
        if (sequence, previous) != (self.end.sequence + 1, self.end.head):
            raise self._altered_error(
                file, self.number, f"is number {sequence}, and does not follow number {self.end.sequence}"
            )
        self.end = replace(self.end, sequence=sequence, head=line.hash)
        self.time = line.fields.get("time")
        self.head_found = self.head_found or line.hash == self._head
        if self._each is not None:
            self._each(line.fields)

    def _altered_error(self, file: Path, number: int, what: str) -> AuditLogError:
        return AuditLogError(
            f"{file}: line {number} {what}; it was altered, or lines before it were removed or inserted. "
            "Keep a copy of the file as it is."
        )


def _lines(file: Path) -> Iterator[bytes]:
    """Each line, the last one perhaps without its end.

    Raises:
        AuditLogError: one is longer than the server writes any, or the file cannot be read.
    """
    number = 0
    try:
        with file.open("rb") as stream:
            while raw := stream.readline(_MAX_LINE_BYTES):
                number += 1
                if len(raw) == _MAX_LINE_BYTES and not raw.endswith(b"\n"):
                    raise AuditLogError(
                        f"{file}: line {number} has more than {_MAX_LINE_BYTES} bytes, as no line of the "
                        "server has; the file was damaged or altered. Keep a copy of it as it is."
                    )
                yield raw
    except OSError as error:
        raise AuditLogError(f"{file}: cannot be read ({error.strerror}).") from None


def _parse_line(raw: bytes) -> Line | None:
    """A line that matches its own hash; None if it does not."""
    if (found := _LINE.fullmatch(raw)) is None:
        return None
    text, said = found[1] + b"}", found[2].decode()
    if sha256(text).hexdigest() != said:
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return None
    return Line(fields, said)
