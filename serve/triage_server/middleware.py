"""Around every request: its id, its log line, and an answer even if something inside fails.

Also logs what is refused before it is a request, and failed TLS handshakes. Imports the counters, the
problems and the service. A log line never holds a file name, a body, a query string or a header value but the
request id.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import secrets
import time
import traceback
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triage_server.error_responses import response_to
from triage_server.problems import RequestError
from triage_server.service import forget_service
from triage_server.telemetry import Telemetry
from triage_server.timestamps import format_timestamp

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
CLIENT_CLOSED_REQUEST = 499
"""Logged, never sent: the client closed the connection before its answer was ready."""

_MAX_LINES_PER_MINUTE = 60
"""Limit on lines about early refusals: anyone can cause those, without a key and at any rate."""

log = logging.getLogger("triage_server")


class EarlyRefusals:
    """Counts and logs what was refused before the application saw it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._minute_began, self._lines = -math.inf, 0

    def record_refusal(self, refusal: RequestError, request_id: str) -> None:
        """Count one refusal, and log it within the limit for a minute.

        Args:
            refusal: that was sent.
            request_id: that was sent with it.
        """
        self._telemetry.count_early_refusal(refusal.problem_type.status, refusal.code)
        self._log("request", _log_fields(request_id, refusal.problem_type.status, problem=refusal.code))

    def record_failed_handshake(self, why: str) -> None:
        """Count one failed TLS handshake, and log it within the same limit.

        Args:
            why: a word of ours or OpenSSL's, never anything that was sent.
        """
        self._telemetry.count_closed_connection("handshake")
        self._log("TLS handshake failed", {"why": why})

    def _log(self, event: str, fields: dict[str, object]) -> None:
        now = time.monotonic()
        if now - self._minute_began >= 60.0:
            self._minute_began, self._lines = now, 0
        self._lines += 1
        if self._lines <= _MAX_LINES_PER_MINUTE:
            log.info(event, extra={"fields": fields})
        elif self._lines == _MAX_LINES_PER_MINUTE + 1:
            log.warning(
                "further refusals and failed handshakes of this minute are not logged; GET /metrics "
                "counts them all"
            )


class RequestLogMiddleware:
    """ASGI middleware, outside everything that may fail."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app, self._telemetry = app, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, whatever happens inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = CLIENT_CLOSED_REQUEST
        except asyncio.CancelledError:  # the server is stopping, and this request's time is up
            if exchange.status is not None:
                raise
            await exchange.refuse(RequestError("stopping", headers={"Retry-After": "2"}))
        except Exception as error:
            log.error("internal error", exc_info=error, extra={"fields": {"request_id": exchange.request_id}})
            if exchange.status is None:
                await exchange.refuse(RequestError("internal_error"))
        finally:
            if (told := scope["state"].get("refused")) is not None:  # by the protocol, within the body
                exchange.status, scope["state"]["problem"] = told.problem_type.status, told.code
            elif scope["state"].get("left"):
                exchange.status = CLIENT_CLOSED_REQUEST
            exchange.count(self._telemetry)
            log.info("request", extra={"fields": exchange.log_fields()})
            forget_service(scope)


class _Exchange:
    """One request and its answer, as far as the log may know them."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._begun = time.perf_counter()
        headers = Headers(scope=scope)
        self._body_pending = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        self.status: int | None = None
        self._state: dict[str, Any] = scope.setdefault("state", {})
        self.request_id: str = self._state.get("request_id") or request_id_of(headers)
        self._state["request_id"] = self.request_id

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._body_pending = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers["Cache-Control"] = "no-store"
            headers["X-Content-Type-Options"] = "nosniff"
            if self._body_pending:
                # Otherwise the rest of a refused body would be read and discarded, however long it is.
                headers["Connection"] = "close"
        await self._send(message)

    async def refuse(self, refusal: RequestError) -> None:
        """Answer if nothing inside has."""
        self._state["problem"] = refusal.code
        response = response_to(refusal, self.request_id, self._scope["path"])
        await response(self._scope, self.receive, self.send)

    @property
    def _method(self) -> str:
        method: str = self._scope["method"]
        return method if method in METHODS else "other"

    @property
    def _route(self) -> str | None:
        """The route's template, never the path that was requested."""
        return getattr(self._scope.get("route"), "path", None)

    def count(self, telemetry: Telemetry) -> None:
        """Update the counters."""
        telemetry.count_request(self._method, self._route, self.status, time.perf_counter() - self._begun)
        if problem := self._state.get("problem"):
            telemetry.count_problem(problem)

    def log_fields(self) -> dict[str, object]:
        """Fields of the request's log line; the audit line's number and hash anchor that log in this one."""
        caller = self._state.get("caller")
        return _log_fields(
            self.request_id,
            self.status,
            caller=None if caller is None else caller.name,
            method=self._method,
            route=self._route,
            duration_ms=round((time.perf_counter() - self._begun) * 1000, 1),
            problem=self._state.get("problem"),
            disposition=self._state.get("disposition"),
            audit=self._state.get("audit"),
        )


def _log_fields(
    request_id: str,
    status: int | None,
    *,
    caller: str | None = None,
    method: str | None = None,
    route: str | None = None,
    duration_ms: float | None = None,
    problem: str | None = None,
    disposition: str | None = None,
    audit: str | None = None,
) -> dict[str, object]:
    """The fields of a request's log line, in order."""
    return {
        "request_id": request_id,
        "caller": caller,
        "method": method,
        "route": route,
        "status": status,
        "duration_ms": duration_ms,
        "problem": problem,
        "disposition": disposition,
        "audit": audit,
    }


def request_id_of(headers: Headers) -> str:
    """The request's own id if it is valid, else a new one."""
    offered = headers.getlist("x-request-id")
    if len(offered) == 1 and REQUEST_ID.fullmatch(offered[0]):
        return offered[0]
    return secrets.token_hex(16)


class JsonLogFormatter(logging.Formatter):
    """One JSON object per record. Of an exception only type and location: its text may quote the input."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, object] = {
            "time": format_timestamp(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["where"] = [
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(line)


def log_to_stderr() -> None:
    """Make every log line of this process a JSON line on standard error."""
    # No line shows caller, thread or process, so they are not looked up.
    logging._srcfile = None  # as the documentation of logging advises
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLogFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    log.setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # its warnings quote bytes of the form
