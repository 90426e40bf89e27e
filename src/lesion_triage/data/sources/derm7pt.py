"""Reader for Derm7pt in its official layout. Imports records, labels, tables and the exception tree.

Kawahara, Daneshvar, Argenziano, Hamarneh, Seven-Point Checklist and Skin Lesion Classification using
Multitask Multimodal Neural Nets, IEEE J Biomed Health Inform 23, 538-546 (2019),
doi:10.1109/JBHI.2018.2824327. Licence: for research, by request at the official page,
http://derm.cs.sfu.ca. Columns and codes: https://github.com/jeremykawahara/derm7pt, by the same authors.

The layout is ``release_v0/``: ``meta/meta.csv`` with ``case_num``, ``diagnosis``, ``location``, ``sex``,
``management``, ``clinic``, ``derm`` and more; ``images/``, in which ``clinic`` and ``derm`` are paths; and
``meta/{train,valid,test}_indexes.csv`` (``indexes``: rows of the table, from 0).

Traps: each row is one lesion with a clinical and a dermoscopic picture, which form one case. Nine rows
have no clinical one and name the dermoscopic one in both columns: it is taken once. ``management``
(excision, follow-up, none) is the authors' advice based on its look; it is not the truth and is not read.
Names differ in case between table and disk. There are no patient ids, and the table does not say which labels
were confirmed by pathology.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import Listing, RawRecord, known_or_empty
from lesion_triage.data.sources.tables import JPEG, DataFolder, RecordCollector, Row, read_rows, scan_folder
from lesion_triage.errors import DataError

LICENSE = "research use, terms at derm.cs.sfu.ca"
ATTRIBUTION = "Derm7pt, Kawahara et al., IEEE JBHI 2019, doi:10.1109/JBHI.2018.2824327"
TABLE = "meta.csv"
NO_CLINICAL = "the table names the dermoscopic picture in place of the clinical one; it was taken once"
INDEXES = {"train": "train_indexes.csv", "validation": "valid_indexes.csv", "test": "test_indexes.csv"}
KINDS = {"clinic": "clinical: close-up", "derm": "dermoscopic"}


def read(root: Path) -> Listing:
    """List the pictures of every row.

    Raises:
        DataError: no table, a column missing, a diagnosis that is not in the label table, an index that does
            not refer to a row.
    """
    folder = scan_folder(root, (*JPEG, ".png"))
    table = folder.table((TABLE,), "Derm7pt")
    by_path = {path.lower(): path for path in folder.pictures.values()}
    splits = _splits(folder)
    collector = RecordCollector()
    columns = ("case_num", "diagnosis", "location", "sex", *KINDS)

    def record(row: Row, column: str, official_split: str) -> RawRecord | None:
        needs = label_for("derm7pt", row["diagnosis"]).needs_in_person
        path = _find(row[column], by_path)
        if path is None:
            collector.missing.append(row[column])
            return None
        if row["clinic"] == row["derm"]:
            collector.add_finding(NO_CLINICAL, row[column])
        return RawRecord(
            image_id=row[column],
            path=path,
            lesion_id=f"case-{row['case_num']}",
            diagnosis=row["diagnosis"],
            needs_in_person=needs,
            source="derm7pt",
            sex=known_or_empty(row["sex"]),
            anatom_site_general=known_or_empty(row["location"]),
            image_type=KINDS[column],
            copyright_license=LICENSE,
            attribution=ATTRIBUTION,
            official_split=official_split,
        )

    numbered = list(read_rows(table, columns))
    if (last := max(splits, default=-1)) >= len(numbered):
        raise DataError(
            f"{table}: {len(numbered)} rows, but row {last}, from 0, is in the {splits[last]} split; take "
            "table and indexes of one release."
        )
    for place, (number, row) in enumerate(numbered):
        kinds = ("derm",) if row["clinic"] == row["derm"] else KINDS
        for column in filter(row.get, kinds):
            make = partial(record, column=column, official_split=splits.get(place, ""))
            collector.add_rows(table, [(number, row)], make)
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}")


def _find(name: str, by_path: dict[str, str]) -> str | None:
    """The picture that the table means, ignoring case and any folder above."""
    wanted = name.lower()
    for path in (f"images/{wanted}", f"release_v0/images/{wanted}"):
        if path in by_path:
            return by_path[path]
    return next((path for lower, path in by_path.items() if lower.endswith(f"/{wanted}")), None)


def _splits(folder: DataFolder) -> dict[int, str]:
    """Official split of each row that has one, by the row's index."""
    splits: dict[int, str] = {}
    for split, name in INDEXES.items():
        if name not in folder.tables:
            continue
        for number, row in read_rows(folder.tables[name], ("indexes",)):
            if not row["indexes"].isdigit():
                raise DataError(f"{folder.tables[name]}, line {number}: indexes is not a row number.")
            splits[int(row["indexes"])] = split
    return splits
