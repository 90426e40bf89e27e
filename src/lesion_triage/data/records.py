"""One photograph: the dataset's information and the facts of its file. Imports bundle, errors.

Field names are those of the ISIC archive where it has them; an empty text or None means unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from lesion_triage.bundle.certificate import Unit
from lesion_triage.bundle.history import GroupName, parse_decimal
from lesion_triage.errors import DataError

HISTOPATHOLOGY = "histopathology"
"""``diagnosis_confirm_type`` of a label confirmed by a pathologist; readers map other terms to it."""

SYNTHETIC = "synthetic"
"""A record whose ``source`` begins with this was drawn by a program, and so was everything made from it."""

GROUP_FIELDS = ("sex", "anatom_site_general", "fitzpatrick_skin_type")
"""Fields that a platform sends too, and that define groups of a certificate."""

_MISSING_MARKERS = frozenset(
    {"", "na", "n/a", "n.a.", "<na>", "#n/a", "nan", "nat", "null", "none", "unk", "unknown", "-", "--", "?"}
    | {"missing", "not available", "not recorded"}
)
"""Lower-case words by which tables mark a cell as not filled in."""

_GROUP_NAME: TypeAdapter[str] = TypeAdapter(GroupName)

_PLACEHOLDER_PREFIX = "image:"


class TableRow(NamedTuple):
    """Where a dataset's own table describes a picture, by which errors name it."""

    table: Path
    line: int
    """In the file, from 1, the header included; of a row of several lines the last."""

    def __str__(self) -> str:
        return f"{self.table}, line {self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecord:
    """A dataset's own information on one photograph."""

    image_id: str
    path: str
    """Relative to the data root, with forward slashes; in a mixture it begins with the part's name.

    ``FILE.hdf5#NAME`` is an entry of an HDF5 file, ``FILE.npz#ARRAY/NUMBER`` one picture of an array.
    """
    lesion_id: str
    patient_id: str | None = None
    diagnosis: str = ""
    """The source's own code, such as ``nv``."""
    diagnosis_confirm_type: str = ""
    needs_in_person: bool | None
    """The positive class. None means unknown, never False."""
    source: str
    """Where the picture was taken: hospital, camera, collection."""
    sex: str = ""
    age_approx: float | None = None
    """Years."""
    anatom_site_general: str = ""
    image_type: str = ""
    fitzpatrick_skin_type: str = ""
    history: str = ""
    """Further answers of the person: JSON of ``bundle.history``; empty: none."""
    copyright_license: str = ""
    attribution: str = ""
    official_split: str = ""
    """``train``, ``validation`` or ``test`` if the dataset itself says so."""
    row: TableRow | None = field(default=None, compare=False, repr=False)
    """For errors alone, so it is not written to the manifest; None: read from one, or not from a table."""

    @property
    def case_id(self) -> str:
        """One lesion: the case that the server is asked about."""
        return self.lesion_id

    @property
    def unit_id(self) -> str:
        """What is drawn independently of the others: the patient if known, else the lesion."""
        return self.patient_id or self.lesion_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(RawRecord):
    """One photograph whose file was read and found intact."""

    sha256: str
    """Of the bytes that ``picture_files.read_bytes`` gives: the file's own if each picture is a file."""
    width_px: int
    """Of the upright picture, as the pixel path sees it."""
    height_px: int
    duplicate_group: str = ""
    """Image id of the first of several pictures that are copies; empty if there are none."""
    shared_unit: str = ""
    """The unit formed by lesions or patients that share copies of a picture; empty if they do not."""

    @property
    def unit_id(self) -> str:
        """As for a raw record, but lesions or patients that share a picture form one unit."""
        return self.shared_unit or self.patient_id or self.lesion_id


RAW_COLUMNS = tuple(column.name for column in fields(RawRecord) if column.name != "row")
COLUMNS = tuple(column.name for column in fields(Record) if column.name != "row")
"""What is known of a photograph, before and after its file was read; the latter are a manifest's columns."""


