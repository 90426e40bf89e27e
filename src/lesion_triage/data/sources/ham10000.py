"""Reader for HAM10000 in its official layout. Imports records, labels, tables and the exception tree.

Tschandl, Rosendahl, Kittler, Scientific Data 5, 180161 (2018), doi:10.1038/sdata.2018.161; CC BY-NC 4.0.
Official page: Harvard Dataverse, doi:10.7910/DVN/DBW86T.

The layout is a metadata table, ``HAM10000_metadata.csv``, or without an extension or with tabs, as
Dataverse serves it, and JPEG files in any sub-folder (``HAM10000_images_part_1`` and so on). The pictures
are dermoscopic, one to six for each lesion; there are lesion ids but no patient ids. Column ``dataset``
names hospital and camera; early copies of the table lack it. Where the picture was taken alone predicts the
label well, so reports must show sources separately.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import HISTOPATHOLOGY, Listing, RawRecord, known_or_empty, parse_age
from lesion_triage.data.sources.tables import RecordCollector, Row, map_term, read_rows, scan_folder
from lesion_triage.errors import DataError

LICENSE = "CC BY-NC 4.0"
ATTRIBUTION = "Tschandl, Rosendahl, Kittler, Scientific Data 2018, doi:10.1038/sdata.2018.161"
METADATA_NAMES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")

CONFIRM_TYPES: Mapping[str, str] = MappingProxyType(
    {"histo": HISTOPATHOLOGY, "follow_up": "follow_up", "consensus": "consensus", "confocal": "confocal"}
)
"""The dataset's ``dx_type`` -> our ``diagnosis_confirm_type``."""

_COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")


def read(root: Path) -> Listing:
    """List every row of the metadata table with the picture that belongs to it.

    Raises:
        DataError: no metadata table, a column missing, a code that is not in the label table, an age
            that is not a number.
    """
    folder = scan_folder(root)
    table = _metadata(root)
    collector = RecordCollector()

    def record(row: Row) -> RawRecord | None:
        path = folder.pictures.get(row["image_id"])
        if path is None:
            collector.missing.append(row["image_id"])
            return None
        return _record(row, path)

    hint = "take the metadata table that belongs to HAM10000, not the ISIC archive's"
    collector.add_rows(table, read_rows(table, _COLUMNS, ("dataset",), hint=hint), record)
    return collector.to_listing(f"HAM10000: {ATTRIBUTION}; {LICENSE}", folder.duplicate_names)


def _metadata(root: Path) -> Path:
    for name in METADATA_NAMES:
        if (root / name).is_file():
            return root / name
    raise DataError(
        f"{root}: expected HAM10000's {' or '.join(METADATA_NAMES)} here, found none; "
        "give the folder that holds it with --data-root."
    )


def _record(row: Row, path: str) -> RawRecord:
    if not row["lesion_id"]:
        raise DataError("lesion_id is empty.")
    return RawRecord(
        image_id=row["image_id"],
        path=path,
        lesion_id=row["lesion_id"],
        diagnosis=row["dx"],
        diagnosis_confirm_type=map_term(row["dx_type"], CONFIRM_TYPES, "dx_type"),
        needs_in_person=label_for("ham10000", row["dx"]).needs_in_person,
        source=row["dataset"] or "ham10000",
        sex=known_or_empty(row["sex"]),
        age_approx=parse_age(row["age"], "age"),
        anatom_site_general=known_or_empty(row["localization"]),
        image_type="dermoscopic",
        copyright_license=LICENSE,
        attribution=ATTRIBUTION,
    )
