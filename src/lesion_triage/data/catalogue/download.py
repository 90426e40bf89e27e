"""Downloads one file over HTTP: resumed after an interruption, verified, and only then given its name.

Imports errors, files. Until it is complete, the bytes are in ``NAME.part`` and the server's metadata in
``NAME.part.json``. A partial file is only continued if the server still has the same file: its entity tag is
sent as If-Range (RFC 9110, 13.1.5), so that a changed file is sent whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import requests
from urllib3.exceptions import HTTPError as TransportError

from lesion_triage import __version__
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.retry_after import requested_pause_s
from lesion_triage.console import ProgressCallback
from lesion_triage.data.catalogue.checksums import describe_mismatch, sha256_and_md5
from lesion_triage.data.catalogue.entry import RemoteFile
from lesion_triage.errors import DownloadError

_CHUNK = 1 << 20
_TIMEOUT_S = (20.0, 60.0)
_RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HTML_CONTENT_TYPE = re.compile(r"^text/html\b", re.IGNORECASE)


class _TransientError(Exception):
    """A transient failure of server or connection; carries the wait that the server asks for."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class RetryPolicy:
    """How often a transient failure is retried, and how long to wait in between."""

    max_attempts: int = 6
    """Failed attempts in a row without a byte more than ever before; any progress resets the count."""
    initial_wait_s: float = 1.0
    max_wait_s: float = 60.0

    def wait(self, failures: int, asked_s: float | None) -> None:
        """Wait longer after each failure, or as long as the server asked; at most ``max_wait_s``."""
        # Jitter: many clients that were cut off together must not come back together.
        backoff = random.uniform(0.5, 1.0) * self.initial_wait_s * 2 ** (failures - 1)
        time.sleep(min(self.max_wait_s, backoff if asked_s is None else asked_s))


@dataclass(frozen=True)
class DownloadedFile:
    """A file that was downloaded completely."""

    sha256: str
    size_bytes: int
    url: str
    resumed: bool
    """Whether some of it came from an earlier attempt."""
    verifiable: bool = True
    """Whether publisher or server stated length or checksum; if not, a lost connection looks like the end."""


@dataclass(frozen=True)
class UnavailableFile:
    """No official address has the file."""

    why: str


def open_session() -> requests.Session:
    """A session with our user agent. Proxies and certificates come from the environment, as usual."""
    session = requests.Session()
    # Compression in transit would change lengths and ranges.
    session.headers.update({"User-Agent": f"lesion-triage/{__version__}", "Accept-Encoding": "identity"})
    return session


def download(
    session: requests.Session,
    wanted: RemoteFile,
    target: Path,
    tick: ProgressCallback,
    retry_policy: RetryPolicy | None = None,
) -> DownloadedFile | UnavailableFile:
    """Download one file; the official addresses are tried in order.

    Args:
        session: from ``open_session``.
        wanted: the file.
        target: its folder is created.
        tick: called with (bytes present, total bytes); the total is 0 while unknown.
        retry_policy: for transient failures.

    Returns:
        What was downloaded, or why no address has it.

    Raises:
        DownloadError: the disk is full, the connection stays lost, or the file is not what was published.
            After a full disk or a lost connection the partial file is kept, and the next call resumes it.
    """
    retry_policy = retry_policy or RetryPolicy()
    absent: list[str] = []
    with reporting_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        for url in wanted.urls:
            try:
                return _Transfer(session, wanted, url, target).run(tick, retry_policy)
            except _NotFoundError as error:
                absent.append(str(error))
    return UnavailableFile("; ".join(absent) or f"no address of {wanted.name} is known")


@contextmanager
def reporting_write_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system error while writing into one sentence; earlier files are kept.

    Raises:
        DownloadError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"{path}: {_reason(error)}. Make room or choose another folder, and run the same command again."
        ) from None


def _reason(error: OSError) -> str:
    return (
        "the disk is full" if error.errno in _DISK_FULL_ERRNOS else f"it cannot be written ({error.strerror})"
    )


class _NotFoundError(Exception):
    """This address does not have the file; another may."""


