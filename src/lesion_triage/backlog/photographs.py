"""Photographs to be scored, one after the other, from a CSV file, a parquet file or a folder.

Imports pyarrow, the folder, the history, the readers of cells in data, and the exception tree. Only the
current row is held: a table may have millions.
"""

from __future__ import annotations

import csv
import json
import ntpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from lesion_triage.backlog.folder_walk import walk
from lesion_triage.bundle.document import first_problem
from lesion_triage.bundle.history import History, history_from_json, history_to_text
from lesion_triage.data.records import GROUP_FIELDS, known_or_empty, refuse_missing_marker
from lesion_triage.data.sources.folder import closest_column, history_json, refuse_missing_header
from lesion_triage.errors import BacklogError, DataError

CaseIs = Literal["picture", "folder"]

BYTES_COLUMN = "image_bytes"
_HISTORY_FIELDS = tuple(History.model_fields)
_HISTORY_FIELD_SET = frozenset(_HISTORY_FIELDS)
_KNOWN_COLUMNS = ("case_id", "image", BYTES_COLUMN, "history", *_HISTORY_FIELDS)
_BATCH_ROWS = 16
"""Photographs of a parquet file in memory at once; each may have 30 MB."""


class Photograph(NamedTuple):
    """One photograph of a backlog."""

    row: int
    """Its position: line of a CSV file, row of a parquet file from 1, or index in a folder from 1."""
    case_id: str
    image: str
    """Path below ``Source.images``; empty if the table contains the file itself."""
    history: str
    """In the format of ``bundle.history.history_to_text``."""
    data: bytes | None = None
    """The file's bytes, if the table contains it."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a backlog is."""

    path: Path
    """A CSV file, a parquet file, or a folder."""
    images: Path
    """What the paths of photographs are relative to, with links followed."""
    case_is: CaseIs | None = None
    """What counts as a case in a folder; None if ``path`` is a table."""
    images_as_named: Path | None = None
    """``images`` without links followed: absolute paths in a table may begin with either."""

    @property
    def row_noun(self) -> str:
        """Name of the unit that ``Photograph.row`` counts."""
        return "row" if self.path.suffix.lower() == ".parquet" else "photograph" if self.case_is else "line"


def detect_source(path: Path, images: Path | None, case_is: CaseIs | None) -> Source:
    """Determine the kind of a backlog.

    Args:
        path: CSV file, parquet file or folder.
        images: what a table's paths are relative to; None: the folder of the table.
        case_is: for a folder, whether each picture is a case or each folder of pictures.

    Raises:
        BacklogError: nothing is there, it is of another kind, or the options do not fit it.
    """
    if path.is_dir():
        if case_is is None:
            raise BacklogError(
                f"{path} is a folder: say with --case-is what one case is in it, 'picture' (each picture) or "
                "'folder' (all pictures of one sub-folder)."
            )
        if images is not None:
            raise BacklogError(f"{path} is a folder and holds the pictures; --images is for tables.")
        return Source(path, path.resolve(), case_is)
    if not path.is_file():
        raise BacklogError(f"{path}: expected a CSV file, a parquet file or a folder here, found nothing.")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise BacklogError(f"{path}: expected a name that ends in .csv or .parquet, or a folder.")
    if case_is is not None:
        raise BacklogError(
            f"{path} is a table, where rows of one case_id are one case; --case-is is for folders."
        )
    folder = images or path.parent
    return Source(path, folder.resolve(), images_as_named=folder.absolute())


def read_photographs(source: Source, left_out: Counter[str]) -> Iterator[Photograph]:
    """Every photograph in order; in a folder, in byte order of the names, folder by folder.

    Args:
        source: where they are.
        left_out: counts, by description, what a folder holds beside photographs.

    Raises:
        BacklogError: a column is missing or unknown, a cell cannot be read, a path leaves the folder.
    """
    if source.case_is is not None:
        return _from_folder(source, walk(source.path, "", left_out))
    return _read_parquet(source) if source.path.suffix.lower() == ".parquet" else _read_csv(source)


