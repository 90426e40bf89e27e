"""Limits how many connections are open, counted before they send a byte. Imports the counters."""

from __future__ import annotations

import asyncio
import logging
import math
import time

from triage_server.telemetry import Telemetry

_SAY_AGAIN_S = 60.0

log = logging.getLogger("triage_server")


class ConnectionLimit:
    """The open connections, each counted from the moment it was accepted."""

    def __init__(self, most: int, telemetry: Telemetry) -> None:
        """Begin with none.

        Args:
            most: connections at once, at least 1.
            telemetry: counts those that were turned away.
        """
        self._most, self._telemetry = most, telemetry
        self._open_connections: set[asyncio.BaseProtocol] = set()
        self._said = -math.inf

    def admit(self, one: asyncio.BaseProtocol) -> bool:
        """Admit a connection if there is room; else count it, and log the limit at most once a minute."""
        if one in self._open_connections or len(self._open_connections) < self._most:
            self._open_connections.add(one)
            return True
        self._telemetry.count_closed_connection("too_many")
        if time.monotonic() - self._said >= _SAY_AGAIN_S:
            self._said = time.monotonic()
            log.warning("connections are closed unanswered: %d are open (TRIAGE_MAX_CONNECTIONS)", self._most)
        return False

    def release(self, one: asyncio.BaseProtocol) -> None:
        """Remove a connection that is closed."""
        self._open_connections.discard(one)
