"""A real receiver of callbacks, on a thread of the test: notes what came, and answers as it is told."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from triage_client import AnsweredCase, verify_webhook


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.moments.append(time.monotonic())
        status, headers, pause_s = server.script.pop(0) if server.script else (204, {}, 0.0)
        time.sleep(pause_s)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value() if callable(value) else value)
        self.end_headers()
        server.came.append((dict(self.headers), body))

    do_GET = do_POST  # noqa: N815 - the library's names

    def log_message(self, *_: Any) -> None:
        pass


class Receiver:
    """What came, and where it must be sent."""

    def __init__(self, server: Any, scheme: str) -> None:
        self._server = server
        self.port: int = server.server_port
        self.url = f"{scheme}://127.0.0.1:{self.port}/taken?by=ehr"

    @property
    def came(self) -> list[tuple[dict[str, str], bytes]]:
        found: list[tuple[dict[str, str], bytes]] = self._server.came
        return found

    @property
    def moments(self) -> list[float]:
        """When each came, before it was answered; by the monotonic clock, in seconds."""
        found: list[float] = self._server.moments
        return found

    def wait(self, number: int = 1, seconds: float = 30.0) -> list[tuple[dict[str, str], bytes]]:
        until = time.monotonic() + seconds
        while len(self.came) < number:
            assert time.monotonic() < until, f"{len(self.came)} of {number} deliveries came"
            time.sleep(0.02)
        return self.came

    def cases(self, secret: str) -> list[AnsweredCase]:
        return [verify_webhook(body, headers, secret) for headers, body in self.came]


@contextmanager
def receiving(
    *script: tuple[int, dict[str, str | Callable[[], str]], float],
    port: int = 0,
    certificate: tuple[Any, Any] | None = None,
) -> Iterator[Receiver]:
    """One that answers as ``script`` says (status, headers, seconds of pause), and then with 204.

    A header may be a function, which is asked for its value when the answer is due.
    """
    server: Any = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.script, server.came, server.moments = list(script), [], []
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield Receiver(server, "http" if certificate is None else "https")
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()
