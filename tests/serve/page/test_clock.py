"""A clock that is behind what was recorded by it earlier is told to whoever starts the server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lesion_triage.bundle.history import NO_HISTORY
from tiny_bundle import picture_bytes
from triage_server.audit_chain import encode_line, files_of, read_tail
from triage_server.audit_log import AuditLog
from triage_server.page.store import ReadingQueue
from triage_server.timestamps import format_timestamp

PATIENCE_S = 60


def warnings(server: Any) -> list[str]:
    lines = [json.loads(line) for line in server.text().splitlines() if line.startswith("{")]
    return sorted(line["event"] for line in lines if "clock" in line["event"])


def wait_for_warnings(server: Any, count: int) -> list[str]:
    deadline = time.monotonic() + PATIENCE_S
    while len(warnings(server)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return warnings(server)


@pytest.mark.parametrize("line_end", [b"\n", b""])
def test_start_warns_of_a_line_and_of_a_case_that_are_of_a_later_time(
    line_end: bytes,
    start: Callable[..., Any],
    tiny_bundle: Path,
    queue: ReadingQueue,
    database_address: str,
    answers: Any,
    tmp_path: Path,
):
    assert queue.newest_arrival() is None
    number = queue.draw_number()
    queue.add(number, answers, [picture_bytes("below")], NO_HISTORY, "key:0123456789ab")
    later = datetime.now(UTC) + timedelta(hours=1)
    queue.now = lambda: later
    queue.add(queue.draw_number(), answers, [picture_bytes("below")], NO_HISTORY, "key:0123456789ab", number)
    assert queue.newest_arrival() == later
    folder = tmp_path / "audit"
    with AuditLog(folder, 2**20, {"event": "opened"}):
        pass
    said = format_timestamp(later.timestamp())
    line, _ = encode_line({"event": "closed", "time": said}, read_tail(folder).end)
    with files_of(folder)[-1].open("ab") as stream:
        stream.write(line.removesuffix(b"\n") + line_end)

    settings = {"TRIAGE_AUDIT_LOG": str(folder), "TRIAGE_READING_QUEUE": database_address}
    with start(tiny_bundle, tmp_path, **settings) as server:
        log, case = wait_for_warnings(server, 2)
        assert case.startswith(f"the newest case of the page is of {said}, ")
        assert log.startswith(f"the last line of the audit log is of {said}, ")
        assert server.stop() == 0
    with start(tiny_bundle, tmp_path, **settings) as server:  # whose log now ends with lines of the present
        (case,) = wait_for_warnings(server, 1)
        assert case.startswith("the newest case of the page is of ")
        assert server.stop() == 0
