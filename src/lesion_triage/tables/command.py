"""``lesion-triage tables``: fill the marked numbers of all pages, or say which drifted. Imports this room."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.console import say
from lesion_triage.errors import DataError
from lesion_triage.tables.figures import Figures
from lesion_triage.tables.markers import filled

PAGES = ("README.md", "docs/**/*.md", "experiments/*/README.md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page has drifted")
    what.add_argument("--write", action="store_true", help="write the pages anew")
    parser.add_argument(
        "pages", type=Path, nargs="*", metavar="PAGE", help="these only (all pages with markers)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR", help="top folder of the checkout (here)"
    )


def act(arguments: argparse.Namespace) -> int:
    """Check or write. Returns 1 if ``--check`` found a page that is not what the records say."""
    pages = arguments.pages or pages_of(arguments.root)
    changed = 0
    for page, lines in drifted(arguments.root, pages):
        changed += 1
        if arguments.write:
            say(f"{page}: written anew")
            continue
        say(f"{page}: {len(lines)} lines are not what is recorded; `lesion-triage tables --write` mends them")
        for line in lines:
            say(f"  {line}")
    if arguments.write:
        write(arguments.root, pages)
    say(f"{changed} of {len(pages)} pages {'written' if arguments.write else 'have drifted'}")
    return 1 if arguments.check and changed else 0


def pages_of(root: Path) -> list[Path]:
    """Every page that may have a marker."""
    return sorted({path for pattern in PAGES for path in root.glob(pattern)})


def drifted(root: Path, pages: Iterable[Path]) -> list[tuple[Path, list[str]]]:
    """Pages that are not what the records say, with the lines as they should be.

    Raises:
        DataError: a page that cannot be read, or a marker that names what is not recorded.
    """
    figures = Figures(root)
    found = []
    for page in pages:
        text = _read(page)
        now = filled(text, figures.number, figures.table, str(page))
        if now != text:
            before = set(text.splitlines())
            found.append((page, [line for line in now.splitlines() if line not in before]))
    return found


def write(root: Path, pages: Iterable[Path]) -> None:
    """Fill every page's marks, and touch a page only where that changes it."""
    figures = Figures(root)
    for page in pages:
        text = _read(page)
        now = filled(text, figures.number, figures.table, str(page))
        if now != text:
            write_atomically(page, now.encode())


def _read(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{page}: cannot be read ({error}).") from None
