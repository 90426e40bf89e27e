"""Reader for BCN20000 in its official layout. Imports records, labels, tables and the exception tree.

Hernandez-Perez et al., BCN20000: Dermoscopic Lesions in the Wild, Scientific Data 11, 641 (2024),
doi:10.1038/s41597-024-03387-w; CC BY-NC 4.0 in the ISIC archive. Official page: figshare,
doi:10.6084/m9.figshare.24140028.

The layout is ``bcn_20k_train.csv`` and ``bcn_20k_test.csv`` with ``bcn_filename``, ``age_approx``,
``anatom_site_general``, ``diagnosis``, ``lesion_id``, ``capture_date``, ``sex`` and ``split``, and JPEG
files in any sub-folder (``BCN_20k_train``, ``BCN_20k_test``).

Traps: most of the training pictures are in ISIC 2019, too, under other names. Their lesion ids agree, so in
a mixture of both no lesion crosses splits, but each is there twice. The test table may have no diagnoses:
such a picture's label is unknown. Nails, mucosa and lesions larger than the lens are included.
"""

from __future__ import annotations

from pathlib import Path

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import Listing, RawRecord, known_or_empty, parse_age
from lesion_triage.data.sources.tables import RecordCollector, Row, read_rows, scan_folder
from lesion_triage.errors import DataError

LICENSE = "CC BY-NC 4.0"
ATTRIBUTION = "BCN20000, Hernandez-Perez et al., Scientific Data 2024, doi:10.1038/s41597-024-03387-w"
TABLES = {"train": "bcn_20k_train.csv", "test": "bcn_20k_test.csv"}

_COLUMNS = ("bcn_filename",)
_OPTIONAL = ("age_approx", "anatom_site_general", "sex")


def read(root: Path) -> Listing:
    """List every row of the tables that are there.

    Raises:
        DataError: neither table, a column missing, a diagnosis that is not in the label table, a training
            picture without a lesion, an age that is not a number.
    """
    folder = scan_folder(root)
    tables = {name.lower(): path for name, path in folder.tables.items()}  # copies differ in case
    present = {split: tables[name] for split, name in TABLES.items() if name in tables}
    if not present:
        folder.table(tuple(TABLES.values()), "BCN20000")
    collector = RecordCollector()

    def record(row: Row, split: str) -> RawRecord | None:
        image = row["bcn_filename"].rpartition(".")[0] or row["bcn_filename"]
        needs = label_for("bcn20000", row["diagnosis"]).needs_in_person
        if split == "train" and not row["lesion_id"]:
            raise DataError("lesion_id is empty.")
        if image not in folder.pictures:
            collector.missing.append(image)
            return None
        return RawRecord(
            image_id=image,
            path=folder.pictures[image],
            lesion_id=collector.lesion_id_or_placeholder(row["lesion_id"], image),
            diagnosis=row["diagnosis"],
            needs_in_person=needs,
            source="bcn20000",
            sex=known_or_empty(row["sex"]),
            age_approx=parse_age(known_or_empty(row["age_approx"]), "age_approx"),
            anatom_site_general=known_or_empty(row["anatom_site_general"]),
            image_type="dermoscopic",
            copyright_license=LICENSE,
            attribution=ATTRIBUTION,
            official_split=split,
        )

    for split, table in present.items():
        # The challenge's test table has neither lesion nor diagnosis; then the label is unknown.
        truth = ("diagnosis", "lesion_id")
        columns, optional = ((*_COLUMNS, *truth), ()) if split == "train" else (_COLUMNS, truth)
        collector.add_rows(
            table,
            read_rows(table, columns, (*_OPTIONAL, *optional)),
            lambda row, split=split: record(row, split),  # type: ignore[misc]
        )
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}", folder.duplicate_names)
