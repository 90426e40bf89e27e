"""What must hold between the records of one dataset, and what is settled or reported where it does not.

Imports records and the exception tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lesion_triage.data.records import RawRecord, Record
from lesion_triage.errors import ManifestError


def refuse_ambiguous(records: Sequence[RawRecord]) -> None:
    """Raise where it would be unclear which picture, lesion or case a row speaks of.

    Raises:
        ManifestError: an image id stands twice; a lesion belongs to two patients, or to one and to none;
            a patient and a lesion without a patient share a name.
    """
    repeated = [name for name, count in Counter(record.image_id for record in records).items() if count > 1]
    if repeated:
        raise ManifestError(
            f"image id '{min(repeated)}' stands more than once in the dataset's table "
            f"({len(repeated)} such ids); keep one row for each picture."
        )
    owner: dict[str, str | None] = {}
    for record in records:
        first = owner.setdefault(record.lesion_id, record.patient_id)
        if first != record.patient_id:
            raise ManifestError(
                f"lesion '{record.lesion_id}' belongs to patient '{first or 'unknown'}' and to patient "
                f"'{record.patient_id or 'unknown'}'; make lesion ids unique, for instance patient-lesion."
            )
    patients = {patient for patient in owner.values() if patient}
    shared = [lesion for lesion, patient in owner.items() if patient is None and lesion in patients]
    if shared:
        raise ManifestError(
            f"'{min(shared)}' names a patient and also a lesion without a patient; rename one of them."
        )


def settle_lesions(records: Sequence[Record]) -> tuple[list[Record], dict[str, tuple[str, ...]]]:
    """Give every picture of a lesion True if any of them has it: a case goes up, never down.

    Returns:
        The records in the order given, and the lesions whose pictures disagreed, as a finding.
    """
    labels: dict[str, set[bool | None]] = {}
    for record in records:
        labels.setdefault(record.lesion_id, set()).add(record.needs_in_person)
    raised = {lesion for lesion, found in labels.items() if True in found and len(found) > 1}
    if not raised:
        return list(records), {}
    settled = [
        replace(record, needs_in_person=True) if record.lesion_id in raised else record for record in records
    ]
    return settled, {
        "pictures of the lesion disagree on needs_in_person, True was taken": tuple(sorted(raised))
    }


def repeated_bytes(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """Findings on pictures whose files are equal byte for byte; whether lesions and labels differ, too."""
    by_hash: dict[str, list[Record]] = {}
    for record in records:
        by_hash.setdefault(record.sha256, []).append(record)
    groups = [group for group in by_hash.values() if len(group) > 1]
    across_lesions = [group for group in groups if len({record.lesion_id for record in group}) > 1]
    across_labels = [group for group in groups if len({record.needs_in_person for record in group}) > 1]
    findings = {
        "the same file stands under two image ids": groups,
        "the same file stands under two lesions": across_lesions,
        "the same file has two labels": across_labels,
    }
    return {
        remark: tuple(sorted(record.image_id for group in found for record in group))
        for remark, found in findings.items()
        if found
    }
