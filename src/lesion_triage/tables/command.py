"""``lesion-triage tables``: fill in the marked numbers of all pages or report drift. Imports this package."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.console import echo
from lesion_triage.errors import DataError
from lesion_triage.tables.markers import fill_markers
from lesion_triage.tables.recorded_numbers import RecordedNumbers

PAGES = ("README.md", "docs/**/*.md", "experiments/*/README.md")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page has drifted")
    what.add_argument("--write", action="store_true", help="rewrite the pages")
    parser.add_argument(
        "pages", type=Path, nargs="*", metavar="PAGE", help="these only (all pages with markers)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="DIR", help="top folder of the checkout (here)"
    )


def main(arguments: argparse.Namespace) -> int:
    """Check or write. Returns 1 if ``--check`` found a page that differs from the records."""
    pages = arguments.pages or find_pages(arguments.root)
    if not pages:
        raise DataError(f"{arguments.root}: expected the top folder of a checkout, found no page in it.")
    changed = find_drift(arguments.root, pages)
    for page in changed:
        if arguments.write:
            write_atomically(page.path, page.text.encode())
            echo(f"{page.path}: rewritten")
            continue
        echo(f"{page.path}: differs from the records; `lesion-triage tables --write` corrects it")
        for line in page.lines:
            echo(f"  {line}")
    echo(f"{len(changed)} of {len(pages)} pages {'written' if arguments.write else 'have drifted'}")
    return 1 if arguments.check and changed else 0


def find_pages(root: Path) -> list[Path]:
    """Every page that may contain a marker."""
    return sorted({path for pattern in PAGES for path in root.glob(pattern)})


@dataclass(frozen=True, slots=True)
class DriftedPage:
    """A page that differs from the records."""

    path: Path
    text: str
    """The whole page, as it should be."""
    lines: tuple[str, ...]
    """Its lines that should not be there, each after a minus sign, and those that should, after a plus."""


def find_drift(root: Path, pages: Iterable[Path]) -> list[DriftedPage]:
    """Pages that differ from the records; each is rendered once, and none is written.

    Raises:
        DataError: a page that cannot be read, or a marker that names something not recorded.
    """
    numbers = RecordedNumbers(root)
    found = []
    for page in pages:
        text = _read(page)
        filled = fill_markers(text, numbers.number, numbers.table, str(page))
        if filled != text:
            differences = unified_diff(text.splitlines(), filled.splitlines(), n=0, lineterm="")
            lines = tuple(line for line in [*differences][2:] if not line.startswith("@@"))
            found.append(DriftedPage(page, filled, lines))
    return found


def _read(page: Path) -> str:
    try:
        return page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{page}: cannot be read ({error}).") from None