class _Transfer:
    """The transfer of one file from one address."""

    def __init__(self, session: requests.Session, wanted: RemoteFile, url: str, target: Path) -> None:
        self.session, self.wanted, self.url, self.target = session, wanted, url, target
        self.part = target.with_name(f"{target.name}.part")
        self.state = target.with_name(f"{target.name}.part.json")
        self.resumed = False
        self.length_known = False

    def run(self, tick: ProgressCallback, retry_policy: RetryPolicy) -> DownloadedFile:
        with _exclusive_part_file(self.part) as stream:
            failures, most = 0, -1
            while True:
                try:
                    self._request_remainder(stream, tick)
                    break
                except _TransientError as error:
                    received = _file_size(stream)
                    failures = 1 if received > most else failures + 1
                    most = max(most, received)
                    if failures >= retry_policy.max_attempts:
                        raise DownloadError(
                            f"{self.url}: {error}, {failures} times in a row. {received:,} bytes are kept in "
                            f"{self.part.name}; the same command continues from there."
                        ) from None
                    retry_policy.wait(failures, error.wait_s)
            os.fsync(stream.fileno())
            return self._finish()

    def _request_remainder(self, stream: IO[bytes], tick: ProgressCallback) -> None:
        """One request: for the rest of the file, or for all of it if a range is not available."""
        received, validator, total = self._resume_state(stream)
        if received and received == total:
            self.length_known = True
            return
        headers = (
            {"Range": f"bytes={received}-"} | ({"If-Range": validator} if validator else {})
            if received
            else {}
        )
        try:
            with self.session.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
                if _nothing_left(response, received):
                    self.length_known = True
                    return
                start, total = self._check_response(response, received, validator)
                if start is None:
                    _truncate(stream)
                    raise _TransientError("the file on the server has changed; starting over", 0.0)
                self.resumed = self.resumed or start > 0
                if start < received:
                    _truncate(stream)
                self._save_state(response, total)
                self._check_disk_space(total, start)
                # A chunked response marks its end; if it is cut off before that, reading raises.
                self.length_known = bool(total) or "chunked" in response.headers.get("Transfer-Encoding", "")
                self._copy_body(response, stream, start, total, tick)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            raise _TransientError(f"the connection failed ({_root_cause(error)})") from None
        except TransportError as error:
            raise _TransientError(f"the connection failed ({_root_cause(error)})") from None
        except requests.RequestException as error:
            raise DownloadError(f"{self.url}: cannot be requested ({_root_cause(error)}).") from None

    def _resume_state(self, stream: IO[bytes]) -> tuple[int, str, int]:
        """Bytes to keep, the validator that proves the server's file unchanged, and its length or 0."""
        received = _file_size(stream)
        saved = _read_json(self.state)
        validator = str(saved.get("validator") or "")
        # Without a validator, only a published checksum can tell whether old and new bytes fit together.
        provable = bool(validator or self.wanted.sha256 or self.wanted.md5)
        if received and (saved.get("url") != self.url or not provable):
            _truncate(stream)
            received = 0
        total = saved.get("size_bytes")
        return received, validator, total if isinstance(total, int) and received else 0

    def _check_response(
        self, response: requests.Response, received: int, validator: str
    ) -> tuple[int | None, int]:
        """Offset at which the response body begins, and the length of the whole file (0 if unknown).

        None as offset: the bytes at hand do not fit, start over.
        """
        code = response.status_code
        if code in _RETRYABLE_STATUSES:
            asked_s = requested_pause_s(response.headers.get("Retry-After", ""))
            raise _TransientError(f"the server answered {code}", asked_s or None)
        if code in (404, 410):
            raise _NotFoundError(f"{self.url} answered {code}")
        if code == 416:
            return None, 0
        if code not in (200, 206):
            raise DownloadError(
                f"{self.url}: expected the file, the server answered {code} {response.reason}. It may "
                "require an account by now; `lesion-triage datasets show NAME` has the steps by hand."
            )
        self._refuse_html(response)
        length = response.headers.get("Content-Length", "")
        if code == 200:
            total = int(length) if length.isdecimal() else 0
            self._refuse_size(total)
            return 0, total
        content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if content_range is None or int(content_range[1]) != received:
            return None, 0
        if validator and _validator(response) not in (validator, ""):  # some servers ignore If-Range
            return None, 0
        total = (
            int(content_range[2])
            if content_range[2] != "*"
            else (received + int(length) if length.isdecimal() else 0)
        )
        self._refuse_size(total)
        return received, total

    def _refuse_html(self, response: requests.Response) -> None:
        kind = response.headers.get("Content-Type", "")
        if _HTML_CONTENT_TYPE.match(kind) and not self.target.name.endswith((".html", ".htm")):
            raise DownloadError(
                f"{self.url}: expected {self.target.name}, found a web page ({kind}): a login, or a notice "
                "that the file has moved. Open the address in a browser and get the file by hand."
            )
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise DownloadError(
                f"{self.url}: expected the file unencoded, the server sends it {encoding}-encoded."
            )

    def _refuse_size(self, total: int) -> None:
        if total and self.wanted.size_bytes is not None and total != self.wanted.size_bytes:
            raise DownloadError(
                f"{self.url}: expected {self.wanted.size_bytes:,} bytes as published, the server has "
                f"{total:,}; the publisher changed the file. Nothing was downloaded."
            )

    def _save_state(self, response: requests.Response, total: int) -> None:
        state = {"url": self.url, "validator": _validator(response), "size_bytes": total or None}
        write_atomically(self.state, json.dumps(state).encode())

    def _check_disk_space(self, total: int, start: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if total - start > free:
            raise DownloadError(
                f"{self.target}: {total - start:,} more bytes are needed, the disk has {free:,} free. Make "
                f"room or choose another folder; {start:,} bytes are kept and the same command continues."
            )

    def _copy_body(
        self, response: requests.Response, stream: IO[bytes], start: int, total: int, tick: ProgressCallback
    ) -> None:
        done = start
        tick(done, total)
        for block in response.raw.stream(_CHUNK, decode_content=False):
            try:
                _write_all(stream, block)
            except OSError as error:
                raise self._write_error(error, stream) from None
            done += len(block)
            tick(done, total)
        if total and done != total:
            raise _TransientError(f"the connection was cut at {done:,} of {total:,} bytes")

    def _write_error(self, error: OSError, stream: IO[bytes]) -> DownloadError:
        return DownloadError(
            f"{self.part}: {_reason(error)}; {_file_size(stream):,} bytes are kept. Make room, or move the "
            "part and its .json to another folder, and run the same command again."
        )

    def _finish(self) -> DownloadedFile:
        sha256, md5 = sha256_and_md5(self.part)
        size = self.part.stat().st_size
        wrong = describe_mismatch(self.wanted, size, sha256, md5)
        if wrong:
            rejected = self.target.with_name(f"{self.target.name}.rejected")
            self.part.replace(rejected)
            self.state.unlink(missing_ok=True)
            raise DownloadError(
                f"{self.url}: {wrong}. The download was kept as {rejected.name} and must not be used; try "
                "again, and if it happens again, ask the publisher."
            )
        self.part.replace(self.target)
        self.state.unlink(missing_ok=True)
        published = self.wanted.size_bytes is not None or self.wanted.sha256 or self.wanted.md5
        return DownloadedFile(sha256, size, self.url, self.resumed, bool(self.length_known or published))


@contextmanager
def _exclusive_part_file(part: Path) -> Iterator[IO[bytes]]:
    """The partial file, unbuffered and at its end; a second process that wants it is refused."""
    with part.open("ab", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = part.exists() and os.path.samestat(os.fstat(stream.fileno()), part.stat())
        except BlockingIOError:
            ours = False
        if not ours:  # still locked, or named or moved away before we had the lock
            raise DownloadError(f"{part}: another process is downloading it; wait until it has finished.")
        yield stream


def _file_size(stream: IO[bytes]) -> int:
    return os.fstat(stream.fileno()).st_size


def _write_all(stream: IO[bytes], block: bytes) -> None:
    """An unbuffered write may write only a part, as just before a disk is full."""
    rest = memoryview(block)
    while rest:
        rest = rest[stream.write(rest) :]


def _nothing_left(response: requests.Response, received: int) -> bool:
    """Whether the server refuses the range because there is nothing left."""
    return response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{received}"


def _validator(response: requests.Response) -> str:
    """What proves that the file on the server is the same as before; empty: nothing."""
    tag = response.headers.get("ETag", "")
    # A weak tag does not promise equal bytes, and If-Range may not carry one (RFC 9110, 13.1.5).
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _truncate(stream: IO[bytes]) -> None:
    stream.truncate(0)


def _read_json(path: Path) -> dict[str, object]:
    try:
        saved = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return saved if isinstance(saved, dict) else {}


def _root_cause(error: Exception) -> str:
    """The innermost cause of a chain of wrapped errors: what failed, without an object's address."""
    while error.args and isinstance(error.args[-1], Exception):
        error = error.args[-1]
    reason = getattr(error, "reason", None)
    text = str(reason if isinstance(reason, Exception) else error)
    return re.sub(r"<[^>]*>:? ?", "", text)[:120] or type(error).__name__
