"""Reader for Fitzpatrick17k in its official layout. Imports records, labels, tables and the exception tree.

Groh et al., Evaluating deep neural networks trained on clinical images in dermatology with the Fitzpatrick
17k dataset, CVPR Workshops 2021, arXiv:2104.09957; annotations CC BY-NC-SA 3.0, pictures belong to the
atlases. Official page, with the table: https://github.com/mattgroh/fitzpatrick17k.

The layout is ``fitzpatrick17k.csv`` (``md5hash``, ``fitzpatrick_scale``, ``fitzpatrick_centaur``,
``label``, ``nine_partition_label``, ``three_partition_label``, ``qc``, ``url``, ``url_alphanum``) and
pictures in any sub-folder, named by ``md5hash`` or by ``url_alphanum``.

Traps: the pictures come from two atlases on the web, not from a clinic. Labels are file names of the atlas,
none confirmed, and a review of 504 pictures found 3.4 % wrong. Near duplicates and several pictures of one
person have different hashes and cannot be recognised by the table (Abhishek et al. 2025,
doi:10.1038/s41597-025-04382-5). Three quarters are inflammatory or inherited disease, outside the label
table's question. ``qc`` says which pictures a reviewer thought wrong: their label is unknown here. Skin types
are crowd annotations; -1 is unknown.
"""

from __future__ import annotations

from pathlib import Path

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import Listing, RawRecord
from lesion_triage.data.sources.pad_ufes_20 import SKIN_TYPES
from lesion_triage.data.sources.tables import JPEG, RecordCollector, Row, map_term, read_rows, scan_folder
from lesion_triage.errors import DataError

LICENSE = "CC BY-NC-SA 3.0 (annotations)"
ATTRIBUTION = "Fitzpatrick17k, Groh et al., CVPR Workshops 2021, arXiv:2104.09957"
TABLE = "fitzpatrick17k.csv"
WRONG = "3 Wrongly labelled"
DOUBTED = "a reviewer thought the label wrong, so it counts as unknown"
PARTITIONS = ("malignant", "benign", "non-neoplastic")

_COLUMNS = ("md5hash", "label", "three_partition_label")
_OPTIONAL = ("fitzpatrick_scale", "fitzpatrick_centaur", "qc", "url_alphanum")


def read(root: Path) -> Listing:
    """List every row of the table.

    Raises:
        DataError: no table, a column missing, a label or a skin type that is not known.
    """
    folder = scan_folder(root, (*JPEG, ".png"))
    table = folder.table((TABLE,), "Fitzpatrick17k")
    collector = RecordCollector()

    def record(row: Row) -> RawRecord | None:
        image = row["md5hash"]
        needs = _needs_in_person(row)
        path = folder.pictures.get(image) or folder.pictures.get(row["url_alphanum"].rpartition(".")[0])
        if path is None:
            collector.missing.append(image)
            return None
        if row["qc"] == WRONG:
            collector.add_finding(DOUBTED, image)
            needs = None
        return RawRecord(
            image_id=image,
            path=path,
            lesion_id=f"image:{image}",
            diagnosis=row["label"],
            needs_in_person=needs,
            source="fitzpatrick17k",
            image_type="clinical: close-up",
            fitzpatrick_skin_type=_skin_type(row),
            copyright_license=LICENSE,
            attribution=ATTRIBUTION,
        )

    collector.add_rows(table, read_rows(table, _COLUMNS, _OPTIONAL), record)
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}", folder.duplicate_names)


def _needs_in_person(row: Row) -> bool | None:
    if row["three_partition_label"] not in PARTITIONS:
        raise DataError(
            f"three_partition_label '{row['three_partition_label']}' is unknown; "
            f"known: {', '.join(PARTITIONS)}."
        )
    needs = label_for("fitzpatrick17k", row["label"]).needs_in_person
    if (row["three_partition_label"] == "malignant") != (needs is True):
        raise DataError(f"label '{row['label']}' contradicts '{row['three_partition_label']}'.")
    return needs


def _skin_type(row: Row) -> str:
    cell = row["fitzpatrick_scale"].removesuffix(".0")
    return map_term("" if cell == "-1" else cell, SKIN_TYPES, "fitzpatrick_scale")
