"""How times are written in both logs and in what is sent, how a deadline is added, how a wrong clock shows.

Imports nothing of ours.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_FORMAT = "%Y-%m-%dT%H:%M:%S.%f%z"
_CLOCK_TOLERANCE = timedelta(minutes=1)
"""Clocks of servers with one database differ by some seconds."""


def format_timestamp(moment: float) -> str:
    """A time in seconds since 1970, as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def current_timestamp() -> str:
    """The current time."""
    return format_timestamp(time.time())


def parse_timestamp(said: object) -> datetime | None:
    """A time as ``format_timestamp`` writes it; None: it is none."""
    try:
        return datetime.strptime(said, _FORMAT) if isinstance(said, str) else None
    except ValueError:
        return None


def clock_warning(what: str, moment: datetime | None) -> str | None:
    """What to tell the operator if a time that was recorded earlier has not come yet; None: nothing.

    Args:
        what: was recorded then, as the sentence's subject.
        moment: when; None: nothing was, or it is not known.
    """
    now = datetime.now(UTC)
    if moment is None or moment - now <= _CLOCK_TOLERANCE:
        return None
    return (
        f"{what} is of {format_timestamp(moment.timestamp())}, and this machine's clock says "
        f"{format_timestamp(now.timestamp())}: it is behind now, or was ahead then. Deadlines go by it: "
        "set it right, and have it synchronised"
    )


def hours_after(moment: datetime, hours: float) -> datetime | None:
    """The time so many hours later, in the same zone; None: beyond the calendar, so never."""
    try:
        return moment + timedelta(hours=hours)
    except OverflowError:
        return None
