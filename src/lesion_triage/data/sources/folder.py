"""Reader for your own pictures and table. Imports records, Unicode paths, the bundle's history, the errors.

The table is a CSV file with a header. Required: ``image``, the path relative to the data root, and
``needs_in_person``: true, yes or 1; false, no or 0; empty for unknown. Every other column is optional
and has the ISIC archive's name, or that of a question of the history (docs/red-flags.md). An unknown column
is refused: a misspelt one would silently be lost.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from unicodedata import normalize

from pydantic import ValidationError

from lesion_triage.bundle.history import History, history_to_text, parse_decimal
from lesion_triage.bundle.red_flags import NUMBER_FIELDS, YES_NO_FIELDS
from lesion_triage.data.records import (
    GROUP_FIELDS,
    Listing,
    RawRecord,
    TableRow,
    known_or_empty,
    parse_age,
    placeholder_lesion_id,
    refuse_invalid_group_names,
    refuse_missing_marker,
)
from lesion_triage.data.unicode_paths import UnicodePathResolver
from lesion_triage.errors import DataError

REQUIRED = ("image", "needs_in_person")
TEXT_COLUMNS = (
    "diagnosis",
    "diagnosis_confirm_type",
    "sex",
    "anatom_site_general",
    "image_type",
    "fitzpatrick_skin_type",
    "copyright_license",
    "attribution",
)
GROUP_COLUMNS = ("sex", "age_years", "anatom_site_general", "fitzpatrick_skin_type")
QUESTIONS = tuple(name for name in History.model_fields if name not in GROUP_COLUMNS)
"""Questions of the history that a platform can ask beyond the archive's columns."""
OPTIONAL = ("lesion_id", "patient_id", "age_approx", "source", *TEXT_COLUMNS, *QUESTIONS)

COLUMN_ALIASES: Mapping[str, str] = {
    "age": "age_approx",
    "class": "needs_in_person",
    "dx": "diagnosis",
    "file": "image",
    "filename": "image",
    "gender": "sex",
    "label": "needs_in_person",
    "localization": "anatom_site_general",
    "path": "image",
    "site": "anatom_site_general",
    "skin_type": "fitzpatrick_skin_type",
    "target": "needs_in_person",
}
"""Common names of columns that are too different from ours to be guessed."""

EMPTY_ROW = "an empty row of the table"
BMP = "a BMP file, which the server refuses; save it as PNG"
"""Only datasets published as BMP are converted: whatever is learnt from must be possible to send."""

ID_COLUMNS = ("lesion_id", "patient_id")
_ALTERED_BY_SPREADSHEET = re.compile(r"[0-9]([.,][0-9]+)?e\+[0-9]+|#+|#[a-z/0]+[!?]", re.IGNORECASE)
"""1.23457E+11, ######## and #VALUE!, for instance."""
_WHOLE_NUMBER = re.compile(r"^0*([0-9]+?)(?:\.0*)?$")

_BOOLEANS: Mapping[str, bool | None] = {
    "true": True,
    "yes": True,
    "1": True,
    "1.0": True,  # pandas writes a column of 1, 0 and gaps like this
    "false": False,
    "no": False,
    "0": False,
    "0.0": False,
    "": None,
}


def read(root: Path, table: str) -> Listing:
    """List every row of the table.

    A row without ``lesion_id`` becomes a lesion of its own, and is reported as such: two pictures of one mole
    would then count as two lesions and could be in two splits. Rows with only empty cells, which spreadsheets
    leave at the end, are left out and counted; so are BMP files. A picture whose name has accents is found in
    either Unicode form, and keeps the table's spelling as its id.

    Raises:
        DataError: no such table, a column unknown or missing, a cell that cannot be read, a path outside the
            root, a duplicate picture, or a name spelt in two ways or altered by a spreadsheet.
    """
    path = root / table
    records: list[RawRecord] = []
    without_lesion: list[str] = []
    empty: list[str] = []
    bmp: list[RawRecord] = []
    line_numbers: dict[str, int] = {}
    spellings: dict[tuple[str, str], tuple[str, int]] = {}
    path_resolver = UnicodePathResolver(root)
    for number, row in _rows(path):
        if not any(row.values()):
            empty.append(f"line {number}")
            continue
        try:
            record = _record(row, TableRow(path, number))
            refuse_invalid_group_names(record)
            _refuse_second_spelling(row, number, spellings)
            if (first := line_numbers.setdefault(record.image_id, number)) != number:
                raise DataError(f"has the image of line {first} again; keep one row for each.")
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        if record.path.lower().endswith(".bmp"):
            bmp.append(record)
            continue
        records.append(replace(record, path=path_resolver.resolve(record.path)))
        if not row.get("lesion_id"):
            without_lesion.append(record.image_id)
    remark = "no lesion_id, so each picture counts as a lesion of its own"
    return Listing(
        records=tuple(records),
        citation=_citation(records),
        dropped={EMPTY_ROW: tuple(empty)} if empty else {},
        refused={BMP: tuple(bmp)} if bmp else {},
        findings={remark: tuple(sorted(without_lesion))} if without_lesion else {},
    )


