"""Which cells of a dataset's own tables are empty, including columns that the manifest does not keep.

Imports data; reads every table beside the pictures that names them.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lesion_triage.config import Roots
from lesion_triage.data.categorical import Bools
from lesion_triage.data.records import Record, known_or_empty

_ROWS_TO_PROBE = 200
_MIN_NAMED_SHARE = 0.9
_MAX_BYTES = 1_000_000_000
_ENDINGS = (".csv", ".tab", ".tsv")
_LABEL_COLUMNS = ("diagnosis", "diagnosis_confirm_type")
"""Columns of an own table that are the label itself: often only what was excised has a diagnosis."""


class EmptyCells(NamedTuple):
    """Empty cells in the tables beside the pictures."""

    empty: dict[str, Bools]
    """``table: column`` -> shape (records,); a picture that the table does not name is not counted as empty.
    In a mixture the table's name is preceded by the part's name and a slash."""
    unreadable: tuple[str, ...] = ()
    """Tables that cannot be read, so their empty cells are unknown."""
    unmatched: tuple[str, ...] = ()
    """Tables that were skipped because none of their columns names pictures."""


def empty_cells(root: Roots, records: Sequence[Record]) -> EmptyCells:
    """Find empty cells in the tables in ``root``.

    A table is read if one column names a picture in nine of ten of its first rows: by image id, path, file
    name or stem. A part's table is matched with that part's pictures, and with those kept from another part
    under the same id. Tables about something else are skipped; they are named, and so are unreadable ones.
    """
    found: dict[str, Bools] = {}
    unreadable: list[str] = []
    unmatched: list[str] = []
    parts = {"": root} if isinstance(root, Path) else root
    for part, folder in parts.items():
        prefix = f"{part}/" if part else ""
        tables = sorted(_tables(folder))
        rows = _rows_by_name(records, part) if tables else {}
        for path in tables:
            try:
                columns = _empty_cells_of(path, rows, len(records))
            except (OSError, UnicodeDecodeError, csv.Error):
                unreadable.append(f"{prefix}{path.name}")
                continue
            if columns is not None:
                found |= {f"{prefix}{name}": empty for name, empty in columns.items()}
            elif path.suffix:  # without one, such as LICENSE, it is tried but not reported
                unmatched.append(f"{prefix}{path.name}")
    return EmptyCells(found, tuple(unreadable), tuple(unmatched))


def _tables(root: Path) -> Iterator[Path]:
    for path in root.iterdir() if root.is_dir() else ():
        if path.name.startswith("."):  # left by file managers, such as ._cases.csv: not a table
            continue
        if path.is_file() and path.suffix.lower() in (*_ENDINGS, ""):
            yield path


def _rows_by_name(records: Sequence[Record], part: str = "") -> dict[str, int]:
    """Row of every spelling of a picture's name; a spelling that fits two pictures is removed.

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


def _empty_cells_of(path: Path, rows: dict[str, int], records: int) -> dict[str, Bools] | None:
    """Which cells of its columns are empty, by ``table: column``; None for a table that names no pictures."""
    if path.stat().st_size > _MAX_BYTES:
        raise csv.Error("too large")
    with path.open(encoding="utf-8-sig", newline="") as stream:
        tabs = "\t" in stream.readline()  # the same rule as in the readers of the datasets
        stream.seek(0)
        reader = csv.reader(stream, delimiter="\t" if tabs else ",", strict=True)
        header = [name.strip() for name in next(reader, [])]
        lines = (cells for cells in reader if any(map(str.strip, cells)))  # a spreadsheet leaves empty rows
        probed = list(islice(lines, _ROWS_TO_PROBE))
        key = _picture_column(probed, len(header), rows)
        if key is None:
            return None
        if _row_of(header[key], rows) is not None:
            raise csv.Error("no header: the first row describes a picture, and must not become column names")
        empty = np.zeros((len(header), records), dtype=np.bool_)
        others = [
            number for number, name in enumerate(header) if number != key and name not in _LABEL_COLUMNS
        ]
        for cells in chain(probed, lines):
            if len(cells) != len(header):
                raise csv.Error("a row of another length: it is unknown which of its cells is missing")
            row = _row_of(cells[key], rows)
            if row is not None:
                for number in others:
                    if not known_or_empty(cells[number]):
                        empty[number, row] = True
    names = _column_names(header)
    return {f"{path.name}: {names[number]}": empty[number] for number in others}


def _column_names(header: Sequence[str]) -> list[str]:
    """A unique name for every column."""
    often = Counter(header)
    numbered = [(name, f"column {number}") for number, name in enumerate(header, start=1)]
    return [
        place if not name else f"{name} ({place})" if often[name] > 1 else name for name, place in numbered
    ]


def _picture_column(probed: Sequence[Sequence[str]], columns: int, rows: dict[str, int]) -> int | None:
    """The column that names pictures."""
    for number in range(columns):
        known = sum(number < len(cells) and _row_of(cells[number], rows) is not None for cells in probed)
        if probed and known >= _MIN_NAMED_SHARE * len(probed):
            return number
    return None


def _row_of(cell: str, rows: dict[str, int]) -> int | None:
    """The row of a picture; it may have been saved again with another extension."""
    name = cell.strip()
    row = rows.get(name)
    stem, _, ending = name.rpartition(".")
    return rows.get(stem) if row is None and ending.isalnum() else row
