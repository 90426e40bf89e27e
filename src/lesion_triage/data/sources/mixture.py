"""Several datasets as one: no identifier collides, no picture is repeated. Imports config, records, labels.

The rules and their reasons are in docs/adr/0030-one-picture-one-lesion-across-datasets.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from lesion_triage.config import Part
from lesion_triage.data import consistency
from lesion_triage.data.labels import LABELS
from lesion_triage.data.records import (
    HISTOPATHOLOGY,
    RAW_COLUMNS,
    Listing,
    RawRecord,
    has_placeholder_lesion,
)

ISIC_ARCHIVE_SOURCES = frozenset(
    {"ham10000", "isic_2018", "isic_2019", "isic_2020", "isic_2024", "bcn20000", "milk10k"}
)
"""Datasets whose identifiers come from the ISIC archive."""

_ISIC_ARCHIVE_ID = re.compile(r"(image:)?(ISIC|HAM|BCN|MSK\d*|IL|IP)_\w+")
_OFFICIAL = ("", "train", "validation", "test")

SAME_PICTURE = "same_picture_in_another_dataset"
LABELS_DIFFER = "datasets disagree on needs_in_person of the same picture, True was taken"
LESIONS_JOINED = "two datasets name the lesion of the same picture differently, it counts as one"


def merge_listings(parts: Iterable[tuple[Part, Listing]]) -> Listing:
    """Join several listings.

    A name is prefixed with the part's name, unless it is the ISIC archive's own: there the same id means the
    same picture, lesion or patient in every dataset. If a picture is in two parts, the more informative
    record is kept: one with a known label first, then one confirmed by pathology, then one with a known
    patient, a known lesion, more cells; then that of the part that the configuration names first. A label of
    True is kept whichever record it was in, and so is the latest official split.

    Raises:
        ManifestError: a picture occurs twice within one part.
    """
    records: list[RawRecord] = []
    missing: list[str] = []
    dropped: dict[str, list[str]] = {}
    findings: dict[str, list[str]] = {}
    refused: dict[str, list[RawRecord]] = {}
    citation: list[str] = []
    for part, listing in parts:
        consistency.refuse_ambiguous(listing.records)
        records.extend(_qualified(record, part) for record in listing.records)
        missing.extend(_qualified_id(name, part) for name in listing.missing)
        for into, found in ((dropped, listing.dropped), (findings, listing.findings)):
            for reason, names in found.items():
                into.setdefault(reason, []).extend(_qualified_id(name, part) for name in names)
        for reason, left_out in listing.refused.items():
            refused.setdefault(reason, []).extend(_qualified(record, part) for record in left_out)
        citation.extend(line for line in listing.citation if line not in citation)
    kept, merge_findings = _deduplicate(records)
    if copies := merge_findings.pop(SAME_PICTURE, ()):
        dropped[SAME_PICTURE] = [*copies]
    # A picture that one dataset lacks but another has is not missing.
    kept_ids = {record.image_id for record in kept}
    return Listing(
        records=tuple(kept),
        citation=tuple(citation),
        missing=tuple(name for name in dict.fromkeys(missing) if name not in kept_ids),
        dropped={reason: tuple(names) for reason, names in dropped.items()},
        refused={reason: tuple(left_out) for reason, left_out in refused.items()},
        findings={remark: tuple(sorted(names)) for remark, names in {**findings, **merge_findings}.items()},
    )


def _qualified_id(name: str, part: Part) -> str:
    if part.source in ISIC_ARCHIVE_SOURCES and _ISIC_ARCHIVE_ID.fullmatch(name):
        return name
    return f"{part.label}:{name}"


def _qualified(record: RawRecord, part: Part) -> RawRecord:
    label = LABELS.get(part.source, {}).get(record.diagnosis)
    return replace(
        record,
        image_id=_qualified_id(record.image_id, part),
        path=f"{part.label}/{record.path}",
        lesion_id=_qualified_id(record.lesion_id, part),
        patient_id=record.patient_id and _qualified_id(record.patient_id, part),
        # Two datasets' codes for one kind of lesion would be two classes; the table's own word is one.
        diagnosis=label.decision if label else record.diagnosis,
        source=part.label if record.source == part.source else record.source,
    )


def _deduplicate(records: Sequence[RawRecord]) -> tuple[list[RawRecord], dict[str, list[str]]]:
    """Each picture once, with lesions and patients that belong together under one name."""
    by_picture: dict[str, list[RawRecord]] = {}
    for record in records:
        by_picture.setdefault(record.image_id, []).append(record)
    merge_findings: dict[str, list[str]] = {}
    lesions: dict[str, str] = {}
    patients: dict[str, str] = {}
    kept: list[RawRecord] = []
    for image_id, copies in by_picture.items():
        if len(copies) > 1:
            merge_findings.setdefault(SAME_PICTURE, []).extend([image_id] * (len(copies) - 1))
            known = {copy.needs_in_person for copy in copies} - {None}
            if len(known) > 1:
                merge_findings.setdefault(LABELS_DIFFER, []).append(image_id)
            if _unite(lesions, [copy.lesion_id for copy in copies if not has_placeholder_lesion(copy)]):
                merge_findings.setdefault(LESIONS_JOINED, []).append(image_id)
            _unite(patients, [copy.patient_id for copy in copies if copy.patient_id])
        kept.append(_merge_copies(copies))
    return _with_united_ids(kept, lesions, patients), merge_findings


def _merge_copies(copies: Sequence[RawRecord]) -> RawRecord:
    """The most informative record, with what must not be lost of the others."""
    best = max(copies, key=_information_rank)  # the first among equals
    if len(copies) == 1:
        return best
    needs = True if any(copy.needs_in_person for copy in copies) else best.needs_in_person
    return replace(
        best,
        needs_in_person=needs,
        lesion_id=next(
            (copy.lesion_id for copy in (best, *copies) if not has_placeholder_lesion(copy)), best.lesion_id
        ),
        patient_id=next((copy.patient_id for copy in (best, *copies) if copy.patient_id), None),
        official_split=max((copy.official_split for copy in copies), key=_OFFICIAL.index),
    )


def _information_rank(record: RawRecord) -> tuple[bool, bool, bool, bool, int]:
    cells = sum(getattr(record, name) not in ("", None) for name in RAW_COLUMNS)
    return (
        record.needs_in_person is not None,
        record.diagnosis_confirm_type == HISTOPATHOLOGY,
        record.patient_id is not None,
        not has_placeholder_lesion(record),
        cells,
    )


def _unite(parent: dict[str, str], names: Sequence[str]) -> bool:
    """Unite several names; returns whether they were different."""
    first, *others = [_find_root(parent, name) for name in names] or [""]
    for other in others:
        parent[max(first, other)] = first = min(first, other)
    return len(set(names)) > 1


def _find_root(parent: Mapping[str, str], name: str) -> str:
    while parent.get(name, name) != name:
        name = parent[name]
    return name


def _with_united_ids(
    records: Sequence[RawRecord], lesions: Mapping[str, str], patients: Mapping[str, str]
) -> list[RawRecord]:
    """Replace names by those they are tied to; a lesion's patient is known if any record states it."""
    patient_of: dict[str, str] = {}
    for record in records:
        if record.patient_id:
            patient_of.setdefault(
                _find_root(lesions, record.lesion_id), _find_root(patients, record.patient_id)
            )
    settled = []
    for record in records:
        lesion = _find_root(lesions, record.lesion_id)
        patient = _find_root(patients, record.patient_id) if record.patient_id else patient_of.get(lesion)
        if (lesion, patient) != (record.lesion_id, record.patient_id):
            record = replace(record, lesion_id=lesion, patient_id=patient)  # noqa: PLW2901
        settled.append(record)
    return settled
