"""How a connection ends, so that its last answer arrives. Imports the measure of what is unsent.

A kernel that is told to close a connection with bytes in it that nobody has read resets it, and a client that
is still sending its photographs may never see why they were refused (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from triage_server.slow_readers import unsent

_LINGER_S = 30.0
"""For all that a client goes on to send behind its answer."""
_QUIET_S = 5.0
"""A client that sends nothing for as long has seen its answer, or waits for the connection's end."""
_FAREWELL_S = 1.0
"""For the end of encryption to be confirmed, once a peer has all that was sent to it."""


class Parting(asyncio.Transport):
    """The transport of one connection, whose ``close`` takes its time where the client may be sending still.

    Until the client closes, what it sends is to be thrown away; in bounds, and then the rest is lost to it.
    """

    def __init__(self, transport: asyncio.Transport, sending: Callable[[], bool], most_bytes: int) -> None:
        """Stand before a transport, on the running event loop.

        Args:
            transport: of the connection.
            sending: tells whether more may come of what was begun.
            most_bytes: thrown away behind an answer, and no more.
        """
        super().__init__()
        self._transport, self._sending, self._left = transport, sending, most_bytes
        self._encrypted = transport.get_extra_info("sslcontext") is not None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._gone = self._came = False
        self.lingers = False
        """Whether the last answer is given and what comes is to be told to ``throw_away`` alone."""

    def close(self) -> None:
        """Write no more, and end the connection: at once, or once the client has. A second call ends it."""
        if self.lingers or self._transport.is_closing() or not self._sending():
            self.end()
            return
        self.lingers = True
        self._until = self._loop.time() + _LINGER_S
        # Not where encryption would end with it, and not behind what is still to be written: if the client is
        # gone it fails, and then nobody would catch that.
        if self._transport.can_write_eof() and self._transport.get_write_buffer_size() == 0:
            with suppress(OSError):
                self._transport.write_eof()
        self._transport.resume_reading()
        self._timer = self._loop.call_later(_QUIET_S, self._look)

    def throw_away(self, data: bytes) -> None:
        """Something that came behind the last answer."""
        self._came = True
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()  # where encryption ends in order, even more would be taken

    def end(self) -> None:
        """Close now, whatever may come."""
        self._transport.close()
        self.take_leave()

    def take_leave(self) -> None:
        """Where encryption ends, do not wait for a silent peer as long as the event loop would: 30 seconds.

        Its own limit cannot be lowered: it would cut an answer that a slow reader is still being sent.
        """
        if self._transport.is_closing() and not self._gone:
            self._stop_looking()
            if self._encrypted:
                self._timer = self._loop.call_later(_FAREWELL_S, self._part)

    def gone(self) -> None:
        """The connection is lost."""
        self._gone = True
        self._stop_looking()

    def is_closing(self) -> bool:
        """Whether nothing more can be answered."""
        return self.lingers or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """As the transport's own."""
        self._transport.write(data)

    def abort(self) -> None:
        """As the transport's own."""
        self._transport.abort()

    def pause_reading(self) -> None:
        """As the transport's own."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """As the transport's own."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As the transport's own."""
        return self._transport.get_extra_info(name, default)

    def _look(self) -> None:
        if self._came and self._loop.time() < self._until:
            self._came = False
            self._timer = self._loop.call_later(_QUIET_S, self._look)
        else:
            self.end()

    def _part(self) -> None:
        # The transport cannot tell: it counts what is not encrypted yet, and hides what waits behind that.
        # But what waits there is given to the kernel as soon as it takes some: its empty queue is the end.
        if unsent(self._transport) == 0:
            self._transport.abort()
        else:
            self.take_leave()

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
