"""Who has lately opened which unread case, so that two people need not read the same one.

Imports the records. Kept in memory: it reserves nothing, and is forgotten when the process ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from triage_server.page.records import Actor

_SHOWN_FOR = timedelta(minutes=15)
"""Longer than most readings take; whoever looks again is shown again."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Somebody has a case open, as far as the page knows."""

    actor: Actor
    at: datetime
    """When they last opened it."""


class OpenCases:
    """Who opened which case when. Belongs to the event loop."""

    def __init__(self) -> None:
        self._opened: dict[str, dict[Actor, datetime]] = {}

    def note(self, number: str, actor: Actor, now: datetime) -> None:
        """Somebody opens a case."""
        self._forget(now)
        self._opened.setdefault(number, {})[actor] = now

    def by_others(self, number: str, actor: Actor, now: datetime) -> tuple[Opened, ...]:
        """Who else opened a case within the last quarter of an hour, the latest first."""
        found = [
            Opened(other, at)
            for other, at in self._opened.get(number, {}).items()
            if other != actor and now - at < _SHOWN_FOR
        ]
        return tuple(sorted(found, key=lambda opened: opened.at, reverse=True))

    def _forget(self, now: datetime) -> None:
        for number, opened in list(self._opened.items()):
            kept = {actor: at for actor, at in opened.items() if now - at < _SHOWN_FOR}
            if kept:
                self._opened[number] = kept
            else:
                del self._opened[number]
