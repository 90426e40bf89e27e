"""Accepts TLS connections. Imports the protocol, for its connection limit and counters."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial

from triage_server.protocol import LimitedProtocol

_ACCEPT_RETRY_DELAY_S = 1.0
"""Pause before the next accept when no file descriptor is left."""
_ACCEPTED_AT_ONCE = 64
_BACKLOG = 2048
"""Connections that the kernel queues until they are accepted; the same as uvicorn's without TLS."""

log = logging.getLogger("triage_server")


class TlsListener:
    """Accepts TLS connections, and counts each before its handshake.

    The event loop's own server tells the protocol of a connection only after the handshake.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], LimitedProtocol],
        handshake_timeout_s: float,
    ) -> None:
        """Begin to accept, on the running event loop.

        Args:
            listener: already listening.
            context: with the server's certificate.
            protocol: makes the protocol of one connection.
            handshake_timeout_s: time limit of the TLS handshake.
        """
        self._listener, self._context, self._protocol = listener, context, protocol
        self._handshake_timeout_s = handshake_timeout_s
        self._handshakes: set[asyncio.Task[None]] = set()
        self._retry_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        self._start_accepting()

    def close(self) -> None:
        """Accept no more, and drop connections still in their handshake."""
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        self._loop.remove_reader(self._listener)
        for handshake in self._handshakes:
            handshake.cancel()

    def _start_accepting(self) -> None:
        self._retry_timer = None
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor left: asking again at once would be a busy loop
                log.error("connections cannot be accepted: %s", error.strerror)
                self._loop.remove_reader(self._listener)
                self._retry_timer = self._loop.call_later(_ACCEPT_RETRY_DELAY_S, self._start_accepting)
                return
            protocol = self._protocol()
            handshake = self._loop.create_task(self._start_tls(connection, protocol))
            self._handshakes.add(handshake)
            handshake.add_done_callback(partial(self._on_handshake_end, connection))
            if not protocol.connection_limit.admit(protocol, handshake.cancel):
                handshake.cancel()

    def _on_handshake_end(self, connection: socket.socket, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        if handshake.cancelled():  # perhaps before it began
            connection.close()

    async def _start_tls(self, connection: socket.socket, protocol: LimitedProtocol) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_timeout_s,
            )
        except OSError as error:
            connection.close()
            protocol.early_refusals.record_failed_handshake(_failure_reason(error))
        finally:
            if protocol not in protocol.connections:  # so its connection_lost will never be called
                protocol.connection_limit.release(protocol)


def _failure_reason(error: OSError) -> str:
    """The reason in a word: OpenSSL has constants, such as HTTP_REQUEST or TLSV1_ALERT_UNKNOWN_CA."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "not said"
    return "not in time" if isinstance(error, ConnectionAbortedError) else "gone"
