"""Whether a client still reads its answer. Imports the standard library.

A transport waits for ever for a client that has stopped reading, and meanwhile holds answer and connection.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios

_CHECKS_PER_TIMEOUT = 4
"""Checks within the allowed time, so a client is dropped at most a quarter later."""


_BYTES_ACKED, _BYTES_ACKED_OFFSET = struct.Struct("Q"), 120
"""``tcpi_bytes_acked`` of Linux's ``struct tcp_info``, since 4.1."""


def unacknowledged_bytes(transport: asyncio.Transport) -> int | None:
    """Bytes handed to the kernel that the peer has not acknowledged.

    Returns:
        None if the system does not say.
    """
    try:
        connection = transport.get_extra_info("socket")
        waiting = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError, ValueError):
        return None
    return int(struct.unpack("i", waiting)[0])


def acknowledged_bytes(transport: asyncio.Transport) -> int | None:
    """Bytes that the peer has acknowledged since the connection began.

    Queue lengths do not show progress: what leaves them is refilled at once, and TLS hides one of them.

    Returns:
        None if the system does not say.
    """
    try:
        # The event loop's stand-in for a socket cannot query the system.
        kernel_socket = socket.socket(fileno=transport.get_extra_info("socket").fileno())
    except (AttributeError, OSError, ValueError):
        return None
    try:
        tcp_info = kernel_socket.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size + _BYTES_ACKED_OFFSET
        )
        return int(_BYTES_ACKED.unpack_from(tcp_info, _BYTES_ACKED_OFFSET)[0])
    except (AttributeError, OSError, struct.error):
        return None
    finally:
        kernel_socket.detach()


class SlowReaderWatchdog:
    """Drops a connection when nothing of its pending output has moved for a while.

    A client that is merely slow acknowledges something now and then.
    """

    def __init__(self, transport: asyncio.Transport, timeout_s: float) -> None:
        """Begin to watch, on the running event loop.

        Args:
            transport: of the connection; aborted if its client reads nothing.
            timeout_s: time allowed without progress.
        """
        self._transport, self._timeout_s = transport, timeout_s
        self._loop = asyncio.get_running_loop()
        self._last_progress_at, self._before = self._loop.time(), self._measure()
        self._timer = self._loop.call_later(timeout_s / _CHECKS_PER_TIMEOUT, self._check)

    def record_progress(self) -> None:
        """Something was taken; also called where the system does not say so."""
        self._last_progress_at = self._loop.time()

    def stop(self) -> None:
        """Stop: the connection is closed."""
        self._timer.cancel()

    def _measure(self) -> tuple[int, int, int]:
        waiting = unacknowledged_bytes(self._transport) or 0, self._transport.get_write_buffer_size()
        return (*waiting, acknowledged_bytes(self._transport) or 0)

    def _check(self) -> None:
        before, self._before = self._before, self._measure()
        if self._before != before or not any(self._before[:2]):
            self.record_progress()
        if self._loop.time() - self._last_progress_at >= self._timeout_s:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(self._timeout_s / _CHECKS_PER_TIMEOUT, self._check)
