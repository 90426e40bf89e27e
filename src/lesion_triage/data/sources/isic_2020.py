"""Reader for ISIC 2020 (SIIM-ISIC). Imports records, labels, tables and the exception tree.

Rotemberg et al., A patient-centric dataset of images and metadata for identifying melanomas using clinical
context, Scientific Data 8, 34 (2021), doi:10.1038/s41597-021-00815-z; CC BY-NC 4.0. Official page:
https://challenge2020.isic-archive.com/, doi:10.34970/2020-ds01.

The layout is ``ISIC_2020_Training_GroundTruth_v2.csv`` (the first version lacks ``lesion_id``; Kaggle's
copy is ``train.csv``) with ``image_name``, ``patient_id``, ``sex``, ``age_approx``,
``anatom_site_general_challenge``, ``diagnosis``, ``benign_malignant``, ``target``; JPEG files in any
sub-folder; and, if present, ``ISIC_2020_Training_Duplicates.csv`` (``image_name_1``, ``image_name_2``), of
which the second is left out.

Traps: 27,124 of 33,126 rows have the diagnosis ``unknown`` and are ``benign``: someone looked and called
them so, mostly without biopsy. The table does not say which labels pathology confirmed; only melanoma,
which according to the paper always was, is marked as confirmed. The test set's labels are not public. One
patient has up to 115 pictures.
"""

from __future__ import annotations

from pathlib import Path

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import HISTOPATHOLOGY, Listing, RawRecord, known_or_empty, parse_age
from lesion_triage.data.sources.tables import RecordCollector, Row, read_rows, scan_folder
from lesion_triage.errors import DataError

LICENSE = "CC BY-NC 4.0"
ATTRIBUTION = "ISIC 2020, Rotemberg et al., Scientific Data 2021, doi:10.1038/s41597-021-00815-z"
TABLES = ("ISIC_2020_Training_GroundTruth_v2.csv", "ISIC_2020_Training_GroundTruth.csv", "train.csv")
DUPLICATES = "ISIC_2020_Training_Duplicates.csv"
DROPPED = "duplicate_by_the_dataset_s_own_list"

_COLUMNS = (
    "image_name",
    "patient_id",
    "sex",
    "age_approx",
    "anatom_site_general_challenge",
    "diagnosis",
    "benign_malignant",
)


def read(root: Path) -> Listing:
    """List every row of the training table.

    Raises:
        DataError: no table, a column missing, a diagnosis that is not in the label table or contradicts
            ``benign_malignant``, an age that is not a number.
    """
    folder = scan_folder(root)
    table = folder.table(TABLES, "ISIC 2020")
    copies: set[str] = set()
    if DUPLICATES in folder.tables:
        pairs = read_rows(folder.tables[DUPLICATES], ("image_name_1", "image_name_2"))
        copies = {row["image_name_2"] for _, row in pairs}
    collector = RecordCollector()

    def record(row: Row) -> RawRecord | None:
        image = row["image_name"]
        needs = _needs_in_person(row)
        if image in copies:
            collector.add_dropped(DROPPED, image)
            return None
        if image not in folder.pictures:
            collector.missing.append(image)
            return None
        return RawRecord(
            image_id=image,
            path=folder.pictures[image],
            lesion_id=collector.lesion_id_or_placeholder(row["lesion_id"], image),
            patient_id=row["patient_id"] or None,
            diagnosis=row["diagnosis"],
            diagnosis_confirm_type=HISTOPATHOLOGY if needs else "",
            needs_in_person=needs,
            source="isic_2020",
            sex=known_or_empty(row["sex"]),
            age_approx=parse_age(known_or_empty(row["age_approx"]), "age_approx"),
            anatom_site_general=known_or_empty(row["anatom_site_general_challenge"]),
            image_type="dermoscopic",
            copyright_license=LICENSE,
            attribution=ATTRIBUTION,
        )

    collector.add_rows(table, read_rows(table, _COLUMNS, ("lesion_id",)), record)
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}", folder.duplicate_names)


def _needs_in_person(row: Row) -> bool | None:
    needs = label_for("isic_2020", row["diagnosis"]).needs_in_person
    if row["benign_malignant"] not in ("benign", "malignant"):
        raise DataError(f"benign_malignant '{row['benign_malignant']}' is unknown; known: benign, malignant.")
    if (row["benign_malignant"] == "malignant") != (needs is True):
        raise DataError(f"diagnosis '{row['diagnosis']}' contradicts '{row['benign_malignant']}'.")
    return needs
