"""Reader for ISIC 2024, SLICE-3D, from its HDF5 file. Imports records, labels, picture files, tables, errors.

Kurtansky et al., The SLICE-3D dataset: 400,000 skin lesion image crops extracted from 3D TBP for skin
cancer detection, Scientific Data 11, 884 (2024), doi:10.1038/s41597-024-03743-w; CC BY-NC 4.0 (some of its
pictures CC BY or CC0: column ``copyright_license``). Official pages:
https://challenge2024.isic-archive.com/, doi:10.34970/2024-slice-3d,
https://www.kaggle.com/competitions/isic-2024-challenge/data.

The layout is Kaggle's: ``train-metadata.csv`` and ``train-image.hdf5``, in which each entry is named by an
``isic_id`` and contains the bytes of a JPEG file. Without an HDF5 file, ``train-image/image/ISIC_*.jpg`` is
read.

Traps: 401,059 rows and 393 positives by the dataset's ``target``. Fewer than 1,100 diagnoses were confirmed
by pathology; the rest just say ``Benign``, after a clinician's glance at the whole body. A row has a
``lesion_id`` if someone marked the lesion, so its mere presence predicts the label; so do ``mel_thick_mm``,
``tbp_lv_dnn_lesion_confidence`` and other columns that are not read here. Actinic keratosis has ``target``
0. Crops are small, many below 150 pixels: ``calibrate.quality.min_short_side_px`` must allow them. One
patient has up to 9,184 crops; the unit is the patient.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lesion_triage.data import picture_files
from lesion_triage.data.labels import label_for
from lesion_triage.data.records import (
    HISTOPATHOLOGY,
    Listing,
    RawRecord,
    known_or_empty,
    parse_age,
    placeholder_lesion_id,
)
from lesion_triage.data.sources.tables import RecordCollector, Row, read_rows, scan_folder
from lesion_triage.errors import DataError

ATTRIBUTION = "ISIC 2024 SLICE-3D, Kurtansky et al., Scientific Data 2024, doi:10.1038/s41597-024-03743-w"
LICENSE = "CC BY-NC 4.0"
TABLE = "train-metadata.csv"
PICTURES = "train-image.hdf5"
NO_BIOPSY = "clinical"

_COLUMNS = ("isic_id", "target", "patient_id", "age_approx", "sex", "anatom_site_general", "iddx_full")
_OPTIONAL = ("lesion_id", "image_type", "attribution", "copyright_license")


def read(root: Path) -> Listing:
    """List every row of the metadata table.

    Raises:
        DataError: no table, an HDF5 file that cannot be opened, a column missing, a diagnosis that is not
            in the label table or contradicts ``target``, an age that is not a number.
    """
    if not (root / TABLE).is_file():
        raise DataError(
            f"{root}: expected ISIC 2024's {TABLE} here, found none; "
            "give the folder that holds it with --data-root."
        )
    path_of, duplicate_names = _picture_lookup(root)
    collector = RecordCollector()

    def record(row: Row) -> RawRecord | None:
        needs = _needs_in_person(row)
        path = path_of(row["isic_id"])
        if path is None:
            collector.missing.append(row["isic_id"])
            return None
        return RawRecord(
            image_id=row["isic_id"],
            path=path,
            lesion_id=row["lesion_id"] or placeholder_lesion_id(row["isic_id"]),
            patient_id=row["patient_id"] or None,
            diagnosis=row["iddx_full"],
            # Only lesions seen by pathology go beyond the first level of the archive's tree.
            diagnosis_confirm_type=HISTOPATHOLOGY if "::" in row["iddx_full"] else NO_BIOPSY,
            needs_in_person=needs,
            source=row["attribution"] or "isic_2024",
            sex=known_or_empty(row["sex"]),
            age_approx=parse_age(known_or_empty(row["age_approx"]), "age_approx"),
            anatom_site_general=known_or_empty(row["anatom_site_general"]),
            image_type=row["image_type"] or "TBP tile: close-up",
            copyright_license=row["copyright_license"] or LICENSE,
            attribution=ATTRIBUTION,
        )

    collector.add_rows(root / TABLE, read_rows(root / TABLE, _COLUMNS, _OPTIONAL), record)
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}", duplicate_names)


def _picture_lookup(root: Path) -> tuple[Callable[[str], str | None], tuple[str, ...]]:
    """A function from an id to its path, and the names found twice."""
    file = root / PICTURES
    if file.is_file():
        try:
            names = picture_files.hdf5_keys(file)
        except OSError as error:
            raise DataError(f"{file}: cannot be opened as HDF5 ({error}); complete the download.") from None
        return lambda name: f"{PICTURES}#{name}" if name in names else None, ()
    folder = scan_folder(root)
    return folder.pictures.get, folder.duplicate_names


def _needs_in_person(row: Row) -> bool | None:
    needs = label_for("isic_2024", row["iddx_full"]).needs_in_person
    if row["target"] not in ("0", "1"):
        raise DataError(f"target '{row['target']}' is unknown; known: 0, 1.")
    if (row["target"] == "1") != row["iddx_full"].startswith("Malignant"):
        raise DataError(f"iddx_full '{row['iddx_full']}' contradicts target {row['target']}.")
    return needs
