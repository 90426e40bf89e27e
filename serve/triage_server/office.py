"""``triage-server keys``, ``audit``, ``bundles`` and so on: the subcommands, each in a module of its own.

Imports these modules. What only one subcommand needs, its module imports when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from triage_server import audit_desk, bundle_desk, key_desk, queue_desk, shadow_desk, webhook_desk

DESKS = ("keys", "audit", "bundles", "shadow", "queue", "webhooks")
"""Subcommands; anything else on the command line is for the server."""


def main(words: Sequence[str]) -> int:
    """Run a subcommand.

    Returns:
        0; 1 if ``audit verify`` found the log altered.

    Raises:
        LesionTriageError: anything else that went wrong.
        SystemExit: argparse met an unknown word, or ``--help``.
    """
    arguments = parser().parse_args(words)
    status: int = arguments.act(arguments)
    return status


def parser() -> argparse.ArgumentParser:
    """The arguments of all subcommands."""
    top = argparse.ArgumentParser(prog="triage-server", allow_abbrev=False)
    desks = top.add_subparsers(required=True)
    for desk in (key_desk, audit_desk, bundle_desk, shadow_desk, webhook_desk, queue_desk):
        desk.add_to(desks)
    return top
