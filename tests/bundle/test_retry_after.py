"""Retry-After is a number of seconds or a date; anything else asks for nothing, and nothing raises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_triage.bundle.retry_after import requested_pause_s

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("99999999999999", 999_999_999),
        ("Sat, 31 Jan 2026 12:00:30 GMT", 30),
        ("Saturday, 31-Jan-26 12:00:30 GMT", 30),  # the two obsolete formats, which a recipient must accept
        ("Sat Jan 31 12:00:30 2026", 30),
        ("Sat, 31 Jan 2026 11:00:00 GMT", 0),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2030 07:28:00 +99999999999999", 0),
        ("1e9", 0),
        ("-7", 0),
        ("soon", 0),
        ("", 0),
    ],
)
def test_a_number_and_a_date_of_any_format_are_read(header: str, seconds: float):
    assert requested_pause_s(header, NOW) == seconds


@given(st.integers(0, 10**8))
def test_a_date_so_many_seconds_away_asks_for_so_many(seconds: int):
    header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert requested_pause_s(header, NOW) == seconds


@given(st.text(max_size=60))
def test_no_header_raises_or_asks_for_less_than_nothing(header: str):
    assert requested_pause_s(header) >= 0
