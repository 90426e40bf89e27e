"""The reading order. Imports the arithmetic of times.

`lesion-triage queue` simulates the same rule, as "four bands" with a deadline: overdue cases first, the
oldest first; then band by band, in each by arrival. A case that could not be scored is in the band that the
policy gives it: the first, unless a site chose another. A case whose answer cannot be read comes before all
others.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from triage_server.timestamps import hours_after


@dataclass(frozen=True, slots=True)
class Urgency:
    """What decides a case's position in the queue."""

    priority_band: int
    arrived_at: datetime
    deadline_hours: float | None
    """None: the site has not chosen one."""
    readable: bool = True
    """Whether this version can read the answer."""

    @property
    def band(self) -> int:
        """The band as shown; 1 if the answer cannot be read."""
        return self.priority_band if self.readable else 1

    @property
    def due_at(self) -> datetime | None:
        """When it moves before all bands; None: never."""
        hours = self.deadline_hours
        return None if hours is None else hours_after(self.arrived_at, hours)

    def is_overdue(self, now: datetime) -> bool:
        """Whether it has waited longer than its deadline."""
        return self.due_at is not None and now > self.due_at

    def sort_key(self, now: datetime) -> tuple[int, datetime]:
        """Sort key; cases are read in ascending order."""
        if not self.readable:
            return (-1, self.arrived_at)
        return (0 if self.is_overdue(now) else self.priority_band, self.arrived_at)
