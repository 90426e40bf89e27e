"""How many cases of the queue wait, for the counters. Imports the queue and the metrics.

Nobody may be looking at the page while its cases grow old; an operator's alerts look always.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from triage_server.page.records import QueueDepth
from triage_server.page.store import ReadingQueue
from triage_server.telemetry import Telemetry

_INTERVAL_S = 30.0
UNKNOWN = QueueDepth(float("nan"), float("nan"), float("nan"))

log = logging.getLogger("triage_server")


class QueueMetrics:
    """Asks the database for what waits. Belongs to the event loop; database calls run on threads."""

    def __init__(
        self,
        queue: ReadingQueue,
        run_in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
        telemetry: Telemetry,
    ) -> None:
        """Adds the gauges; does not start the task. Until its first answer they are not a number.

        Args:
            queue: has the cases.
            run_in_thread: runs a database call.
            telemetry: gets the gauges.
        """
        self._queue, self._run_in_thread = queue, run_in_thread
        self.depth = UNKNOWN
        for name, text, value in (
            ("waiting", "Cases on the page that nobody has read.", lambda: self.depth.waiting),
            ("overdue", "Of these, the cases past their deadline.", lambda: self.depth.overdue),
            (
                "longest_wait_seconds",
                "How long the oldest of these has waited; 0 if none waits.",
                lambda: self.depth.longest_wait_s,
            ),
        ):
            telemetry.add_gauge(f"triage_queue_{name}", f"{text} NaN: the database does not say.", value)

    async def run(self) -> None:
        """Ask every half minute until cancelled."""
        while True:
            try:
                self.depth = await self._run_in_thread(self._queue.depth)
            except Exception as error:  # it may have recovered by the next time
                if self.depth is not UNKNOWN:  # what it was is no longer true; and one line is enough
                    log.error("the reading queue cannot be counted: %s", type(error).__name__)
                self.depth = UNKNOWN
            await asyncio.sleep(_INTERVAL_S)
