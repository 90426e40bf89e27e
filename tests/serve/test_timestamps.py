from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from triage_server.middleware import JsonLogFormatter
from triage_server.timestamps import clock_warning, format_timestamp, parse_timestamp


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1e9, "2001-09-09T01:46:40.000Z"),
        (1_700_000_000.0625, "2023-11-14T22:13:20.062Z"),  # parts of a millisecond are cut off
    ],
)
def test_moment_is_written_in_utc_with_milliseconds(moment: float, said: str):
    assert format_timestamp(moment) == said


def test_log_of_requests_writes_moments_as_the_audit_log_does():
    record = logging.makeLogRecord({"msg": "request", "created": 1e9})
    assert json.loads(JsonLogFormatter().format(record))["time"] == format_timestamp(1e9)


def test_time_of_a_line_is_read_as_it_was_written():
    assert parse_timestamp(format_timestamp(1e9)) == datetime.fromtimestamp(1e9, UTC)


@pytest.mark.parametrize(
    "said", [None, 7, "", "yesterday", "2026-01-31T12:00:00", "2026-02-30T12:00:00.000Z"]
)
def test_what_is_no_time_is_none(said: object):
    assert parse_timestamp(said) is None


def test_clock_is_doubted_for_what_is_more_than_a_minute_ahead_of_it():
    assert clock_warning("the line", None) is None
    now = datetime.now(UTC)
    assert clock_warning("the line", now - timedelta(days=400)) is None
    assert clock_warning("the line", now + timedelta(seconds=50)) is None
    told = clock_warning("the line", now + timedelta(seconds=90))
    assert told is not None
    assert told.startswith(f"the line is of {format_timestamp((now + timedelta(seconds=90)).timestamp())}, ")
