"""In which order cases are read. Imports the rule of moments.

The rule is the one that `lesion-triage queue` simulates under "four bands" with a deadline: whoever has
waited past the deadline goes first, the oldest before the others; then band by band, in each as they came. A
case that could not be scored stands in the band that the policy gave it, which is the first unless a site
chose another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from triage_server.moment import hours_after


@dataclass(frozen=True, slots=True)
class Place:
    """What decides where a case stands."""

    priority_band: int
    arrived_at: datetime
    deadline_hours: float | None
    """None: the site has not chosen one."""
    readable: bool = True
    """Whether this version can read what was answered."""

    @property
    def band(self) -> int:
        """As it is shown: the first, where what was answered cannot be read."""
        return self.priority_band if self.readable else 1

    @property
    def due_at(self) -> datetime | None:
        """When it goes before all bands; None: never."""
        hours = self.deadline_hours
        return None if hours is None else hours_after(self.arrived_at, hours)

    def overdue(self, now: datetime) -> bool:
        """Whether it has waited longer than its deadline."""
        return self.due_at is not None and now > self.due_at

    def rank(self, now: datetime) -> tuple[int, datetime]:
        """Cases are read in ascending order of this."""
        if not self.readable:
            return (-1, self.arrived_at)
        return (0 if self.overdue(now) else self.priority_band, self.arrived_at)
