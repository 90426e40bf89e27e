"""Closes connections so that the last answer arrives. Imports the count of unacknowledged bytes.

A kernel that closes a connection with unread bytes in it sends a reset. A client that is still sending its
photographs may then never see why they were refused (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from triage_server.slow_readers import unacknowledged_bytes

_LINGER_S = 30.0
"""Limit for everything that a client sends after its answer."""
_QUIET_S = 5.0
"""A client silent for so long has seen its answer, or waits for the connection to end."""
_TLS_CLOSE_TIMEOUT_S = 1.0
"""For the TLS closure to be confirmed, once the peer has received everything."""


class LingeringTransport(asyncio.Transport):
    """The transport of one connection; its ``close`` lingers if the client may still be sending.

    Until the client closes, its bytes are discarded, up to limits of time and size; then the connection is
    dropped.
    """

    def __init__(
        self, transport: asyncio.Transport, sending: Callable[[], bool], max_discarded_bytes: int
    ) -> None:
        """Wrap a transport, on the running event loop.

        Args:
            transport: of the connection.
            sending: whether more of a request may come.
            max_discarded_bytes: discarded at most after an answer.
        """
        super().__init__()
        self._transport, self._sending, self._discardable_bytes = transport, sending, max_discarded_bytes
        self._encrypted = transport.get_extra_info("sslcontext") is not None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._lost = self._received_data = False
        self.lingers = False
        """Whether the last answer is given; from then on, bytes from the client go to ``discard``."""

    def close(self) -> None:
        """Write no more, and close: at once, or after a client that is sending. A second call closes now."""
        if self.lingers or self._transport.is_closing() or not self._sending():
            self.end()
            return
        self.lingers = True
        self._until = self._loop.time() + _LINGER_S
        # Not with TLS, which this would end too, and not before pending output: if the client is gone,
        # sending that fails where nobody would catch it.
        if self._transport.can_write_eof() and self._transport.get_write_buffer_size() == 0:
            with suppress(OSError):
                self._transport.write_eof()
        self._transport.resume_reading()
        self._timer = self._loop.call_later(_QUIET_S, self._check_silence)

    def discard(self, data: bytes) -> None:
        """Discard bytes that came after the last answer."""
        self._received_data = True
        self._discardable_bytes -= len(data)
        if self._discardable_bytes < 0:
            self._transport.abort()  # an orderly end of TLS would accept even more bytes

    def end(self) -> None:
        """Close now, whatever may still come."""
        self._transport.close()
        self.limit_tls_closure()

    def limit_tls_closure(self) -> None:
        """With TLS, do not wait for a silent peer for the event loop's 30 seconds.

        That limit itself cannot be lowered: it would cut off an answer that a slow reader is still receiving.
        """
        if self._transport.is_closing() and not self._lost:
            self._cancel_timer()
            if self._encrypted:
                self._timer = self._loop.call_later(_TLS_CLOSE_TIMEOUT_S, self._abort_if_all_sent)

    def on_connection_lost(self) -> None:
        """To be called when the connection is lost."""
        self._lost = True
        self._cancel_timer()

    def is_closing(self) -> bool:
        """Whether no further answer is possible."""
        return self.lingers or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As for the wrapped transport."""
        self._transport.write(data)

    def abort(self) -> None:
        """As for the wrapped transport."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """As for the wrapped transport."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """As for the wrapped transport."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As for the wrapped transport."""
        return self._transport.get_extra_info(name, default)

    def _check_silence(self) -> None:
        if self._received_data and self._loop.time() < self._until:
            self._received_data = False
            self._timer = self._loop.call_later(_QUIET_S, self._check_silence)
        else:
            self.end()

    def _abort_if_all_sent(self) -> None:
        # The TLS transport cannot tell: it counts only bytes not yet encrypted. But encrypted ones go to the
        # kernel as soon as it has room, so when the kernel's queue is empty, everything has been sent.
        if unacknowledged_bytes(self._transport) == 0:
            self._transport.abort()
        else:
            self.limit_tls_closure()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