def line_numbers(root: Path, table: str) -> dict[str, int]:
    """Line number of each picture in the table, by image id.

    Raises:
        DataError: as ``read``.
    """
    return {_safe_relative_path(row["image"]): number for number, row in _rows(root / table) if row["image"]}


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their line number in the file, cells stripped; all columns are known."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            try:
                yield from _checked_rows(path, reader)
            except csv.Error as error:
                line = reader.reader.line_num  # the outer reader counts a row only when it is complete
                raise DataError(
                    f"{path}, line {line}: cannot be read as a UTF-8 table with commas ({error})."
                ) from None
    except FileNotFoundError:
        raise DataError(
            f"{path}: expected the table of the dataset here, found nothing; check data.root and data.table "
            "(at a site: --cases)."
        ) from None
    except UnicodeDecodeError:
        raise DataError(
            f"{path}: expected UTF-8, found something else ({_describe_wrong_encoding(path)}); save it as "
            "'CSV UTF-8' with commas."
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a UTF-8 table with commas ({error}).") from None


def _checked_rows(path: Path, reader: csv.DictReader[str]) -> Iterator[tuple[int, dict[str, str]]]:
    _check_separator(path, reader.fieldnames or ())
    _check_columns(path, reader.fieldnames or ())
    for row in reader:
        if None in row or None in row.values():
            comma = ": it ends with a comma" if row.get(None) == [""] else ""
            raise DataError(f"{path}, line {reader.line_num}: more or fewer cells than the header{comma}.")
        cells = {name: cell.strip() for name, cell in row.items()}
        for name, cell in cells.items():
            if "\r" in cell.replace("\r\n", ""):  # Python's csv writes it as it is, but cannot read it back
                raise DataError(
                    f"{path}, line {reader.line_num}: the {name} holds a carriage return; take it out."
                )
        yield reader.line_num, cells


def _describe_wrong_encoding(path: Path) -> str:
    """The first byte that is not UTF-8; the block-wise decoder knows only the place in a block."""
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "the table is in UTF-16"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = len(re.split(rb"\r\n|\r|\n", data[: error.start]))
        return f"line {line} has the byte 0x{data[error.start]:02x}"
    return "it changed while it was read"


def _check_separator(path: Path, columns: Sequence[str]) -> None:
    """Raise for the separators that spreadsheets may write, with advice on how to save the table."""
    if columns and columns[0].lower().startswith("sep="):
        raise DataError(f"{path}: the first line names the separator, for spreadsheets; remove that line.")
    if len(columns) == 1:
        for separator, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
            if separator in columns[0]:
                raise DataError(f"{path}: the table is separated by {word}; save it with commas.")
    for number, name in enumerate(columns, 1):
        if not name.strip():
            raise DataError(
                f"{path}: column {number} of {len(columns)} has no name; name it, or remove it"
                + (" (the header ends with a comma)." if number == len(columns) else ".")
            )


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    known = (*REQUIRED, *OPTIONAL)
    refuse_missing_header(path, columns, known)
    for name in columns:
        if name not in known:
            absent = [one for one in known if one not in columns]
            likely = COLUMN_ALIASES.get(name.lower(), name.lower())
            near = closest_column(likely, absent)
            hint = f"did you mean '{near}'? If not, remove it."
            if not near:
                hint = f"remove it if it is none of these: {', '.join(known)}."
            if likely != name and likely in columns:
                hint = f"'{likely}' is already there, so remove one."
            raise DataError(f"{path}: unknown column '{name}'; {hint}")
        if columns.count(name) > 1:
            raise DataError(f"{path}: column '{name}' appears twice; keep one.")
    for name in REQUIRED:
        if name not in columns:
            raise DataError(f"{path}: expected the columns {' and '.join(REQUIRED)}, found no '{name}'.")


def refuse_missing_header(path: Path, columns: Sequence[str], known: Sequence[str]) -> None:
    """Raise if the first line is not a header: it is then a row, and no error may repeat its cells.

    Raises:
        DataError: there is a first line, and it has not one known name or common name of a column.
    """
    words = {name.strip().lower() for name in columns}
    if words and words.isdisjoint(known) and words.isdisjoint(COLUMN_ALIASES):
        raise DataError(
            f"{path}, line 1: expected a header, found no known column; known: {', '.join(known)}."
        )


def closest_column(name: str, columns: Sequence[str]) -> str:
    """The column that a misspelt one was meant for; empty: none is similar.

    There are so many questions of the history that almost any word resembles one: they must be very similar.
    """
    near = difflib.get_close_matches(name, columns, n=len(columns), cutoff=0.5) if columns else []
    alike = difflib.get_close_matches(name, QUESTIONS, n=len(QUESTIONS), cutoff=0.75)
    return next((one for one in near if one not in QUESTIONS or one in alike), "")


def _record(row: Mapping[str, str], table_row: TableRow) -> RawRecord:
    image = _safe_relative_path(row["image"])
    needs = row["needs_in_person"].lower()
    if needs not in _BOOLEANS:
        raise DataError("needs_in_person cannot be read; expected true, yes, 1, false, no, 0 or nothing.")
    for name in ID_COLUMNS:
        cell = row.get(name, "")
        refuse_missing_marker(name, cell)
        if _ALTERED_BY_SPREADSHEET.fullmatch(cell):
            raise DataError(
                f"{name} is what a spreadsheet writes in place of a long number or an error, so strangers "
                "could share it; export the column as text, or use another name."
            )
    return RawRecord(
        image_id=image,
        path=image,
        # The prefix keeps a picture from being taken for a lesion named by another row.
        lesion_id=row.get("lesion_id") or placeholder_lesion_id(image),
        patient_id=row.get("patient_id") or None,
        needs_in_person=_BOOLEANS[needs],
        source=row.get("source") or "folder",
        age_approx=parse_age(row.get("age_approx", ""), "age_approx"),
        history=history_json(row, QUESTIONS),
        row=table_row,
        **{name: _cell_text(row, name) for name in TEXT_COLUMNS},
    )


def _refuse_second_spelling(
    row: Mapping[str, str], number: int, spellings: dict[tuple[str, str], tuple[str, int]]
) -> None:
    """Raise for a second spelling of one lesion or patient: as two names it could be in two splits.

    Args:
        row: cells by column.
        number: its line.
        spellings: the first spelling of each name and its line, by column and normal form; extended.
    """
    for column in ID_COLUMNS:
        if not (name := row.get(column, "")):
            continue
        first, line = spellings.setdefault((column, _normal_form(name)), (name, number))
        if first != name:
            raise DataError(
                f"{column} is probably that of line {line}, spelt in another way; spell it in one way, or "
                "use names that differ in more than case, blanks, leading zeros and '.0'."
            )


def _normal_form(name: str) -> str:
    """One form for the spellings that programs and people mix: 7, 07 and 7.0; A1 and a1; é in either form."""
    text = " ".join(normalize("NFKC", name).casefold().split())
    return _WHOLE_NUMBER.sub(r"\1", text)


def _cell_text(row: Mapping[str, str], name: str) -> str:
    cell = row.get(name, "")
    return known_or_empty(cell) if name in GROUP_FIELDS else cell


def history_json(row: Mapping[str, str], names: Sequence[str]) -> str:
    """The history in the cells of a row, in the format of ``bundle.history.history_to_text``.

    Args:
        row: cells by column; an absent cell says nothing, nor does a group's cell that only marks unknown.
        names: fields of ``History`` to look for.

    Raises:
        DataError: a cell that is not a valid answer to its question.
    """
    answers: dict[str, object] = {}
    for name in names:
        cell = _cell_text(row, name)
        if name in NUMBER_FIELDS and cell:
            try:
                answers[name] = parse_decimal(cell)
            except ValueError as error:
                raise DataError(f"{name}: {error}.") from None
        elif name not in YES_NO_FIELDS:
            answers[name] = cell or None
        elif cell.lower() in _BOOLEANS:
            answers[name] = _BOOLEANS[cell.lower()]
        else:
            raise DataError(f"{name} cannot be read; expected true, yes, 1, false, no, 0 or nothing.")
    try:
        return history_to_text(History.model_validate(answers))
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        raise DataError(f"{name}: {problem['msg']}.") from None


def _safe_relative_path(image: str) -> str:
    """The path in one spelling, checked to stay below the root on every system."""
    if not image:
        raise DataError("the image cell is empty; expected a path relative to the data root.")
    path = PurePosixPath(image.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(image).anchor or ".." in path.parts or "\0" in image:
        raise DataError("the path in image leaves the data root; expected one below it.")
    return path.as_posix()


def _citation(records: list[RawRecord]) -> tuple[str, ...]:
    """Every attribution in the table with its licence, once each."""
    stated = {(record.attribution, record.copyright_license) for record in records}
    return tuple(sorted("; ".join(filter(None, pair)) for pair in stated if any(pair)))
