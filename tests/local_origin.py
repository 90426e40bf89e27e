"""A web server on this machine that misbehaves as told."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Cut:
    """Close the connection after so many bytes of the body."""

    after_bytes: int
    ranges: bool = True
    """Whether a range is honoured before that."""


@dataclass(frozen=True)
class Status:
    """Answer with a code and nothing else."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Odd:
    """A whole answer with something wrong: no ranges, other headers, another claim of where it begins."""

    ranges: bool = True
    if_range: bool = True
    """Whether the condition of a range is looked at."""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unmeasured:
    """An answer of unknown length; the connection ends it, after so many bytes or after all."""

    after_bytes: int | None = None
    chunked: bool = False
    """Whether it says in chunks where it ends; cut, it does not come to that."""


@dataclass(frozen=True)
class Asked:
    path: str
    range: str | None
    if_range: str | None


@dataclass
class Origin:
    """Files by path, what to do with the next requests for each, and what was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str | None] = field(default_factory=dict)
    script: dict[str, list[Cut | Status | Odd | Unmeasured]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = content
        self.tags[path] = f'"{hashlib.sha256(content).hexdigest()[:12]}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin: Origin

    def do_GET(self) -> None:
        origin, path = self.origin, self.path
        asked = Asked(path, self.headers.get("Range"), self.headers.get("If-Range"))
        origin.asked.append(asked)
        turn = origin.script.get(path, [])
        answer = turn.pop(0) if turn else Odd()
        content = origin.files.get(path)
        if content is None and not isinstance(answer, Status):
            answer = Status(404)
        if isinstance(answer, Status):
            self._head(answer.code, {"Content-Length": "0"} | answer.headers)
            return
        assert content is not None
        if isinstance(answer, Unmeasured):
            self._unmeasured(answer, content)
            return
        if isinstance(answer, Odd) and not answer.if_range:
            asked = replace(asked, if_range=None)
        start = self._start(asked, origin.tags[path], answer.ranges)
        if start is not None and start >= len(content):
            self._head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
            return
        body = content[start or 0 :]
        headers = {"Content-Length": str(len(body)), "Content-Type": "application/octet-stream"}
        if origin.tags[path]:
            headers["ETag"] = str(origin.tags[path])
        if start is not None:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        other_headers = {} if isinstance(answer, Cut) else answer.headers
        self._head(200 if start is None else 206, headers | other_headers)
        if isinstance(answer, Cut):
            self.wfile.write(body[: answer.after_bytes])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.wfile.write(body)

    def _unmeasured(self, answer: Unmeasured, content: bytes) -> None:
        self._head(200, {"Transfer-Encoding": "chunked"} if answer.chunked else {"Connection": "close"})
        body = content[: answer.after_bytes]
        self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n" if answer.chunked else body)
        if answer.chunked and answer.after_bytes is None:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _start(self, asked: Asked, tag: str | None, ranges: bool) -> int | None:
        """Where a partial answer begins; None for a whole one, as RFC 9110 has it for If-Range."""
        found = re.fullmatch(r"bytes=(\d+)-", asked.range or "")
        if not found or not ranges or (asked.if_range and asked.if_range != tag):
            return None
        return int(found[1])

    def _head(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the plan."""


@contextmanager
def serve() -> Iterator[Origin]:
    made = Origin()
    handler = type("Handler", (_Handler,), {"origin": made})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
