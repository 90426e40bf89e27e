from __future__ import annotations

import json
import logging

import pytest

from triage_server.middleware import JsonLogFormatter
from triage_server.timestamps import format_timestamp


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
