"""``lesion-triage change-record NEW --against OLD``. Imports the change and its page."""

from __future__ import annotations

import argparse
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.cards.change import Change, compare
from lesion_triage.cards.change_page import page
from lesion_triage.cards.evidence import open_evidence

RECORD = "change-record"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lesion-triage change-record``."""
    parser.add_argument("new", type=Path, help="run or bundle that is to replace OLD")
    parser.add_argument("--against", type=Path, required=True, metavar="OLD", help="run or bundle in use")
    parser.add_argument("--by", default="", metavar="NAME", help="who makes the change")
    parser.add_argument("--why", default="", metavar="TEXT", help="the reason")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"write {RECORD}.md and .json there")


def main(arguments: argparse.Namespace) -> int:
    """Print the record, and write it if asked. Returns 1 if the rule calls it a regression, else 0."""
    change = compare(
        open_evidence(arguments.against), open_evidence(arguments.new), arguments.by, arguments.why
    )
    if arguments.out is not None:
        write(change, arguments.out)
    print(page(change), end="")
    return 1 if change.regressions else 0


def write(change: Change, folder: Path, accepted: str = "", name: str = RECORD) -> Path:
    """Write a record as Markdown and JSON; returns the page.

    Args:
        change: from ``compare``.
        folder: made if missing.
        accepted: why a regression was accepted; empty: it was not.
        name: of the files, without suffix.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.json", change.to_json().encode())
    write_atomically(folder / f"{name}.md", page(change, accepted).encode())
    return folder / f"{name}.md"
