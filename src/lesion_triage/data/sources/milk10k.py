"""Reader for the training part of MILK10k. Imports records, labels, tables and the exception tree.

MILK study team, MILK10k, ISIC archive 2025, doi:10.34970/648456; Tschandl et al., MILK10k: a hierarchical
multimodal imaging-learning toolkit, Journal of Investigative Dermatology 2025; CC BY-NC 4.0. Official
page: https://challenge.isic-archive.com/landing/milk10k (the eleven classes, two pictures for each
lesion).

The layout is that of the challenge's archives: ``MILK10k_Training_Input/IL_*/ISIC_*.jpg``,
``MILK10k_Training_GroundTruth.csv`` (``lesion_id`` and one column for each class),
``MILK10k_Training_Metadata.csv`` (``lesion_id``, ``image_type``, ``isic_id``, ``attribution``,
``copyright_license``, ``age_approx``, ``sex``, ``skin_tone_class``, ``site`` and more) and, if it is
there, ``MILK10k_Training_Supplement.csv`` (``isic_id``, ``diagnosis_full``, ``diagnosis_confirm_type``).

Traps: each lesion has one clinical and one dermoscopic picture, which form one case. Nearly all lesions
were excised because they looked suspicious, so the negatives are hard ones. ``skin_tone_class`` runs from
0, very dark, to 5, very light: it is not a Fitzpatrick type and is not used as one. The benchmark's own
test labels are secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lesion_triage.data.labels import label_for
from lesion_triage.data.records import Listing, RawRecord, known_or_empty, parse_age
from lesion_triage.data.sources.isic_terms import CONFIRM_TYPES
from lesion_triage.data.sources.tables import (
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
ATTRIBUTION = "MILK10k, MILK study team, ISIC archive 2025, doi:10.34970/648456"
CLASSES = ("AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC")
TRUTH = "MILK10k_Training_GroundTruth.csv"
METADATA = "MILK10k_Training_Metadata.csv"
SUPPLEMENT = "MILK10k_Training_Supplement.csv"
NO_PICTURE = "lesion_without_a_picture_in_the_metadata"

_COLUMNS = ("lesion_id", "image_type", "isic_id", "age_approx", "sex", "site")


def read(root: Path) -> Listing:
    """List every picture of the metadata table with the class of its lesion.

    Raises:
        DataError: a table or a column is missing, a lesion without exactly one class or with two rows of
            them, an age that is not a number.
    """
    folder = scan_folder(root)
    codes = _codes(folder.table((TRUTH,), "MILK10k"))
    confirmed: Mapping[str, Row] = {}
    if SUPPLEMENT in folder.tables:
        confirmed = index_rows(folder.tables[SUPPLEMENT], "isic_id", ("diagnosis_confirm_type",))
    table = folder.table((METADATA,), "MILK10k")
    collector = RecordCollector()
    seen: set[str] = set()

    def record(row: Row) -> RawRecord | None:
        image, lesion = row["isic_id"], row["lesion_id"]
        seen.add(lesion)
        if lesion not in codes:
            raise DataError(f"its lesion_id has no row in {TRUTH}.")
        if image not in folder.pictures:
            collector.missing.append(image)
            return None
        confirm = confirmed[image]["diagnosis_confirm_type"] if image in confirmed else ""
        return RawRecord(
            image_id=image,
            path=folder.pictures[image],
            lesion_id=lesion,
            diagnosis=codes[lesion],
            diagnosis_confirm_type=map_term(confirm, CONFIRM_TYPES, "diagnosis_confirm_type"),
            needs_in_person=label_for("milk10k", codes[lesion]).needs_in_person,
            source="milk10k",
            sex=known_or_empty(row["sex"]),
            age_approx=parse_age(known_or_empty(row["age_approx"]), "age_approx"),
            anatom_site_general=known_or_empty(row["site"]),
            image_type=row["image_type"],
            copyright_license=row["copyright_license"] or LICENSE,
            attribution=row["attribution"] or ATTRIBUTION,
        )

    collector.add_rows(table, read_rows(table, _COLUMNS, ("attribution", "copyright_license")), record)
    for lesion in sorted(codes.keys() - seen):
        collector.add_dropped(NO_PICTURE, lesion)
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}", folder.duplicate_names)


def _codes(table: Path) -> dict[str, str]:
    """Class of each lesion."""
    codes: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, row in read_rows(table, ("lesion_id", *CLASSES)):
        try:
            if (first := lines.setdefault(row["lesion_id"], number)) != number:
                raise DataError(f"lesion_id is that of line {first}; keep one row.")
            codes[row["lesion_id"]] = one_hot_class(row, CLASSES)
        except DataError as error:
            raise DataError(f"{table}, line {number}: {error}") from None
    return codes
