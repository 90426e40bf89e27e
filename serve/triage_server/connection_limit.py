"""Limits how many connections are open, counted before they send a byte. Imports the counters."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from triage_server.telemetry import Telemetry

_SAY_AGAIN_S = 60.0
_MIN_WAIT_S = 1.0
"""For so long a connection keeps its place without a head: a burst of clients must not displace itself."""

log = logging.getLogger("triage_server")


class ConnectionLimit:
    """The open connections, each counted from the moment it was accepted.

    When all places are taken, a new connection takes that of the one that has been without the head of a
    request for longest, so that connections which ask for nothing cannot shut out those that do.
    """

    def __init__(self, most: int, telemetry: Telemetry) -> None:
        """Begin with none.

        Args:
            most: connections at once, at least 1.
            telemetry: counts those that were turned away or displaced.
        """
        self._most, self._telemetry = most, telemetry
        self._drop: dict[asyncio.BaseProtocol, Callable[[], object]] = {}
        self._waiting_since: dict[asyncio.BaseProtocol, float] = {}  # oldest first
        self._said = -math.inf

    def admit(self, one: asyncio.BaseProtocol, drop: Callable[[], object]) -> bool:
        """Admit a connection if there is room or another has waited too long; one already admitted stays.

        Each that is turned away or displaced is counted, and the limit is logged at most once a minute.

        Args:
            one: the connection, waiting for a head from now on if it is new.
            drop: closes it at once, to make room for another.

        Returns:
            Whether it is admitted.
        """
        admitted = one in self._drop or len(self._drop) < self._most or self._displace_oldest()
        if admitted:
            self._drop[one] = drop
            self._waiting_since.setdefault(one, time.monotonic())
        return admitted

    def wait(self, one: asyncio.BaseProtocol) -> None:
        """A connection has nothing more to be read or answered, and waits for the next head from now on."""
        if one in self._drop:
            self._waiting_since[one] = time.monotonic()

    def hear(self, one: asyncio.BaseProtocol) -> None:
        """The head of a request has arrived: this connection keeps its place until its answer is complete."""
        self._waiting_since.pop(one, None)

    def release(self, one: asyncio.BaseProtocol) -> None:
        """Remove a connection that is closed."""
        self._drop.pop(one, None)
        self._waiting_since.pop(one, None)

    def _displace_oldest(self) -> bool:
        """Whether a place was made free; either way a connection is closed unanswered."""
        self._telemetry.count_closed_connection("too_many")
        now = time.monotonic()
        if now - self._said >= _SAY_AGAIN_S:
            self._said = now
            log.warning("connections are closed unanswered: %d are open (TRIAGE_MAX_CONNECTIONS)", self._most)
        for oldest, since in self._waiting_since.items():
            if now - since < _MIN_WAIT_S:
                break
            drop = self._drop[oldest]
            self.release(oldest)
            drop()
            return True
        return False
