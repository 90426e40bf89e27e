"""Which cells of a dataset's own tables are empty, also in columns that the manifest does not keep.

Imports this room; reads every CSV file beside the pictures that names them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lesion_triage.config import Roots
from lesion_triage.data.coded import Bools
from lesion_triage.data.records import Record

EMPTY = frozenset({"", "na", "n/a", "nan", "null", "unk", "unknown", "not recorded"})
"""Words, in lower case, that say that a cell is not filled in."""

_PEEK = 200
_NAMES_SHARE = 0.9
_MOST_BYTES = 1_000_000_000


def empty_cells(root: Roots, records: Sequence[Record]) -> dict[str, Bools]:
    """Where the columns of the tables in ``root`` are empty.

    A table is read if nine in ten of its first rows name a picture in one column: by image id, path, file
    name or stem. Tables that cannot be read are left alone; a table about something else is not ours to
    refuse.

    Returns:
        ``table: column`` -> shape (records,); a picture that the table does not name is not empty.
    """
    rows = _names(records)
    found: dict[str, Bools] = {}
    folders = [root] if isinstance(root, Path) else list(root.values())
    for path in sorted(table for folder in folders for table in _tables(folder)):
        try:
            found |= _of_table(path, rows, len(records))
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
    return found


def _tables(root: Path) -> Iterator[Path]:
    for path in root.iterdir() if root.is_dir() else ():
        if path.is_file() and path.suffix.lower() in (".csv", "") and path.stat().st_size < _MOST_BYTES:
            yield path


def _names(records: Sequence[Record]) -> dict[str, int]:
    """Row of every spelling of a picture; one that fits two pictures is taken out."""
    rows: dict[str, int] = {}
    for row, record in enumerate(records):
        path = record.path
        name = path[path.rfind("/") + 1 :]
        for spelling in {record.image_id, path, name, name.rpartition(".")[0] or name}:
            if rows.setdefault(spelling, row) != row:
                rows[spelling] = -1
    return {spelling: row for spelling, row in rows.items() if row >= 0}


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
