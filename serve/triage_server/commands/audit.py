"""``triage-server audit``: verify the chain of a log, print its head, look a photograph up.

Imports the audit chain, the folder's key and the exceptions.
"""

from __future__ import annotations

import argparse
import hmac
import sys
from pathlib import Path
from typing import Any

from lesion_triage.errors import AuditLogError
from triage_server.audit_chain import GENESIS, read_tail, verify
from triage_server.audit_folder import KEY_FILE, read_key


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the ``audit`` subcommand."""
    verbs = subparsers.add_parser("audit", help="the audit log").add_subparsers(required=True)
    verifying = verbs.add_parser(
        "verify", help="verify the chain; if it is broken, exit 1 and name the first bad line"
    )
    verifying.add_argument("path", type=Path, help="folder of the log, or one of its files")
    verifying.add_argument("--head", metavar="HASH", help="hash recorded earlier, which a line must have")
    verifying.add_argument(
        "--since",
        metavar="HASH",
        help="hash of the line before the first file, if earlier files are elsewhere",
    )
    verifying.set_defaults(run=_verify)
    heading = verbs.add_parser(
        "head", help="print the hash of the last line; record it where this machine cannot write"
    )
    heading.add_argument("path", type=Path, help="folder of the log")
    heading.set_defaults(run=_head)
    digesting = verbs.add_parser(
        "digest", help="print the keyed hash under which the log records a photograph"
    )
    digesting.add_argument("path", type=Path, help="folder of the log, which holds the key")
    digesting.add_argument("files", type=Path, nargs="+", metavar="FILE")
    digesting.set_defaults(run=_digest)


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
        print(f"{walked.torn} lines were left half-written by a process that was killed; each is recorded")
    print(f"head {walked.end.head} (number {walked.end.sequence})")
    if arguments.head is None:
        print(
            "the log alone cannot show that later lines were cut off: give a hash recorded elsewhere "
            "with --head"
        )
    return 0


def _head(arguments: argparse.Namespace) -> int:
    end = read_tail(arguments.path).end
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
