"""Which cells of a dataset's own tables are empty, also in columns that the manifest does not keep.

Imports data; reads every CSV file beside the pictures that names them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lesion_triage.config import Roots
from lesion_triage.data.coded import Bools
from lesion_triage.data.records import EMPTY, Record

_PEEK = 200
_NAMES_SHARE = 0.9
_MOST_BYTES = 1_000_000_000


class Gaps(NamedTuple):
    """What the tables beside the pictures leave empty."""

    empty: dict[str, Bools]
    """``table: column`` -> shape (records,); a picture that the table does not name is not empty. Of a
    mixture the part's name and a slash stand before the table's."""
    unread: tuple[str, ...]
    """Tables that cannot be read: nobody knows what is empty there."""


def empty_cells(root: Roots, records: Sequence[Record]) -> Gaps:
    """Where the columns of the tables in ``root`` are empty.

    A table is read if nine in ten of its first rows name a picture in one column: by image id, path, file
    name or stem. A part's table speaks of that part's pictures, and of those that another part has under the
    same id. Tables about something else are left alone; one that cannot be read is named.
    """
    found: dict[str, Bools] = {}
    unread: list[str] = []
    parts = {"": root} if isinstance(root, Path) else root
    for part, folder in parts.items():
        prefix = f"{part}/" if part else ""
        tables = sorted(_tables(folder))
        rows = _names(records, part) if tables else {}
        for path in tables:
            try:
                columns = _of_table(path, rows, len(records))
            except (OSError, UnicodeDecodeError, csv.Error):
                unread.append(f"{prefix}{path.name}")
            else:
                found |= {f"{prefix}{name}": empty for name, empty in columns.items()}
    return Gaps(found, tuple(unread))


def _tables(root: Path) -> Iterator[Path]:
    for path in root.iterdir() if root.is_dir() else ():
        if path.name.startswith("."):  # what file managers leave, such as ._cases.csv, is no table
            continue
        if path.is_file() and path.suffix.lower() in (".csv", "") and path.stat().st_size < _MOST_BYTES:
            yield path


def _names(records: Sequence[Record], part: str = "") -> dict[str, int]:
    """Row of every spelling of a picture; one that fits two pictures is taken out.

    Args:
        records: all of them.
        part: of a mixture; its own table names its pictures without it.
    """
    rows: dict[str, int] = {}
    elsewhere: dict[str, int] = {}
    for row, record in enumerate(records):
        path, image_id = record.path, record.image_id
        if part and not path.startswith(f"{part}/"):
            elsewhere[image_id] = row
            continue
        if part:
            path, image_id = path.removeprefix(f"{part}/"), image_id.removeprefix(f"{part}:")
        name = path[path.rfind("/") + 1 :]
        for spelling in {image_id, path, name, name.rpartition(".")[0] or name}:
            if rows.setdefault(spelling, row) != row:
                rows[spelling] = -1
    return {spelling: row for spelling, row in {**elsewhere, **rows}.items() if row >= 0}


def _of_table(path: Path, rows: dict[str, int], records: int) -> dict[str, Bools]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header = next(reader, [])
        peeked = [cells for _, cells in zip(range(_PEEK), reader, strict=False) if len(cells) == len(header)]
        key = _key(peeked, len(header), rows)
        if key is None:
            return {}
        empty = np.zeros((len(header), records), dtype=np.bool_)
        others = [number for number in range(len(header)) if number != key]
        for cells in _all(peeked, reader):
            row = _row(cells[key], rows) if len(cells) == len(header) else None
            if row is not None:
                for number in others:
                    cell = cells[number]
                    if len(cell) < 13 and cell.strip().lower() in EMPTY:
                        empty[number, row] = True
    return {f"{path.name}: {header[number]}": empty[number] for number in others}


def _key(peeked: Sequence[Sequence[str]], columns: int, rows: dict[str, int]) -> int | None:
    """The column that names pictures."""
    for number in range(columns):
        known = sum(_row(cells[number], rows) is not None for cells in peeked)
        if peeked and known >= _NAMES_SHARE * len(peeked):
            return number
    return None


def _row(cell: str, rows: dict[str, int]) -> int | None:
    """A picture may have been stored again with another ending."""
    row = rows.get(cell)
    return rows.get(cell.rpartition(".")[0]) if row is None else row


def _all(first: Sequence[Sequence[str]], rest: Iterator[list[str]]) -> Iterator[Sequence[str]]:
    yield from first
    yield from rest
