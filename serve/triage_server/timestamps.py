"""How times are written in both logs and in what is sent, and how a deadline is added.

Imports nothing of ours.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


def format_timestamp(moment: float) -> str:
    """A time in seconds since 1970, as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def current_timestamp() -> str:
    """The current time."""
    return format_timestamp(time.time())


def hours_after(moment: datetime, hours: float) -> datetime | None:
    """The time so many hours later, in the same zone; None: beyond the calendar, so never."""
    try:
        return moment + timedelta(hours=hours)
    except OverflowError:
        return None
