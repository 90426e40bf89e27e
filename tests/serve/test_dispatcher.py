"""The dispatcher on a real outbox: whatever goes wrong, the time that an answer has is kept to."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lesion_triage.bundle.webhook_secret import new_secret
from triage_server.audit_log import AuditLog
from triage_server.telemetry import Telemetry
from triage_server.webhooks.callbacks import Callbacks
from triage_server.webhooks.dispatcher import Dispatcher
from triage_server.webhooks.outbox import OutboxEntry, OutboxThread, encrypt_answer
from webhook_receiver import receiving

KEEP_S = 3600.0


@pytest.fixture
def callbacks(tmp_path: Path) -> Callable[[str], Callbacks]:
    """The callback 'ehr' at an address."""
    secret = tmp_path / "secret"
    secret.write_text(new_secret())
    secret.chmod(0o600)
    return lambda url: Callbacks.read(json.dumps({"ehr": {"url": url, "secret_file": str(secret)}}))


def outbox_entry(known: Callbacks, case_id: str, until: float) -> OutboxEntry:
    """One that is due."""
    answer = encrypt_answer(known.by_name["ehr"].secrets[0], case_id, "ehr", b"{}")
    moment = time.time()
    return OutboxEntry(
        case_id, "a", "ehr", "r", None, moment, until, "pending", 0, moment, None, None, answer
    )


async def found(box: OutboxThread, case_id: str) -> OutboxEntry:
    kept = await box.run(lambda outbox: outbox.find(case_id))
    assert kept is not None
    return kept


async def settled(box: OutboxThread, case_id: str, seconds: float = 20.0) -> OutboxEntry:
    end = time.monotonic() + seconds
    while (kept := await found(box, case_id)).state == "pending":
        assert time.monotonic() < end, f"next attempt in {kept.next_at - time.time():.0f} s"
        await asyncio.sleep(0.05)
    return kept


@pytest.mark.parametrize("status", [204, 503])
def test_last_attempt_is_made_when_time_is_up_whatever_pause_the_receiver_asks_for(
    status: int, callbacks: Callable[[str], Callbacks], tmp_path: Path
) -> None:
    asks = {"Retry-After": "14400"}

    async def story(known: Callbacks, audit: AuditLog) -> None:
        box = OutboxThread(tmp_path / "outbox.sqlite", 10, ["ehr"])
        until = time.time() + 2.0
        one = outbox_entry(known, "case_1", until)
        await box.run(lambda outbox: outbox.put(one))
        dispatcher = Dispatcher(known, box, audit, Telemetry("a" * 64, "m"), KEEP_S, first_pause_s=0.1)
        working = asyncio.create_task(dispatcher.run())
        try:
            kept = await settled(box, "case_1")
        finally:
            dispatcher.stop()
            await working
            box.close()
        assert (kept.attempts, kept.state) == (2, "delivered" if status == 204 else "undelivered")
        assert kept.settled_at is not None
        assert until <= kept.settled_at < until + 10

    with receiving((503, asks, 0.0), (status, asks, 0.0)) as receiver:
        with AuditLog(tmp_path / "audit", 2**20) as audit:
            asyncio.run(story(callbacks(receiver.url), audit))
        assert len(receiver.came) == 2


def test_old_answers_that_cannot_be_deleted_hold_up_no_delivery(
    callbacks: Callable[[str], Callbacks], tmp_path: Path
) -> None:
    path = tmp_path / "outbox.sqlite"

    async def story(known: Callbacks, audit: AuditLog) -> None:
        box = OutboxThread(path, 10, ["ehr"])
        old, one = (outbox_entry(known, name, time.time() + KEEP_S) for name in ("case_old", "case_1"))
        await box.run(lambda outbox: outbox.put(old))
        await box.run(lambda outbox: outbox.settle(old, 1, "delivered", 204, time.time() - 2 * KEEP_S))
        await box.run(lambda outbox: outbox.put(one))
        with closing(sqlite3.connect(path, timeout=10)) as base, base:  # stands for a disk that refuses this
            base.execute(
                "CREATE TRIGGER full BEFORE DELETE ON cases BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
            )
        dispatcher = Dispatcher(known, box, audit, Telemetry("a" * 64, "m"), KEEP_S, first_pause_s=0.1)
        working = asyncio.create_task(dispatcher.run())
        try:
            assert (await settled(box, "case_1")).state == "delivered"
            assert await box.run(lambda outbox: outbox.find("case_old")) is not None
        finally:
            dispatcher.stop()
            await working
            box.close()

    with receiving() as receiver, AuditLog(tmp_path / "audit", 2**20) as audit:
        asyncio.run(story(callbacks(receiver.url), audit))
