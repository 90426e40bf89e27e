"""The header Retry-After, read alike by client, webhook sender and downloads. Imports nothing of ours."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def requested_pause_s(retry_after: str, now: datetime | None = None) -> float:
    """Seconds that a Retry-After header asks to wait, given as a number or a date (RFC 9110, 10.2.3).

    Args:
        retry_after: value of the header.
        now: with its time zone; None: the system clock.

    Returns:
        0 or more; 0 also if the value is neither.
    """
    value = retry_after.strip()
    if value.isdecimal():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
        return max(
            0.0, (until.replace(tzinfo=until.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
        )
    except (ValueError, OverflowError):
        return 0.0