def has_bytes(source: Source) -> bool:
    """Whether the table contains the photographs themselves."""
    if source.case_is is not None or source.path.suffix.lower() != ".parquet":
        return False
    return BYTES_COLUMN in _open_parquet(source.path).schema_arrow.names


def file_bytes(table: Path, first_row: int, count: int | None = None) -> Iterator[bytes | None]:
    """The files in a parquet table, in order, starting with row ``first_row`` (from 1).

    Earlier row groups are not read. Memory holds a few rows, however long the row groups are.

    Raises:
        BacklogError: they cannot be read.
    """
    parquet = _open_parquet(table)
    skip, groups = first_row - 1, list(range(parquet.num_row_groups))
    while groups and skip >= (rows := parquet.metadata.row_group(groups[0]).num_rows):
        skip -= rows
        groups.pop(0)
    left = parquet.metadata.num_rows if count is None else count
    try:
        for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=groups, columns=[BYTES_COLUMN]):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            for cell in batch.column(0)[skip:]:
                if left <= 0:
                    return
                left -= 1
                yield cell.as_py()
            skip = 0
    except (OSError, pa.ArrowException) as error:
        raise BacklogError(
            f"{table}: row {first_row} or later cannot be read ({in_one_line(error)})."
        ) from None


def in_one_line(error: Exception) -> str:
    """The error's message in one line; pyarrow uses several."""
    return " ".join(str(error).split())


def _read_csv(source: Source) -> Iterator[Photograph]:
    path = source.path
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = reader.fieldnames or ()
            if len(columns) == 1 and (found := [one for one in ";\t" if one in columns[0]]):
                raise BacklogError(
                    f"{path}: expected commas between the columns, found {found[0]!r}; save it with commas."
                )
            _check_columns(path, columns)
            if BYTES_COLUMN in columns:
                raise BacklogError(f"{path}: a CSV file cannot hold {BYTES_COLUMN}; use parquet.")
            for row in reader:
                line = reader.line_num
                if None in row or None in row.values():
                    raise BacklogError(f"{path}, line {line}: more or fewer cells than the header has.")
                cells = {name: cell.strip() for name, cell in row.items()}
                yield _photograph(source, line, cells, None)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BacklogError(f"{path}: cannot be read as a UTF-8 table with commas ({error}).") from None