def place_of(record: RawRecord) -> str:
    """Where to find a photograph, for an error: its ids and its file's name may identify a person.

    Returns:
        The row of the dataset's own table; of a record from a manifest, digits by which to find it there.
    """
    if record.row is not None:
        return str(record.row)
    if isinstance(record, Record):
        return f"the picture whose sha256 in manifest.csv begins with {record.sha256[:12]}"
    return "a picture of the dataset"


@dataclass(frozen=True, slots=True)
class Listing:
    """What a reader found under the data root, before any picture was opened."""

    records: tuple[RawRecord, ...]
    citation: tuple[str, ...]
    """Licence and citation of every dataset behind the records; empty if the owner states none."""
    missing: tuple[str, ...] = ()
    """Pictures that the table names but the folder lacks."""
    dropped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason -> pictures that are left out for it although their files are there."""
    refused: Mapping[str, tuple[RawRecord, ...]] = field(default_factory=dict)
    """Reason -> records of pictures that the server would refuse. They are left out like files that cannot be
    read, and their labels still count for their lesions."""
    findings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Remark -> names of the kept records that it concerns."""


def unit_of_analysis(records: Iterable[RawRecord]) -> Unit:
    """What a certificate on these records counts: patients if any is named, else lesions.

    Among named patients, a lesion without one counts as a patient of its own, as in its ``unit_id``;
    ``unnamed_lesions`` says how many there are.
    """
    return "patient" if any(record.patient_id for record in records) else "lesion"


def unnamed_lesions(records: Iterable[RawRecord]) -> int:
    """Lesions that each count as a patient because others name theirs; 0 if lesions are counted anyway."""
    known = tuple(records)
    if unit_of_analysis(known) == "lesion":
        return 0
    return len({record.lesion_id for record in known if not record.patient_id})


def placeholder_lesion_id(image_id: str) -> str:
    """The ``lesion_id`` of a photograph that names no lesion."""
    return f"{_PLACEHOLDER_PREFIX}{image_id}"


def has_placeholder_lesion(record: RawRecord) -> bool:
    """Whether the reader had to make up a lesion for this picture."""
    part, colon, _ = record.image_id.partition(":")  # a mixture prefixes both with the part's name
    return record.lesion_id.removeprefix(part + colon if colon else "").startswith(_PLACEHOLDER_PREFIX)


def unnamed_photographs(records: Iterable[RawRecord]) -> int:
    """Photographs that name no lesion, each of which counts as a lesion of its own."""
    return sum(has_placeholder_lesion(record) for record in records)


def parse_age(cell: str, column: str) -> float | None:
    """An age as written in tables; empty means unknown.

    Raises:
        DataError: not a number from 0 to 120; the sentence names ``column``.
    """
    if not cell:
        return None
    try:
        age = parse_decimal(cell)
    except ValueError:
        age = math.nan
    if not 0 <= age <= 120:
        raise DataError(f"{column} is not a number of years from 0 to 120.")
    return age


def refuse_invalid_group_names(record: RawRecord) -> None:
    """Raise for a word that no platform could send: a group with that name would never occur in service.

    Raises:
        DataError: names the field.
    """
    for name in GROUP_FIELDS:
        word = getattr(record, name)
        try:
            if word:
                _GROUP_NAME.validate_python(word)
        except ValidationError:
            raise DataError(
                f"{name} is no word that a platform can send: at most 60 letters, digits, spaces and "
                "& / . , + ( ) -, a letter or a digit first; leave it empty where it is unknown."
            ) from None


def known_or_empty(cell: str) -> str:
    """Content of a cell; empty if its word is one that marks unknown."""
    return "" if cell.strip().lower() in _MISSING_MARKERS else cell


def refuse_missing_marker(column: str, cell: str) -> None:
    """Raise for a word that only marks a cell as unknown; as a name it would join strangers.

    Raises:
        DataError: names the column and the word.
    """
    if cell and not known_or_empty(cell):
        raise DataError(
            f"{column} is '{cell}', which in tables means unknown; leave the cell empty, or use another "
            "word if it is a value."
        )
