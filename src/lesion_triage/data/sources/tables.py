"""Code shared by the readers: a folder walked once, tables row by row, rows collected into a listing.

Imports records, the walk and the exception tree.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from lesion_triage.data.records import (
    Listing,
    RawRecord,
    TableRow,
    placeholder_lesion_id,
    refuse_invalid_group_names,
    refuse_missing_marker,
)
from lesion_triage.data.walk import walk_folders
from lesion_triage.errors import DataError, hint

JPEG = (".jpg", ".jpeg")
Row = Mapping[str, str]

OWN_LESION = "the dataset names no lesion, so each picture counts as a lesion of its own"
STORED_TWICE = "stored under two names, the first in order was taken"


@dataclass(frozen=True)
class DataFolder:
    """Every picture and every table below one folder."""

    root: Path
    pictures: Mapping[str, str]
    """Name without extension -> path relative to the root."""
    duplicate_names: tuple[str, ...]
    """Names that were found more than once; a widely copied archive has its parts twice."""
    tables: Mapping[str, Path]
    """File name -> path; of two with the same name the first in order."""

    def table(self, names: Sequence[str], dataset: str) -> Path:
        """The first of ``names`` that exists.

        Raises:
            DataError: none of them does.
        """
        for name in names:
            if name in self.tables:
                return self.tables[name]
        raise DataError(
            f"{self.root}: expected {dataset}'s {' or '.join(names)} here, found neither; "
            "give the folder that holds it with --data-root."
            if len(names) > 1
            else f"{self.root}: expected {dataset}'s {names[0]} here, found none; "
            "give the folder that holds it with --data-root."
        )


def scan_folder(root: Path, endings: Sequence[str] = JPEG) -> DataFolder:
    """Walk all sub-folders and linked folders, in an order independent of the file system.

    Raises:
        DataError: one of them cannot be listed.
    """
    pictures: dict[str, str] = {}
    duplicate_names: set[str] = set()
    tables: dict[str, Path] = {}
    for walked in walk_folders(root):
        for name in walked.names:
            stem, ending = os.path.splitext(name)  # noqa: PTH122 - a Path for each of 400,000 names is slow
            if ending.lower() not in endings:
                tables.setdefault(name, Path(walked.folder, name))
            elif stem in pictures:
                duplicate_names.add(stem)
            else:
                pictures[stem] = walked.prefix + name
    return DataFolder(root, pictures, tuple(sorted(duplicate_names)), tables)


def read_rows(
    table: Path, required: Sequence[str], optional: Sequence[str] = (), *, hint: str = ""
) -> Iterator[tuple[int, Row]]:
    """Rows with their line number in the file, cells stripped, with only the requested columns.

    An optional column that the table lacks gives empty cells.

    Raises:
        DataError: not a UTF-8 table with commas or tabs, a required column missing, a row of another length.
    """
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            # Dataverse serves its tables with tabs unless asked for the original.
            tabs = "\t" in stream.readline()
            stream.seek(0)
            reader = csv.reader(stream, delimiter="\t" if tabs else ",", strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(table, header, required, hint)
            wanted = [(name, header.index(name)) for name in (*required, *optional) if name in header]
            absent = dict.fromkeys((name for name in optional if name not in header), "")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(f"{table}, line {reader.line_num}: more or fewer cells than the header.")
                # Interned: most cells repeat, and separate strings for 400,000 rows would fill memory.
                yield (
                    reader.line_num,
                    {**absent, **{name: sys.intern(cells[at].strip()) for name, at in wanted}},
                )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a UTF-8 table with commas or tabs ({error}).") from None


def _check_header(table: Path, header: Sequence[str], required: Sequence[str], hint: str) -> None:
    absent = [name for name in required if name not in header]
    if absent:
        raise DataError(
            f"{table}: expected the columns {', '.join(required)}, found no {', '.join(absent)}"
            f"{'; ' if hint else ''}{hint}."
        )
    twice = [name for name in required if header.count(name) > 1]
    if twice:
        raise DataError(f"{table}: column '{twice[0]}' appears twice; keep one.")


@dataclass
class RecordCollector:
    """Records, and an account of the pictures without one."""

    records: list[RawRecord] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    findings: dict[str, list[str]] = field(default_factory=dict)

    def add_rows(
        self, table: Path, numbered: Iterable[tuple[int, Row]], make: Callable[[Row], RawRecord | None]
    ) -> None:
        """Make a record of each row; ``make`` returns None for a row that it has accounted for itself.

        Raises:
            DataError: from ``make``; a word that no platform could send; or a lesion or patient whose name
                means unknown. The message begins with table and line.
        """
        for number, row in numbered:
            try:
                record = make(row)
                if record is not None:
                    refuse_invalid_group_names(record)
                    refuse_missing_marker("lesion_id", record.lesion_id)
                    refuse_missing_marker("patient_id", record.patient_id or "")
            except DataError as error:
                raise DataError(f"{table}, line {number}: {error}") from None
            if record is not None:
                self.records.append(replace(record, row=TableRow(table, number)))

    def add_finding(self, remark: str, name: str) -> None:
        """Note a remark on a record that is kept."""
        self.findings.setdefault(remark, []).append(name)

    def add_dropped(self, reason: str, name: str) -> None:
        """Note a picture that is left out."""
        self.dropped.setdefault(reason, []).append(name)

    def lesion_id_or_placeholder(self, lesion_id: str, image_id: str) -> str:
        """The lesion's own name, or a unique one, with a remark."""
        if lesion_id:
            return lesion_id
        self.add_finding(OWN_LESION, image_id)
        return placeholder_lesion_id(image_id)

    def to_listing(self, citation: str, duplicate_names: Sequence[str] = ()) -> Listing:
        """The reader's result. Only pictures that a record names are worth a remark."""
        named = {PurePosixPath(record.path).stem for record in self.records} if duplicate_names else set()
        if known := [name for name in duplicate_names if name in named]:
            self.findings[STORED_TWICE] = known
        return Listing(
            records=tuple(self.records),
            citation=(citation,),
            missing=tuple(self.missing),
            dropped={reason: tuple(names) for reason, names in self.dropped.items()},
            findings={remark: tuple(sorted(names)) for remark, names in self.findings.items()},
        )


def one_hot_class(row: Row, classes: Sequence[str]) -> str:
    """The class whose cell is 1 while all others are 0.

    Raises:
        DataError: none is, several are, or a cell is neither.
    """
    try:
        chosen = [name for name in classes if float(row[name]) == 1.0]
        others = [name for name in classes if float(row[name]) not in (0.0, 1.0)]
    except ValueError:
        chosen, others = [], list(classes)
    if len(chosen) != 1 or others:
        raise DataError(f"expected exactly one class at 1 and the others at 0, in {', '.join(classes)}.")
    return chosen[0]


def map_term(cell: str, terms: Mapping[str, str], column: str) -> str:
    """Our word for the dataset's; an empty cell stays unknown.

    Raises:
        DataError: a word that is not in ``terms``.
    """
    if cell in terms:
        return terms[cell]
    if not cell:
        return ""
    raise DataError(f"{column} '{cell}' is unknown; {hint(cell, terms)}")


def index_rows(table: Path, key: str, columns: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Row]:
    """Rows of a table, by one column.

    Raises:
        DataError: as ``read_rows``, or a duplicate key.
    """
    found: dict[str, Row] = {}
    lines: dict[str, int] = {}
    for number, row in read_rows(table, (key, *columns), optional):
        if (first := lines.setdefault(row[key], number)) != number:
            raise DataError(f"{table}, line {number}: {key} is that of line {first}; keep one row.")
        found[row[key]] = row
    return found