def _read_parquet(source: Source) -> Iterator[Photograph]:
    parquet = _open_parquet(source.path)
    names = parquet.schema_arrow.names
    _check_columns(source.path, names)
    _check_types(source.path, parquet.schema_arrow)
    number = 0
    try:
        for batch in parquet.iter_batches(_BATCH_ROWS if BYTES_COLUMN in names else 4096, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                data = row.pop(BYTES_COLUMN, None)
                if BYTES_COLUMN in names and data is None:
                    raise BacklogError(f"{source.path}, row {number}: {BYTES_COLUMN} is empty.")
                cells = {name: "" if cell is None else str(cell).strip() for name, cell in row.items()}
                yield _photograph(source, number, cells, data)
    except (OSError, pa.ArrowException) as error:
        raise BacklogError(
            f"{source.path}: row {number + 1} or later cannot be read ({in_one_line(error)})."
        ) from None


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        # Page by page: a row group of photographs may be larger than memory.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (OSError, pa.ArrowException) as error:
        raise BacklogError(f"{path}: cannot be read as a parquet file ({in_one_line(error)}).") from None


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    try:
        refuse_missing_header(path, columns, _KNOWN_COLUMNS)
    except DataError as error:
        raise BacklogError(str(error)) from None
    for name in columns:
        if name not in _KNOWN_COLUMNS:
            near = closest_column(name, _KNOWN_COLUMNS)
            hint = f"did you mean '{near}'? If not, remove it."
            if not near:
                hint = f"remove it if it is none of these: {', '.join(_KNOWN_COLUMNS)}."
            raise BacklogError(f"{path}: unknown column '{name}'; {hint}")
        if columns.count(name) > 1:
            raise BacklogError(f"{path}: column '{name}' appears twice; keep one.")
    if "case_id" not in columns or ("image" in columns) == (BYTES_COLUMN in columns):
        raise BacklogError(
            f"{path}: expected the column case_id and one of image and {BYTES_COLUMN}, found "
            f"{', '.join(columns) or 'no header'}."
        )
    if "history" in columns and (twice := sorted(set(columns) & set(_HISTORY_FIELDS))):
        raise BacklogError(f"{path}: the history is in both 'history' and '{twice[0]}'; keep one of the two.")


def _check_types(path: Path, schema: pa.Schema) -> None:
    for name in schema.names:
        kind = schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        fits = {
            "case_id": text or pa.types.is_integer(kind),
            "image": text,
            "history": text or pa.types.is_null(kind),
            BYTES_COLUMN: pa.types.is_binary(kind) or pa.types.is_large_binary(kind),
        }
        if not fits.get(name, True):
            raise BacklogError(
                f"{path}: column '{name}' has the type {kind}, which cannot be read for this column."
            )


def _photograph(source: Source, row: int, cells: Mapping[str, str], data: bytes | None) -> Photograph:
    try:
        case_id = cells["case_id"]
        if not case_id:
            raise DataError("case_id is empty.")
        refuse_missing_marker("case_id", case_id)
        image = "" if data is not None else _relative_path(cells["image"], source)
        return Photograph(row, case_id, image, _history(cells), data)
    except DataError as error:
        raise BacklogError(f"{source.path}, {source.row_noun} {row}: {error}") from None


def _history(cells: Mapping[str, str]) -> str:
    if "history" not in cells:
        return "" if _HISTORY_FIELD_SET.isdisjoint(cells) else history_json(cells, _HISTORY_FIELDS)
    if not cells["history"]:
        return ""
    try:
        return history_to_text(history_from_json(_without_fillers(cells["history"])))
    except ValidationError as error:
        raise DataError(f"history: {first_problem(error, 'history')}.") from None


def _without_fillers(text: str) -> str:
    """The JSON of a history, with null for a group's word that only means unknown."""
    try:
        history = json.loads(text)
    except (ValueError, RecursionError):
        return text  # its reader reports what is wrong with it

    def is_filler(name: str, value: object) -> bool:
        return name in GROUP_FIELDS and isinstance(value, str) and bool(value) and not known_or_empty(value)

    if not isinstance(history, dict) or not any(is_filler(*pair) for pair in history.items()):
        return text
    pairs = json.loads(text, object_pairs_hook=list)  # keeps duplicate fields, so that they are refused
    cells = (f"{json.dumps(k)}: {json.dumps(None if is_filler(k, v) else v)}" for k, v in pairs)
    return f"{{{', '.join(cells)}}}"


def _relative_path(image: str, source: Source) -> str:
    """The path relative to the folder of the photographs; an absolute one must be below it.

    Errors do not repeat it: a file's name may be a person's.
    """
    if not image:
        raise DataError("image is empty; expected the path of a photograph.")
    # Not pathlib, which would keep a million names for ever: it interns their parts.
    path = normpath(image := image.replace("\\", "/"))  # Windows spelling
    for folder in (source.images, source.images_as_named):
        if path.startswith("/"):
            path = path.removeprefix(f"{folder}/".replace("//", "/"))
    if path.startswith("/") or ntpath.isabs(path) or ".." in image.split("/") or "\0" in image:
        raise DataError(
            f"the path in image leaves {source.images}; name the folder that holds it with --images."
        )
    return path


def _from_folder(source: Source, paths: Iterator[str]) -> Iterator[Photograph]:
    for number, path in enumerate(paths, start=1):
        case_id = path
        if source.case_is == "folder":
            case_id = path.rpartition("/")[0]
            if not case_id:
                raise BacklogError(
                    f"{source.path}: with --case-is folder every picture must be in a sub-folder; found "
                    "pictures beside the sub-folders. Move them, or choose --case-is picture."
                )
        yield Photograph(number, case_id, path, "")
