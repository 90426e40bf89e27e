"""``triage-server webhooks``: make a secret; list, retry or drop answers that could not be delivered.

Imports the format of a secret, the settings' limits and the exceptions; the outbox only when it runs.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lesion_triage.bundle.webhook_secret import new_secret
from lesion_triage.errors import ConfigError
from triage_server.settings import MOST_KEEP_HOURS
from triage_server.timestamps import format_timestamp

_WHICH = "WHERE state = 'undelivered' AND case_id = coalesce(?, case_id) AND callback = coalesce(?, callback)"


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the ``webhooks`` subcommand."""
    verbs = subparsers.add_parser("webhooks", help="undelivered answers, and secrets").add_subparsers(
        required=True
    )
    new = verbs.add_parser("secret", help="create a secret and show it once")
    new.set_defaults(run=_secret)
    showing = verbs.add_parser("show", help="list answers whose delivery was given up")
    showing.set_defaults(run=_show)
    again = verbs.add_parser("retry", help="try to deliver them again")
    again.set_defaults(run=_retry)
    dropping = verbs.add_parser("drop", help="delete them; their lines in the audit log stay")
    dropping.set_defaults(run=_drop)
    for verb in (showing, again, dropping):
        verb.add_argument(
            "--outbox", type=Path, required=True, help="the file that TRIAGE_WEBHOOK_OUTBOX names"
        )
    which = again.add_mutually_exclusive_group()
    which.add_argument("--case-id", help="only this case (default: all)")
    which.add_argument("--callback", help="only answers for this callback")
    again.add_argument(
        "--keep-hours",
        type=_keep_hours,
        default=os.environ.get("TRIAGE_WEBHOOK_KEEP_HOURS", "72"),
        help="how long to try (TRIAGE_WEBHOOK_KEEP_HOURS; %(default)s)",
    )
    which = dropping.add_mutually_exclusive_group(required=True)
    which.add_argument("--case-id", help="only this case")
    which.add_argument(
        "--callback", help="only answers for this callback, even if it is no longer configured"
    )
    which.add_argument("--all", action="store_true", help="every answer that was given up")


def _keep_hours(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_KEEP_HOURS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_KEEP_HOURS} hours, found {text!r}")
    return int(text)


def _secret(_: argparse.Namespace) -> int:
    print(
        "Put this into 'secret_file' here, and give it to the receiver over a trusted channel:",
        file=sys.stderr,
    )
    print(new_secret())
    return 0


def _show(arguments: argparse.Namespace) -> int:
    said = (
        "SELECT case_id, callback, request_id, attempts, last_status, settled_at FROM cases "
        "WHERE state = 'undelivered' ORDER BY settled_at"
    )
    for case_id, callback, request_id, attempts, status, settled_at in _asked(arguments.outbox, said):
        heard = status or "no reply"
        when = format_timestamp(settled_at)
        print(f"{case_id}  {callback}  {when}  {attempts} attempts, last: {heard}  request {request_id}")
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    anew = "state = 'pending', settled_at = NULL, attempts = 0, next_at = ?, until = ?"
    said = f"UPDATE cases SET {anew} {_WHICH} RETURNING callback"  # noqa: S608
    now = time.time()
    which = arguments.case_id, arguments.callback
    found = _asked(arguments.outbox, said, now, now + 3600.0 * arguments.keep_hours, *which)
    told = f"{len(found)} answers queued for delivery again"
    if found:
        by_callback = Counter(callback for (callback,) in found)
        told += f" ({', '.join(f'{count} for {name}' for name, count in sorted(by_callback.items()))})"
        told += (
            "; within half a minute a running server sends those for the callbacks that it is configured with"
        )
    print(told)
    return 0


def _drop(arguments: argparse.Namespace) -> int:
    said = f"DELETE FROM cases {_WHICH} RETURNING case_id"  # noqa: S608
    found = _asked(arguments.outbox, said, arguments.case_id, arguments.callback)
    print(f"{len(found)} answers dropped")
    return 0


def _asked(outbox: Path, said: str, *values: object) -> list[tuple[Any, ...]]:
    from triage_server.webhooks.outbox import open_database  # noqa: PLC0415 - the server has no need of it

    base = open_database(outbox, existing=True)
    try:
        with base:
            return base.execute(said, values).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(f"{outbox}: the outbox cannot be used ({error}).") from None
    finally:
        base.close()
