"""``lesion-triage datasets``: the list, a card, fetch, check. Imports this package and console."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from lesion_triage.console import console, echo, progress_bar
from lesion_triage.data.catalogue import check as checking
from lesion_triage.data.catalogue import dataset, datasets, page
from lesion_triage.data.catalogue.check import CheckResult, State

_COLOURS: dict[str, str] = {
    State.OK: "green",
    State.NOTE: "dim",
    State.INCOMPLETE: "yellow",
    State.BROKEN: "red",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb and of its subcommands."""
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="the whole catalogue, for programs")
    forms.add_argument("--markdown", action="store_true", help="the page docs/datasets.md")
    parts = parser.add_subparsers(dest="part", metavar="PART")
    show = parts.add_parser("show", help="everything about one dataset", description="Print one card.")
    show.add_argument("name", metavar="NAME")
    fetch = parts.add_parser("fetch", help="download one dataset", description="Download, or resume.")
    fetch.add_argument("name", metavar="NAME")
    fetch.add_argument("--to", type=Path, required=True, metavar="DIR", help="the dataset's own folder")
    fetch.add_argument(
        "--accept-licence", default="", metavar="ID", help="the licence you have read and accept"
    )
    fetch.add_argument(
        "--only", action="append", default=[], metavar="FILE", help="this file; may be given again"
    )
    fetch.add_argument(
        "--unpack", action="store_true", help="unpack the archives afterwards; the archives are kept"
    )
    check = parts.add_parser(
        "check",
        help="what is missing from a copy",
        description="Exit: 0 complete, 1 incomplete, 2 unreadable.",
    )
    check.add_argument("folder", type=Path, metavar="DIR")
    check.add_argument(
        "--as", dest="name", metavar="NAME", help="which dataset it is (default: by its tables)"
    )
    check.add_argument("--deep", action="store_true", help="also open every picture and hash large files")


def main(arguments: argparse.Namespace) -> int:
    """Run one subcommand; without one, print the list."""
    if arguments.part == "show":
        return _show(arguments.name)
    if arguments.part == "fetch":
        return _fetch(arguments)
    if arguments.part == "check":
        return _check(arguments)
    if arguments.json:
        print(
            json.dumps([entry.model_dump(mode="json") for entry in datasets()], indent=1, ensure_ascii=False)
        )
    elif arguments.markdown:
        print(page.page(datasets()), end="")
    else:
        _table(page.COLUMNS, [page.row(entry) for entry in datasets()])
    return 0


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned in a terminal; tab-separated lines in a pipe, so that cut and sort work."""
    if not console.is_terminal:
        for row in (columns, *rows):
            print("\t".join(row))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        right = column in ("pictures", "lesions", "patients", "download")
        table.add_column(column, justify="right" if right else "left")
    for row in rows:
        table.add_row(*(Text(cell, _COLOURS.get(cell, "")) for cell in row))  # no markup: names have brackets
    console.print(table, soft_wrap=False)


def _show(name: str) -> int:
    text = page.card(dataset(name))
    if console.is_terminal:
        console.print(Markdown(text), soft_wrap=False)
    else:
        print(text, end="")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    entry = dataset(arguments.name)
    if entry.registration is not None:
        echo(
            f"{entry.name} can only be downloaded by hand: {entry.registration} requires registration or a "
            "signed agreement."
        )
        for number, step in enumerate(entry.steps, 1):
            echo(f"  {number}. {step}")
        echo(f"Then: lesion-triage datasets check DIR --as {entry.name}")
        return 2
    from lesion_triage.data.catalogue.fetch import fetch  # noqa: PLC0415 - needs an HTTP library, the list does not

    absent = fetch(
        entry,
        arguments.to,
        arguments.accept_licence,
        only=arguments.only,
        unpack_too=arguments.unpack,
    )
    echo(f"{entry.name} is in {arguments.to}. Cite: {entry.citation}")
    echo(f"To check it: lesion-triage datasets check {arguments.to} --as {entry.name}")
    if not entry.pictures_fetched:
        echo("The pictures must be downloaded by hand:")
        for number, step in enumerate(entry.steps, 1):
            echo(f"  {number}. {step}")
    return 1 if absent else 0


def _check(arguments: argparse.Namespace) -> int:
    entry = None if arguments.name is None else dataset(arguments.name)
    with progress_bar("pictures opened") as tick:
        result = checking.check(arguments.folder, entry, deep=arguments.deep, progress=tick)
    _table(
        ("what", "expected", "found", "state"),
        [(one.what, one.expected, one.found, one.state) for one in result.findings],
    )
    for finding in result.findings:
        if finding.advice:
            echo(f"{finding.what}: {finding.advice}")
    echo(_verdict(result, arguments.folder))
    return result.exit_code


def _verdict(result: CheckResult, folder: Path) -> str:
    words = {
        0: "whole.",
        1: "readable but incomplete; a reader takes what is there and counts the rest.",
        2: "not in a layout that can be read.",
    }
    return f"{folder} as {result.entry.name}, layout '{result.layout.name}': {words[result.exit_code]}"
