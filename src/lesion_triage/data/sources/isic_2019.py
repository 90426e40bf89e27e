"""Reader for ISIC 2019, its test set included. Imports records, labels, tables and the exception tree.

Tschandl et al. 2018, doi:10.1038/sdata.2018.161; Codella et al. 2017, arXiv:1710.05006; Hernandez-Perez et
al., BCN20000, Scientific Data 11, 641 (2024), doi:10.1038/s41597-024-03387-w; CC BY-NC 4.0. Official
pages: https://challenge.isic-archive.com/data/#2019 and https://challenge.isic-archive.com/landing/2019/.

The layout is that of the challenge's archives, unpacked below one folder:
``ISIC_2019_{Training,Test}_Input/ISIC_*.jpg``, ``ISIC_2019_*_GroundTruth.csv`` (``image`` and one column
for each of eight classes and ``UNK``) and ``ISIC_2019_*_Metadata.csv`` (``image``, ``age_approx``,
``anatom_site_general``, ``lesion_id``, ``sex``; the test table has no ``lesion_id``).

Traps: the training pictures are HAM10000, BCN20000 and pictures from Memorial Sloan Kettering, recognised by
the prefix of the lesion id (``HAM_``, ``BCN_``, ``MSK``). Classes differ between them, and so do the pixels
(HAM10000 centred, BCN20000 at 1024 pixels). Two thousand rows have no lesion id. A name that ends in
``_downsampled`` means the archive's picture of that id, reduced. UNK occurs in the test set only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import Listing, RawRecord, known_or_empty, parse_age
from lesion_triage.data.sources.isic_terms import DOWNSAMPLED
from lesion_triage.data.sources.tables import (
    DataFolder,
    RecordCollector,
    Row,
    index_rows,
    one_hot_class,
    read_rows,
    scan_folder,
)
from lesion_triage.errors import DataError

LICENSE = "CC BY-NC 4.0"
ATTRIBUTION = (
    "ISIC 2019: HAM10000 (c) Medical University of Vienna, doi:10.1038/sdata.2018.161; BCN20000 (c) Hospital "
    "Clinic de Barcelona, doi:10.1038/s41597-024-03387-w; MSK, arXiv:1710.05006"
)
CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
_FACTS = ("age_approx", "anatom_site_general", "sex")
PARTS = {"train": "ISIC_2019_Training", "test": "ISIC_2019_Test"}


def read(root: Path) -> Listing:
    """List every row of the ground truth tables that are there, with what the metadata add.

    Raises:
        DataError: no ground truth, no metadata beside it, a column missing, a row without exactly one
            class, an age that is not a number.
    """
    folder = scan_folder(root)
    present = {split: part for split, part in PARTS.items() if f"{part}_GroundTruth.csv" in folder.tables}
    if not present:
        folder.table([f"{part}_GroundTruth.csv" for part in PARTS.values()], "ISIC 2019")
    collector = RecordCollector()
    for split, part in present.items():
        table = folder.table((f"{part}_Metadata.csv",), "ISIC 2019")
        lesion = ("lesion_id",)
        required, optional = ((*_FACTS, *lesion), ()) if split == "train" else (_FACTS, lesion)
        facts = index_rows(table, "image", required, optional)
        truth = folder.tables[f"{part}_GroundTruth.csv"]
        collector.add_rows(
            truth,
            read_rows(truth, ("image", *CLASSES)),
            lambda row, split=split, facts=facts: _record(row, split, facts, folder, collector),  # type: ignore[misc]
        )
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}", folder.duplicate_names)


def _record(
    row: Row, split: str, facts: Mapping[str, Row], folder: DataFolder, collector: RecordCollector
) -> RawRecord | None:
    image = row["image"]
    code = one_hot_class(row, CLASSES)
    if image not in facts:
        raise DataError(f"its image has no row in {PARTS[split]}_Metadata.csv.")
    if image not in folder.pictures:
        collector.missing.append(image.removesuffix(DOWNSAMPLED))
        return None
    fact = facts[image]
    return RawRecord(
        image_id=image.removesuffix(DOWNSAMPLED),
        path=folder.pictures[image],
        lesion_id=collector.lesion_id_or_placeholder(fact["lesion_id"], image),
        diagnosis=code,
        needs_in_person=label_for("isic_2019", code).needs_in_person,
        source=_collection(fact["lesion_id"]),
        sex=known_or_empty(fact["sex"]),
        age_approx=parse_age(fact["age_approx"], "age_approx"),
        anatom_site_general=known_or_empty(fact["anatom_site_general"]),
        image_type="dermoscopic",
        copyright_license=LICENSE,
        attribution=ATTRIBUTION,
        official_split=split,
    )


def _collection(lesion_id: str) -> str:
    """The collection named by a lesion id's prefix."""
    return next(
        (f"isic_2019_{prefix.lower()}" for prefix in ("HAM", "BCN", "MSK") if lesion_id.startswith(prefix)),
        "isic_2019",
    )
