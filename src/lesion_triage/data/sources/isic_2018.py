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
from lesion_triage.data.sources.tables import Collected, Folder, Row, index, one_of, rows, walk, word
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
    folder = walk(root)
    present = {split: name for split, name in TRUTHS.items() if name in folder.tables}
    if not present:
        folder.table(tuple(TRUTHS.values()), "ISIC 2018 task 3")
    collected = Collected()
    for split, name in present.items():
        groups: Mapping[str, Row] = {}
        if split == "train":
            table = folder.table((GROUPINGS,), "ISIC 2018 task 3")
            groups = index(table, "image", ("lesion_id",), ("diagnosis_confirm_type",))
        truth = folder.tables[name]
        collected.take(
            truth,
            rows(truth, ("image", *CLASSES)),
            lambda row, split=split, groups=groups: _record(row, split, groups, folder, collected),  # type: ignore[misc]
        )
    return collected.listing(f"ISIC 2018 task 3: {ATTRIBUTION}; {LICENSE}", folder.twice)


def _record(
    row: Row, split: str, groups: Mapping[str, Row], folder: Folder, collected: Collected
) -> RawRecord | None:
    image = row["image"]
    code = one_of(row, CLASSES)
    if image not in folder.pictures:
        collected.missing.append(image)
        return None
    group = groups.get(image)
    if split == "train" and (group is None or not group["lesion_id"]):
        raise DataError(f"image '{image}' has no lesion_id in {GROUPINGS}.")
    return RawRecord(
        image_id=image,
        path=folder.pictures[image],
        lesion_id=group["lesion_id"] if group else collected.lesion("", image),
        diagnosis=code,
        diagnosis_confirm_type=(
            word(group["diagnosis_confirm_type"], CONFIRM_TYPES, "diagnosis_confirm_type") if group else ""
        ),
        needs_in_person=label_for("isic_2018", code).needs_in_person,
        source="isic_2018",
        image_type="dermoscopic",
        copyright_license=LICENSE,
        attribution=ATTRIBUTION,
        official_split=split,
    )
