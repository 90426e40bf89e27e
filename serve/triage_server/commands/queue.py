"""``triage-server queue``: migrate the tables of the reading queue.

Imports the exceptions; the page's tables only when it runs.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from lesion_triage.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the ``queue`` subcommand."""
    verbs = subparsers.add_parser("queue", help="the page's reading queue").add_subparsers(required=True)
    migrating = verbs.add_parser("migrate", help="migrate its tables to the version of this program")
    migrating.add_argument("--database", help="SQLite file, or address (default: TRIAGE_READING_QUEUE)")
    migrating.set_defaults(run=_migrate)


def _migrate(arguments: argparse.Namespace) -> int:
    place = arguments.database or os.environ.get("TRIAGE_READING_QUEUE")
    if not place:
        raise ConfigError("No reading queue: set TRIAGE_READING_QUEUE, or give --database.")
    try:
        from triage_server.page.database import migrate_at  # noqa: PLC0415 - installed where it is wanted only
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The reading queue needs the package '{error.name}': install the extras [serve,queue]; "
            "in a checkout: pip install '.[serve,queue]'."
        ) from None
    found, now = migrate_at(place)
    print(f"the tables are of version {now}" + ("" if found == now else f" (found {found or 'none'})"))
    return 0
