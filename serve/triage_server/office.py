"""``triage-server keys``, ``audit``, ``bundles`` and so on: what is done beside serving.

Imports the keys, the audit chain, the desks beside it and the exception tree; the page's tables and the
outbox inside their errands.
"""

from __future__ import annotations

import argparse
import hmac
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from lesion_triage.errors import AuditLogError, ConfigError
from triage_server import bundle_desk, shadow_desk
from triage_server.api_keys import Role, new_key, read_keys, revoke
from triage_server.audit_chain import GENESIS, tail_of, verify
from triage_server.audit_folder import KEY_FILE, read_key
from triage_server.settings import MOST_KEEP_HOURS

DESKS = ("keys", "audit", "bundles", "shadow", "queue", "webhooks")
"""First words that are no settings of the server."""


def main(words: Sequence[str]) -> int:
    """One errand.

    Returns:
        0; 1 if ``audit verify`` found the log altered.

    Raises:
        LesionTriageError: anything else that went wrong.
        SystemExit: argparse met an unknown word, or ``--help``.
    """
    arguments = parser().parse_args(words)
    status: int = arguments.act(arguments)
    return status


def _new(arguments: argparse.Namespace) -> int:
    key = new_key(arguments.file, arguments.name, arguments.role)
    print(
        "This key is shown once and kept nowhere; hand it to the platform over a channel of trust:",
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


def _verify(arguments: argparse.Namespace) -> int:
    if not arguments.path.exists():
        raise AuditLogError(f"{arguments.path}: no such log.")
    try:
        walked = verify(arguments.path, since=arguments.since, head=arguments.head)
    except AuditLogError as error:
        print(f"ALTERED OR INCOMPLETE: {error}", file=sys.stderr)
        return 1
    lines = walked.end.sequence - walked.begin.sequence
    print(f"{lines} lines in {walked.files} files, from number {walked.begin.sequence + 1}: the chain holds")
    if walked.torn:
        print(f"{walked.torn} lines were left half written by a process that was killed, each is recorded")
    print(f"head {walked.end.head} (number {walked.end.sequence})")
    if arguments.head is None:
        print(
            "whether later lines were cut off cannot be seen from the log: say a hash noted elsewhere, --head"
        )
    return 0


def _head(arguments: argparse.Namespace) -> int:
    end = tail_of(arguments.path).end
    if end.head == GENESIS:
        raise AuditLogError(f"{arguments.path}: no audit log here, or an empty one.")
    print(end.head)
    return 0


def _digest(arguments: argparse.Namespace) -> int:
    key = read_key(arguments.path / KEY_FILE)
    for file in arguments.files:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise AuditLogError(f"{file}: cannot be read ({error.strerror}).") from None
        print(f"{hmac.digest(key, data, 'sha256').hex()}  {file}")
    return 0


def _migrate(arguments: argparse.Namespace) -> int:
    place = arguments.database or os.environ.get("TRIAGE_READING_QUEUE")
    if not place:
        raise ConfigError("No reading queue: set TRIAGE_READING_QUEUE, or say --database.")
    try:
        from triage_server.page.database import migrate_at  # noqa: PLC0415 - installed where it is wanted only
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The reading queue needs the package '{error.name}': pip install 'lesion-triage[serve,queue]'."
        ) from None
    found, now = migrate_at(place)
    print(f"the tables are of version {now}" + ("" if found == now else f" (found {found or 'none'})"))
    return 0


def _webhooks(arguments: argparse.Namespace) -> int:
    from triage_server.webhooks import desk  # noqa: PLC0415 - the server has no need of it

    errand: Callable[[argparse.Namespace], int] = getattr(desk, arguments.errand)
    return errand(arguments)


def parser() -> argparse.ArgumentParser:
    """The arguments of every errand."""
    top = argparse.ArgumentParser(prog="triage-server", allow_abbrev=False)
    desks = top.add_subparsers(required=True)
    keys = desks.add_parser("keys", help="keys that platforms show").add_subparsers(required=True)
    new = keys.add_parser("new", help="make a key and show it once")
    new.add_argument("name", help="of the platform: letters, digits, '.', '_' and '-'; no person's")
    new.add_argument(
        "--role",
        choices=get_args(Role),
        default="score",
        help="read: no cases; clinic: the page (%(default)s)",
    )
    new.set_defaults(act=_new)
    listing = keys.add_parser("list", help="the keys, without what is secret of them")
    listing.set_defaults(act=_list)
    striking = keys.add_parser("revoke", help="strike a key out")
    striking.add_argument("key_id")
    striking.set_defaults(act=_revoke)
    for desk in (new, listing, striking):
        desk.add_argument("--file", type=Path, required=True, help="what TRIAGE_API_KEYS_FILE names")
    audit = desks.add_parser("audit", help="the audit log").add_subparsers(required=True)
    verifying = audit.add_parser(
        "verify", help="walk the chain; exit 1 and the first bad line if it does not hold"
    )
    verifying.add_argument("path", type=Path, help="folder of the log, or one of its files")
    verifying.add_argument("--head", metavar="HASH", help="noted earlier; a line must have it")
    verifying.add_argument(
        "--since", metavar="HASH", help="that the first file follows, if earlier ones are elsewhere"
    )
    verifying.set_defaults(act=_verify)
    heading = audit.add_parser(
        "head", help="hash of the last line, to be noted where this machine cannot write"
    )
    heading.add_argument("path", type=Path, help="folder of the log")
    heading.set_defaults(act=_head)
    digesting = audit.add_parser("digest", help="what the log would call a photograph: keyed hash of a file")
    digesting.add_argument("path", type=Path, help="folder of the log, for its key")
    digesting.add_argument("files", type=Path, nargs="+", metavar="FILE")
    digesting.set_defaults(act=_digest)
    bundle_desk.add_to(desks)
    shadow_desk.add_to(desks)
    calling = desks.add_parser("webhooks", help="callbacks").add_subparsers(required=True)
    for errand, text in (
        ("secret", "make a secret and show it once"),
        ("show", "answers that were given up"),
        ("retry", "set them out again"),
    ):
        one = calling.add_parser(errand, help=text)
        one.set_defaults(act=_webhooks, errand=errand)
        if errand != "secret":
            one.add_argument("--outbox", type=Path, required=True, help="what TRIAGE_WEBHOOK_OUTBOX names")
        if errand == "retry":
            one.add_argument("--case-id", help="of one alone; default: all")
            one.add_argument(
                "--keep-hours",
                type=_keep_hours,
                default=os.environ.get("TRIAGE_WEBHOOK_KEEP_HOURS", "72"),
                help="try for so long (TRIAGE_WEBHOOK_KEEP_HOURS; %(default)s)",
            )
    waiting = desks.add_parser("queue", help="the page's reading queue").add_subparsers(required=True)
    migrating = waiting.add_parser("migrate", help="bring its tables to the version of this program")
    migrating.add_argument("--database", help="SQLite file, or address (default: TRIAGE_READING_QUEUE)")
    migrating.set_defaults(act=_migrate)
    return top


def _keep_hours(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_KEEP_HOURS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_KEEP_HOURS} hours, found {text!r}")
    return int(text)
