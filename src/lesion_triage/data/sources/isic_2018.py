"""Reader for ISIC 2018 task 3, its test set included. Imports records, labels, tables and the exception tree.

Codella et al., Skin Lesion Analysis Toward Melanoma Detection 2018, arXiv:1902.03368; Tschandl, Rosendahl,
Kittler, Scientific Data 5, 180161 (2018), doi:10.1038/sdata.2018.161; CC BY-NC 4.0. Official pages:
https://challenge.isic-archive.com/data/#2018 and https://challenge.isic-archive.com/landing/2018/47 (the
columns and the seven classes).

The layout is that of the challenge's archives, unpacked below one folder:
``ISIC2018_Task3_{Training,Validation,Test}_Input/ISIC_*.jpg``, for each a
``ISIC2018_Task3_*_GroundTruth.csv`` (``image`` and one column for each class), and
``ISIC2018_Task3_Training_LesionGroupings.csv`` (``image``, ``lesion_id``, ``diagnosis_confirm_type``).
Whichever of the three parts exist are read.

Traps: the training pictures are HAM10000, under the same ids; a mixture of both keeps each once. Validation
and test name no lesions, so two pictures of one lesion cannot be recognised there. Age, sex and body site
are not in these tables, but in HAM10000's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import Listing, RawRecord
from lesion_triage.data.sources.isic_terms import CONFIRM_TYPES
from lesion_triage.data.sources.tables import (
    DataFolder,
    RecordCollector,
    Row,
    index_rows,
    map_term,
    one_hot_class,
    read_rows,
    scan_folder,
)
from lesion_triage.errors import DataError

LICENSE = "CC BY-NC 4.0"
ATTRIBUTION = "Codella et al. 2018, arXiv:1902.03368; Tschandl et al. 2018, doi:10.1038/sdata.2018.161"
CLASSES = ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")
TRUTHS = {
    "train": "ISIC2018_Task3_Training_GroundTruth.csv",
    "validation": "ISIC2018_Task3_Validation_GroundTruth.csv",
    "test": "ISIC2018_Task3_Test_GroundTruth.csv",
}
GROUPINGS = "ISIC2018_Task3_Training_LesionGroupings.csv"


def read(root: Path) -> Listing:
    """List every row of the ground truth tables that are there.

    Raises:
        DataError: none of them, no lesion groupings beside the training table, a column missing, a row
            without exactly one class, a training picture without a lesion.
    """
    folder = scan_folder(root)
    present = {split: name for split, name in TRUTHS.items() if name in folder.tables}
    if not present:
        folder.table(tuple(TRUTHS.values()), "ISIC 2018 task 3")
    collector = RecordCollector()
    for split, name in present.items():
        groups: Mapping[str, Row] = {}
        if split == "train":
            table = folder.table((GROUPINGS,), "ISIC 2018 task 3")
            groups = index_rows(table, "image", ("lesion_id",), ("diagnosis_confirm_type",))
        truth = folder.tables[name]
        collector.add_rows(
            truth,
            read_rows(truth, ("image", *CLASSES)),
            lambda row, split=split, groups=groups: _record(row, split, groups, folder, collector),  # type: ignore[misc]
        )
    return collector.to_listing(f"ISIC 2018 task 3: {ATTRIBUTION}; {LICENSE}", folder.duplicate_names)


def _record(
    row: Row, split: str, groups: Mapping[str, Row], folder: DataFolder, collector: RecordCollector
) -> RawRecord | None:
    image = row["image"]
    code = one_hot_class(row, CLASSES)
    if image not in folder.pictures:
        collector.missing.append(image)
        return None
    group = groups.get(image)
    if split == "train" and (group is None or not group["lesion_id"]):
        raise DataError(f"its image has no lesion_id in {GROUPINGS}.")
    return RawRecord(
        image_id=image,
        path=folder.pictures[image],
        lesion_id=group["lesion_id"] if group else collector.lesion_id_or_placeholder("", image),
        diagnosis=code,
        diagnosis_confirm_type=(
            map_term(group["diagnosis_confirm_type"], CONFIRM_TYPES, "diagnosis_confirm_type")
            if group
            else ""
        ),
        needs_in_person=label_for("isic_2018", code).needs_in_person,
        source="isic_2018",
        image_type="dermoscopic",
        copyright_license=LICENSE,
        attribution=ATTRIBUTION,
        official_split=split,
    )
