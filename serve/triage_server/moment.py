"""How a moment is written, in both logs and in what goes out, and which comes so many hours after another.

Imports nothing of ours.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


def written(moment: float) -> str:
    """A moment in seconds since 1970: UTC, ISO 8601, milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> str:
    """This one."""
    return written(time.time())


def hours_after(moment: datetime, hours: float) -> datetime | None:
    """The moment so many hours later, in the same zone; None: beyond the calendar, so never."""
    try:
        return moment + timedelta(hours=hours)
    except OverflowError:
        return None
