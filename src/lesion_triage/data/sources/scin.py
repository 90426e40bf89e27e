"""Reader for SCIN, whose labels are opinions on photographs. Imports records, labels, tables and the errors.

Ward et al., Creating an empirical dermatology dataset through crowdsourcing with web search
advertisements, JAMA Network Open 7, e2446615 (2024), arXiv:2402.18545; SCIN Data Use License. Official
page and columns: https://github.com/google-research-datasets/scin (``dataset_schema.md``).

The layout is that of the bucket ``dx-scin-public-data``: ``dataset/scin_cases.csv``,
``dataset/scin_labels.csv`` and ``dataset/images/``, to which ``image_1_path`` to ``image_3_path`` point.

Traps: the pictures were sent in by people who searched the web. No one examined or biopsied them:
``weighted_skin_condition_label`` is a differential by up to three dermatologists who saw the same
photographs. So every label is unknown here, and the pictures enter no split. They are useful where no truth
is needed, such as looking for unusual pictures. The first condition of the differential is kept as
``diagnosis``. A case is one person, and counts as one lesion. Ages are ranges, so ``age_approx`` stays
unknown. 42 files are copies of 15.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import Listing, RawRecord, TableRow
from lesion_triage.data.sources.tables import (
    JPEG,
    RecordCollector,
    Row,
    index_rows,
    map_term,
    read_rows,
    scan_folder,
)
from lesion_triage.errors import DataError

LICENSE = "SCIN Data Use License"
ATTRIBUTION = "SCIN, Ward et al., JAMA Network Open 2024, arXiv:2402.18545"
CASES, LABELS = "scin_cases.csv", "scin_labels.csv"
IMAGES = ("image_1_path", "image_2_path", "image_3_path")
SEXES: Mapping[str, str] = MappingProxyType(
    {"FEMALE": "female", "MALE": "male", "OTHER_OR_UNSPECIFIED": "", "OTHER": "", "PREFER_NOT_TO_SAY": ""}
)
SKIN_TYPES: Mapping[str, str] = MappingProxyType(
    {
        **dict(zip((f"FST{n}" for n in range(1, 7)), ("I", "II", "III", "IV", "V", "VI"), strict=True)),
        "NONE_SELECTED": "",
        "NONE_IDENTIFIED": "",
    }
)


def read(root: Path) -> Listing:
    """List every picture of every case, without a label.

    Raises:
        DataError: a table or a column is missing, a differential that cannot be read, or an unknown word.
    """
    folder = scan_folder(root, (".png", *JPEG))
    labels = index_rows(folder.table((LABELS,), "SCIN"), "case_id", ("weighted_skin_condition_label",))
    cases = folder.table((CASES,), "SCIN")
    collector = RecordCollector()
    for number, row in read_rows(
        cases, ("case_id", IMAGES[0]), (*IMAGES[1:], "sex_at_birth", "fitzpatrick_skin_type")
    ):
        try:
            if row["case_id"] not in labels:
                raise DataError(f"its case_id has no row in {LABELS}.")
            condition = _top_condition(labels[row["case_id"]]["weighted_skin_condition_label"])
            for column in IMAGES:
                if row[column]:
                    _add_picture(row, column, condition, folder.pictures, collector, TableRow(cases, number))
        except DataError as error:
            raise DataError(f"{cases}, line {number}: {error}") from None
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}")


def _add_picture(
    row: Row,
    column: str,
    condition: str,
    found: Mapping[str, str],
    collector: RecordCollector,
    table_row: TableRow,
) -> None:
    image = PurePosixPath(row[column]).stem
    if image not in found:
        collector.missing.append(image)
        return
    collector.records.append(
        RawRecord(
            image_id=image,
            path=found[image],
            lesion_id=f"case:{row['case_id']}",
            patient_id=row["case_id"],
            diagnosis=condition,
            needs_in_person=label_for("scin", "differential" if condition else "ungradable").needs_in_person,
            source="scin",
            sex=map_term(row["sex_at_birth"], SEXES, "sex_at_birth"),
            image_type="clinical: close-up",
            fitzpatrick_skin_type=map_term(row["fitzpatrick_skin_type"], SKIN_TYPES, "fitzpatrick_skin_type"),
            copyright_license=LICENSE,
            attribution=ATTRIBUTION,
            row=table_row,
        )
    )


def _top_condition(cell: str) -> str:
    """The condition with the greatest weight, the first among equals; empty if there is none."""
    if not cell:
        return ""
    try:
        weights = ast.literal_eval(cell)
        ranked = sorted(weights.items(), key=lambda pair: -float(pair[1]))
    except (ValueError, SyntaxError, AttributeError, TypeError, MemoryError, RecursionError):
        raise DataError("weighted_skin_condition_label cannot be read as condition: weight.") from None
    return str(ranked[0][0]) if ranked else ""
