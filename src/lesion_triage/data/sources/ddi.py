"""Reader for DDI, Diverse Dermatology Images. Imports records, labels, tables and the exception tree.

Daneshjou et al., Disparities in dermatology AI performance on a diverse, curated clinical image set,
Science Advances 8, eabq6147 (2022), doi:10.1126/sciadv.abq6147. Licence: Stanford's research use
agreement. Official page: https://ddi-dataset.github.io; columns: https://github.com/DDI-Dataset/DDI-Code.

The layout is ``ddi_metadata.csv`` (``DDI_ID``, ``DDI_file``, ``skin_tone``, ``malignant``, ``disease``)
and PNG files in any sub-folder.

Traps: 656 pictures of 570 patients, and the table names neither patients nor lesions, so pictures of one
person may be in two splits: best used for testing only. ``skin_tone`` groups two types each (12, 34, 56). All
diagnoses are confirmed by pathology, so even the harmless lesions once seemed worth a biopsy. Actinic
keratosis is not ``malignant`` there and True here, as in every other dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import HISTOPATHOLOGY, Listing, RawRecord
from lesion_triage.data.sources.tables import JPEG, RecordCollector, Row, map_term, read_rows, scan_folder
from lesion_triage.errors import DataError

LICENSE = "Stanford University research use agreement"
ATTRIBUTION = "DDI, Daneshjou et al., Science Advances 2022, doi:10.1126/sciadv.abq6147"
TABLE = "ddi_metadata.csv"
SKIN_TONES: Mapping[str, str] = MappingProxyType({"12": "I-II", "34": "III-IV", "56": "V-VI"})

_MALIGNANT = {"true": True, "1": True, "false": False, "0": False}
_PRECURSOR = "actinic-keratosis"


def read(root: Path) -> Listing:
    """List every row of the metadata table.

    Raises:
        DataError: no table, a column missing, a disease or skin tone that is not known, a disease that
            contradicts ``malignant``.
    """
    folder = scan_folder(root, (".png", *JPEG))
    table = folder.table((TABLE,), "DDI")
    collector = RecordCollector()

    def record(row: Row) -> RawRecord | None:
        image = row["DDI_file"].rpartition(".")[0] or row["DDI_file"]
        needs = _needs_in_person(row)
        if image not in folder.pictures:
            collector.missing.append(image)
            return None
        return RawRecord(
            image_id=image,
            path=folder.pictures[image],
            lesion_id=collector.lesion_id_or_placeholder("", image),
            diagnosis=row["disease"],
            diagnosis_confirm_type=HISTOPATHOLOGY,
            needs_in_person=needs,
            source="ddi",
            image_type="clinical: close-up",
            fitzpatrick_skin_type=map_term(row["skin_tone"], SKIN_TONES, "skin_tone"),
            copyright_license=LICENSE,
            attribution=ATTRIBUTION,
        )

    collector.add_rows(table, read_rows(table, ("DDI_file", "skin_tone", "malignant", "disease")), record)
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}", folder.duplicate_names)


def _needs_in_person(row: Row) -> bool | None:
    needs = label_for("ddi", row["disease"]).needs_in_person
    malignant = _MALIGNANT.get(row["malignant"].lower())
    if malignant is None:
        raise DataError(f"malignant '{row['malignant']}' is unknown; known: True, False.")
    if malignant != (needs is True) and row["disease"] != _PRECURSOR:
        raise DataError(f"disease '{row['disease']}' contradicts malignant {row['malignant']}.")
    return needs
