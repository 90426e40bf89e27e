"""``triage-server webhooks``: a new secret, and answers that nobody took.

Imports the outbox and the callbacks.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from pathlib import Path

from lesion_triage.bundle.delivery_secret import new_secret
from lesion_triage.errors import ConfigError
from triage_server.moment import written
from triage_server.webhooks.outbox import opened


def secret(_: argparse.Namespace) -> int:
    """Print a new secret."""
    print("For 'secret_file' here, and for the receiver over a channel of trust:", file=sys.stderr)
    print(new_secret())
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print each answer that was given up."""
    said = (
        "SELECT case_id, callback, request_id, attempts, last_status, settled_at FROM cases "
        "WHERE state = 'undelivered' ORDER BY settled_at"
    )
    for case_id, callback, request_id, attempts, status, settled_at in _asked(arguments.outbox, said):
        heard = status or "no reply"
        when = written(settled_at)
        print(f"{case_id}  {callback}  {when}  {attempts} attempts, last: {heard}  request {request_id}")
    return 0


def retry(arguments: argparse.Namespace) -> int:
    """Set answers that were given up out again."""
    said = (
        "UPDATE cases SET state = 'pending', settled_at = NULL, attempts = 0, next_at = ?, until = ? "
        "WHERE state = 'undelivered' AND case_id = coalesce(?, case_id) RETURNING case_id"
    )
    now = time.time()
    found = _asked(arguments.outbox, said, now, now + 3600.0 * arguments.keep_hours, arguments.case_id)
    print(f"{len(found)} answers set out again; a running server sends them within half a minute")
    return 0


def _asked(outbox: Path, said: str, *values: object) -> list[tuple[str, str, str, int, int | None, float]]:
    base = opened(outbox, existing=True)
    try:
        with base:
            return base.execute(said, values).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(f"{outbox}: the outbox cannot be used ({error}).") from None
    finally:
        base.close()
