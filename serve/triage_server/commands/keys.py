"""``triage-server keys``: make, list and revoke API keys. Imports the keys."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from triage_server.api_keys import Role, new_key, read_keys, revoke


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the ``keys`` subcommand."""
    verbs = subparsers.add_parser("keys", help="API keys of platforms").add_subparsers(required=True)
    new = verbs.add_parser("new", help="create a key and show it once")
    new.add_argument("name", help="name of the platform, not of a person: letters, digits, '.', '_' and '-'")
    new.add_argument(
        "--role",
        choices=get_args(Role),
        default="score",
        help="read: no scoring; clinic: the page (%(default)s)",
    )
    new.set_defaults(run=_new)
    listing = verbs.add_parser("list", help="list the keys, without their secrets")
    listing.set_defaults(run=_list)
    striking = verbs.add_parser("revoke", help="revoke a key")
    striking.add_argument("key_id")
    striking.set_defaults(run=_revoke)
    for verb in (new, listing, striking):
        verb.add_argument("--file", type=Path, required=True, help="the file that TRIAGE_API_KEYS_FILE names")


def _new(arguments: argparse.Namespace) -> int:
    key = new_key(arguments.file, arguments.name, arguments.role)
    print(
        "This key is shown once and not stored; give it to the platform over a trusted channel:",
        file=sys.stderr,
    )
    print(key)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    for record in read_keys(arguments.file).values():
        print(f"{record.key_id}  {record.role:5}  {record.created_at}  {record.label}")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    record = revoke(arguments.file, arguments.key_id)
    print(f"revoked {record.key_id} ({record.label}); a running server refuses it within a second")
    return 0
