"""Limits on connections before any application code: size of a head, time for a head, number of connections.

Extends uvicorn's protocol, which has none of these limits. Imports Starlette's headers, the connection limit,
the watchdog of slow readers, the lingering close, the log's lines, and the wire.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable
from typing import Any, NoReturn

import httptools
from starlette.datastructures import Headers
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from triage_server.connection_limit import ConnectionLimit
from triage_server.lingering_close import LingeringTransport
from triage_server.middleware import EarlyRefusals, request_id_of
from triage_server.problems import Problem, RequestError
from triage_server.settings import Settings
from triage_server.slow_readers import SlowReaderWatchdog
from triage_server.telemetry import Telemetry
from triage_server.wire import PROBLEM_JSON

_MAX_PIPELINED = 16
"""Pipelined requests that may wait behind one that is being answered; each is held in memory until then."""


class _StoppedError(Exception):
    """Raised inside the parser to stop it."""


def make_protocol_class(settings: Settings, telemetry: Telemetry) -> type[asyncio.Protocol]:
    """The protocol class with the limits of these settings; uvicorn makes one instance per connection.

    Args:
        settings: of the operator.
        telemetry: of the application; counts what never reaches it.
    """

    class ConfiguredProtocol(LimitedProtocol):
        max_head_bytes = settings.max_head_bytes
        head_timeout_s = settings.head_timeout_s
        read_timeout_s = settings.body_timeout_s
        max_discarded_bytes = 2 * settings.max_body_bytes  # a little too much still gets its refusal
        connection_limit = ConnectionLimit(settings.max_connections, telemetry)
        early_refusals = EarlyRefusals(telemetry)

    return ConfiguredProtocol


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    max_head_bytes: int
    head_timeout_s: float
    read_timeout_s: float
    max_discarded_bytes: int
    connection_limit: ConnectionLimit
    early_refusals: EarlyRefusals

    _head_bytes = 0
    """Bytes since the head began that came without any of a body."""
    _in_request = False
    """Whether a request has begun and is not complete."""
    _progressed = False
    """Whether the present piece of data had some of a body, or began a request."""
    _ended = False
    """Whether a request ended in the present piece of data."""
    _answering: RequestResponseCycle | None = None
    """The request being answered; ``cycle`` is the newest that arrived."""
    _head_pending = True
    _head_timer: asyncio.TimerHandle | None = None
    _refusal = "request_not_valid"
    _plain_head: bytes | None = None
    """A head that offers a protocol upgrade and announces a body, rewritten without the offer."""
    _refused: RequestError | None = None
    """A fault found behind a request that is not answered yet. Sent after that answer; no more is read."""
    _lingering: LingeringTransport
    _watchdog: SlowReaderWatchdog | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, unless too many are open, and start the time limit for its first head."""
        self._lingering = LingeringTransport(transport, self._more_may_come, self.max_discarded_bytes)
        super().connection_made(self._lingering)
        if not self.connection_limit.admit(self, transport.abort):
            transport.abort()
            return
        self._watchdog = SlowReaderWatchdog(transport, self.read_timeout_s)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up; a request without an answer by now gets none."""
        if self._answering is not None and not self._answering.response_started:
            self._answering.scope["state"]["left"] = True
        self._head_arrived()
        self._lingering.on_connection_lost()
        if self._watchdog is not None:
            self._watchdog.stop()
        self.connection_limit.release(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count bytes of the head here too: an endless header reaches no callback."""
        if self._lingering.lingers:
            self._lingering.discard(data)
            return
        if self._refused is not None:
            return
        begun, between = self._head_pending, self._in_request and not self._head_pending
        self._progressed = self._ended = False
        self._feed(data)
        if self.transport.is_closing() or self._refused is not None:
            return
        if begun and self._head_pending:
            # Before this head, the same piece held the end of another request, perhaps with body.
            self._head_bytes = self._counted if self._ended else self._head_bytes + len(data)
        elif between and self._in_request and not self._progressed:
            self._head_bytes += len(data)  # between chunks or after the last: counted like a head
        if self._head_bytes > self.max_head_bytes:
            self._refuse("head_too_large")

    def on_message_begin(self) -> None:
        """A head begins. Only this ends a silence: an empty line before a head would wait for ever."""
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._in_request = self._progressed = True
        self._counted = 0
        if self._head_timer is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """Part of the request target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Trailers are counted, but are not headers (RFC 9110, section 6.5.1)."""
        self._count(len(name) + len(value) + 4)
        if self._head_pending:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._stop("request_not_valid")  # what follows is meant for another server
            if any(map(_announces_body, self.headers)):
                self._plain_head = self._head_without_upgrade()
                return
        if len(_codings(self.headers)) > 1:  # the parser ensures that the last is chunked, but no more
            self._stop("transfer_coding_not_supported")  # RFC 9112, section 6.1
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._stop("request_not_valid")  # the same, section 3.2
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._stop("too_many_requests_ahead")
        self._head_arrived()
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle

    def on_body(self, body: bytes) -> None:
        """Part of the body."""
        self._progressed, self._head_bytes = True, 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete, unless the parser stopped before its body at an upgrade offer."""
        if self._plain_head is None:
            self._in_request, self._ended = False, True
            super().on_message_complete()
            self._wait_if_answered()
            if not self.pipeline:  # else the client's leaving would go unnoticed; requests ahead may wait
                self.flow.resume_reading()

    def resume_writing(self) -> None:
        """The peer has received enough for more to be written."""
        if self._watchdog is not None:
            self._watchdog.record_progress()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """A request is answered; the next one of this connection may begin."""
        if self._refused is not None and not self.pipeline:
            self._send_refusal(self._refused)
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()
        self._wait_if_answered()
        self._lingering.limit_tls_closure()

    def shutdown(self) -> None:
        """The server stops; do not wait for the rest of what is answered or never will be."""
        super().shutdown()
        if self._lingering.is_closing():
            self._lingering.end()

    def _more_may_come(self) -> bool:
        return self._in_request or self.flow.read_paused

    def _feed(self, data: bytes) -> None:
        """Parse all data. At a protocol upgrade offer, the parser stops before the body.

        It would take the body for the next request, whatever the head announces. No other protocol is spoken
        here, and a server may ignore an offer (RFC 9110, section 7.8), so the head is parsed again without
        it.
        """
        while data and self._refused is None and not self.transport.is_closing():
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
                if self._plain_head is not None:
                    data, self._plain_head = self._plain_head + data, None
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            except httptools.HttpParserError:
                self._refuse(self._refusal)
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        first = b"%s %s HTTP/%s" % (
            self.parser.get_method(),
            self.url,
            self.parser.get_http_version().encode(),
        )
        kept = [b"%s: %s" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([first, *kept, b"", b""])

    def _count(self, size: int) -> None:
        self._counted += size
        if self._counted > self.max_head_bytes:
            self._stop("head_too_large")

    def _stop(self, code: str) -> NoReturn:
        """Abort parsing, and refuse with this code."""
        self._refusal = code
        raise _StoppedError

    def _await_head(self) -> None:
        self._head_pending, self._head_bytes, self._counted = True, 0, 0
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._on_head_timeout)

    def _head_arrived(self) -> None:
        self._head_pending = False
        self.connection_limit.hear(self)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _wait_if_answered(self) -> None:
        if self.cycle.response_complete and (self._head_pending or not self._in_request):
            self.connection_limit.wait(self)

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if self._head_pending and not self.transport.is_closing():
            self._refuse("head_not_received")

    def _refuse(self, code: str) -> None:
        self._head_arrived()
        refusal = RequestError(
            code, limit=self.max_head_bytes, seconds=self.head_timeout_s, most=_MAX_PIPELINED
        )
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()  # the newest request, whose own body is broken
        elif self.cycle is None or self.cycle.response_complete:
            self._send_refusal(refusal)
            return
        elif self.cycle.more_body:
            self._send_refusal(refusal, self._abandon_body(refusal))
            return
        self._refused = refusal
        self.flow.pause_reading()

    def _abandon_body(self, refusal: RequestError) -> str:
        """Tell the application that the rest of the body will not come, and its log line why.

        Returns:
            The id of that request.
        """
        state: dict[str, Any] = self.cycle.scope["state"]
        state["refused"] = refusal
        request_id: str = state.setdefault(
            "request_id", request_id_of(Headers(raw=list(self.cycle.scope["headers"])))
        )
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return request_id

    def _send_refusal(self, refusal: RequestError, request_id: str | None = None) -> None:
        """Send a refusal and close. Without an id, the application knows nothing of it: count it here."""
        if self.transport.is_closing():
            return
        if request_id is None:
            request_id = secrets.token_hex(16)
            self.early_refusals.record_refusal(refusal, request_id)
        body = Problem.from_error(refusal, request_id).model_dump_json(exclude_none=True).encode()
        head = (
            f"content-type: {PROBLEM_JSON}\r\ncontent-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[refusal.problem_type.status] + head.encode() + body)
        self.transport.close()


def _codings(headers: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """Transfer codings of the body, in order."""
    said = b",".join(value for name, value in headers if name == b"transfer-encoding")
    return [coding for one in said.lower().split(b",") if (coding := one.strip(b" \t"))]


def _announces_body(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t") != b"")
