"""Reader for HAM10000 in its official layout. Imports records, labels and the exception tree.

Tschandl, Rosendahl, Kittler, Scientific Data 5, 180161 (2018), doi:10.1038/sdata.2018.161; CC BY-NC 4.0.

The layout is a metadata table, ``HAM10000_metadata.csv`` or without an ending as Dataverse serves it,
and JPEG files in any sub-folder (``HAM10000_images_part_1`` and so on). Dermoscopic pictures, one to six
for each lesion; lesion ids but no patient ids. Column ``dataset`` names hospital and camera; early
copies of the table lack it. Where the picture was taken alone predicts the label well, so reports must
show sources apart.
"""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import HISTOPATHOLOGY, Listing, RawRecord, age_in_years
from lesion_triage.errors import DataError

LICENSE = "CC BY-NC 4.0"
ATTRIBUTION = "Tschandl, Rosendahl, Kittler, Scientific Data 2018, doi:10.1038/sdata.2018.161"
METADATA_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata")

CONFIRM_TYPES: Mapping[str, str] = MappingProxyType(
    {"histo": HISTOPATHOLOGY, "follow_up": "follow_up", "consensus": "consensus", "confocal": "confocal"}
)
"""The dataset's ``dx_type``, and the word for it in ``diagnosis_confirm_type``."""

_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")


def read(root: Path) -> Listing:
    """List every row of the metadata table with the picture that belongs to it.

    Raises:
        DataError: no metadata table, a column missing, a code that is not in the label table, an age
            that is no number.
    """
    table = _metadata(root)
    pictures, twice = _pictures(root)
    records: list[RawRecord] = []
    missing: list[str] = []
    for number, row in _rows(table):
        try:
            path = pictures.get(row["image_id"])
            if path is None:
                missing.append(row["image_id"])
            else:
                records.append(_record(row, path))
        except DataError as error:
            raise DataError(f"{table}, line {number}: {error}") from None
    findings = {"stored under two names, the first in order was taken": twice} if twice else {}
    return Listing(
        records=tuple(records),
        citation=(f"HAM10000: {ATTRIBUTION}; {LICENSE}",),
        missing=tuple(missing),
        findings=findings,
    )


def _metadata(root: Path) -> Path:
    for name in METADATA_NAMES:
        if (root / name).is_file():
            return root / name
    raise DataError(
        f"{root}: expected HAM10000's {' or '.join(METADATA_NAMES)} here, found neither; "
        "give the folder that holds it with --data-root."
    )


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their line number in the file; every expected column is present and is text."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            absent = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if absent:
                raise DataError(
                    f"{table}: expected the columns {', '.join(_COLUMNS)}, found no {', '.join(absent)}; "
                    "take the metadata table that belongs to HAM10000, not the ISIC archive's."
                )
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(f"{table}, line {reader.line_num}: more or fewer cells than the header.")
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a table ({error}).") from None


def _pictures(root: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Image id to path, over all sub-folders, and the ids that were found more than once.

    A widely copied archive holds both parts twice, under names that differ in case.
    """
    found: dict[str, str] = {}
    twice: set[str] = set()
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        for name in sorted(names):
            stem, ending = os.path.splitext(name)  # noqa: PTH122 - a Path for each of 10,000 names is slow
            if ending.lower() not in (".jpg", ".jpeg"):
                continue
            if stem in found:
                twice.add(stem)
            else:
                found[stem] = Path(folder, name).relative_to(root).as_posix()
    return found, tuple(sorted(twice))


def _record(row: Mapping[str, str], path: str) -> RawRecord:
    if not row["lesion_id"]:
        raise DataError(f"image '{row['image_id']}' has no lesion_id.")
    return RawRecord(
        image_id=row["image_id"],
        path=path,
        lesion_id=row["lesion_id"],
        diagnosis=row["dx"],
        diagnosis_confirm_type=_confirm_type(row["dx_type"]),
        needs_in_person=label_for("ham10000", row["dx"]).needs_in_person,
        source=row.get("dataset") or "ham10000",
        sex=_known(row["sex"]),
        age_approx=age_in_years(row["age"], "age"),
        anatom_site_general=_known(row["localization"]),
        image_type="dermoscopic",
        copyright_license=LICENSE,
        attribution=ATTRIBUTION,
    )


def _known(word: str) -> str:
    return "" if word == "unknown" else word


def _confirm_type(word: str) -> str:
    if word in CONFIRM_TYPES:
        return CONFIRM_TYPES[word]
    near = difflib.get_close_matches(word, CONFIRM_TYPES, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(CONFIRM_TYPES)}."
    raise DataError(f"dx_type '{word}' is unknown; {hint}")
