"""``triage-server keys``, ``audit``, ``bundles`` and so on: the subcommands, each in a module of its own.

Imports these modules. What only one subcommand needs, its module imports when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from triage_server.commands import audit, bundles, keys, queue, shadow, webhooks

SUBCOMMANDS = ("keys", "audit", "bundles", "shadow", "queue", "webhooks")
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
    status: int = arguments.run(arguments)
    return status


def parser() -> argparse.ArgumentParser:
    """The arguments of all subcommands."""
    top = argparse.ArgumentParser(prog="triage-server", allow_abbrev=False)
    subparsers = top.add_subparsers(required=True)
    for command in (keys, audit, bundles, shadow, webhooks, queue):
        command.add_parser(subparsers)
    return top
