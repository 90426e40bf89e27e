"""Reader for PAD-UFES-20 in its official layout. Imports records, labels, tables, the history and the errors.

Pacheco et al., PAD-UFES-20: a skin lesion dataset composed of patient data and clinical images collected
from smartphones, Data in Brief 32, 106221 (2020), doi:10.1016/j.dib.2020.106221; CC BY 4.0. Official page:
Mendeley Data, doi:10.17632/zr7vgbcyr2.1.

The layout is ``metadata.csv`` and PNG files in any sub-folder (``imgs_part_1`` to ``3``), named after
``img_id``; a copy with JPEG files of the same names is read too.

Traps: ``fitspatrick`` (spelt so), ``gender``, ``diameter_1``, ``diameter_2``, ``smoke`` and others are
missing only for lesions without biopsy, so a model that learns from missing values learns the label. All
malignant rows were biopsied, but only some of the actinic keratoses, naevi and seborrhoeic keratoses. Skin
types V and VI are nearly absent. Lesion ids are unique only together with the patient's. The answers on
itching, growth, pain, change and bleeding state no duration, unlike the history's questions, so they count
as a yes too easily; nobody knows whether the dataset's questions were worded like ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lesion_triage.bundle.history import History, history_to_text
from lesion_triage.data.labels import label_for
from lesion_triage.data.records import HISTOPATHOLOGY, Listing, RawRecord, known_or_empty, parse_age
from lesion_triage.data.sources.tables import JPEG, RecordCollector, Row, map_term, read_rows, scan_folder
from lesion_triage.errors import DataError

LICENSE = "CC BY 4.0"
ATTRIBUTION = "PAD-UFES-20, Pacheco et al., Data in Brief 2020, doi:10.1016/j.dib.2020.106221"
TABLE = "metadata.csv"

SKIN_TYPES: Mapping[str, str] = MappingProxyType(
    dict(zip(map(str, range(1, 7)), ("I", "II", "III", "IV", "V", "VI"), strict=True))
)
SEXES: Mapping[str, str] = MappingProxyType({"FEMALE": "female", "MALE": "male"})
CONFIRMED: Mapping[str, str] = MappingProxyType({"True": HISTOPATHOLOGY, "False": "consensus"})
"""``biopsed`` -> our word; without biopsy, a group of dermatologists decided."""

ANSWERS: Mapping[str, bool | None] = MappingProxyType({"True": True, "False": False, "UNK": None})
QUESTIONS: Mapping[str, str] = MappingProxyType(
    {
        "itch": "itching",
        "grew": "growing",
        "hurt": "painful",
        "changed": "changing",
        "bleed": "bleeding",
        "skin_cancer_history": "skin_tumour_treated_before",
    }
)
"""Column -> question of ``bundle.history``."""
_DIAMETERS = ("diameter_1", "diameter_2")

_COLUMNS = (
    "patient_id",
    "lesion_id",
    "age",
    "gender",
    "fitspatrick",
    "region",
    "diagnostic",
    "img_id",
    "biopsed",
)
_OPTIONAL = (*QUESTIONS, *_DIAMETERS)


def read(root: Path) -> Listing:
    """List every row of the metadata table.

    Raises:
        DataError: no table, a column missing, an unknown code or word, no patient or lesion, an age that is
            not a number.
    """
    folder = scan_folder(root, (".png", *JPEG))
    table = folder.table((TABLE,), "PAD-UFES-20")
    collector = RecordCollector()

    def record(row: Row) -> RawRecord | None:
        image = row["img_id"].removesuffix(".png")
        needs = label_for("pad_ufes_20", row["diagnostic"]).needs_in_person
        if not row["patient_id"] or not row["lesion_id"]:
            raise DataError("patient_id or lesion_id is empty.")
        if image not in folder.pictures:
            collector.missing.append(image)
            return None
        return RawRecord(
            image_id=image,
            path=folder.pictures[image],
            lesion_id=f"{row['patient_id']}-{row['lesion_id']}",
            patient_id=row["patient_id"],
            diagnosis=row["diagnostic"],
            diagnosis_confirm_type=map_term(row["biopsed"], CONFIRMED, "biopsed"),
            needs_in_person=needs,
            source="pad_ufes_20",
            sex=map_term(row["gender"], SEXES, "gender"),
            age_approx=parse_age(row["age"], "age"),
            anatom_site_general=known_or_empty(row["region"]).lower(),
            image_type="clinical: close-up",
            fitzpatrick_skin_type=map_term(row["fitspatrick"].removesuffix(".0"), SKIN_TYPES, "fitspatrick"),
            history=_history(row),
            copyright_license=LICENSE,
            attribution=ATTRIBUTION,
        )

    collector.add_rows(table, read_rows(table, _COLUMNS, _OPTIONAL), record)
    return collector.to_listing(f"{ATTRIBUTION}; {LICENSE}", folder.duplicate_names)


def _history(row: Row) -> str:
    answers: dict[str, object] = {}
    for column, question in QUESTIONS.items():
        cell = known_or_empty(row[column])
        if cell and cell not in ANSWERS:
            raise DataError(f"{column} '{cell}' is unknown; expected {', '.join(ANSWERS)} or nothing.")
        answers[question] = ANSWERS.get(cell)
    sizes = [cell for column in _DIAMETERS if (cell := known_or_empty(row[column]))]
    try:
        answers["diameter_mm"] = max(map(float, sizes), default=None)
        return history_to_text(History.model_validate(answers))
    except ValueError:
        raise DataError(f"{' and '.join(_DIAMETERS)} are not numbers of mm.") from None
