"""What must hold among the records of one dataset, and what is resolved or reported where it does not.

Imports records, grouping, duplicates and the exception tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from lesion_triage.data.duplicates import Duplicates, duplicate_groups
from lesion_triage.data.grouping import GroupKey, connected_groups
from lesion_triage.data.records import RawRecord, Record, place_of
from lesion_triage.errors import ManifestError


def refuse_ambiguous(records: Sequence[RawRecord]) -> None:
    """Raise if it is ambiguous which picture, lesion or case a row refers to.

    Raises:
        ManifestError: a duplicate image id; a lesion with two patients, or with and without one; a patient
            and a lesion without a patient that share a name.
    """
    # Errors name rows, because an id may identify a person.
    repeated = [name for name, count in Counter(record.image_id for record in records).items() if count > 1]
    if repeated:
        one, other, *_ = (record for record in records if record.image_id == repeated[0])
        raise ManifestError(
            f"{place_of(other)}: has the same image as {place_of(one)} ({len(repeated)} images appear more "
            "than once); keep one row for each picture."
        )
    owner: dict[str, RawRecord] = {}
    for record in records:
        first = owner.setdefault(record.lesion_id, record)
        if first.patient_id == record.patient_id:
            continue
        if first.patient_id and record.patient_id:
            raise ManifestError(
                f"{place_of(record)}: has the lesion_id of {place_of(first)}, but another patient_id; make "
                "lesion ids unique, for instance patient-lesion."
            )
        raise ManifestError(
            f"{place_of(record)}: has the lesion_id of {place_of(first)}, but only one of the two names a "
            "patient; name the patient in every row of the lesion, or make lesion ids unique."
        )
    patients = {record.patient_id: record for record in owner.values() if record.patient_id}
    for lesion, record in owner.items():
        if not record.patient_id and lesion in patients:
            raise ManifestError(
                f"{place_of(record)}: names no patient, and its lesion_id is the patient_id of "
                f"{place_of(patients[lesion])}; rename one of them."
            )


def reconcile_labels(
    records: Sequence[Record], found: Duplicates, positive_lesions: Collection[str] = ()
) -> tuple[list[Record], dict[str, tuple[str, ...]]]:
    """Label every picture of a lesion True if any of them is True: a case goes up, never down.

    The same applies to lesions that share a file, or the same pixels. Pictures that only look alike keep
    their labels: a similarity measurement never changes a label.

    Args:
        records: whose labels are settled.
        found: the copies among them.
        positive_lesions: lesions that need an in-person visit by a picture that may not be among the records.

    Returns:
        The records in the order given. As findings: lesions whose pictures disagreed, lesions raised by a
        copy under another lesion, and pictures whose label changed.
    """
    exact = [pair for pair in found.pairs if pair.kind != "near"]
    same = {
        records[place].image_id: str(number)
        for number, group in enumerate(duplicate_groups(exact, len(records)))
        for place in group
    }

    def keys_of(record: Record) -> Iterator[GroupKey]:
        yield "lesion", record.lesion_id
        if record.image_id in same:
            yield "picture", same[record.image_id]

    own: dict[str, set[bool | None]] = {}
    for record in records:
        own.setdefault(record.lesion_id, set()).add(record.needs_in_person)
    for lesion in own.keys() & positive_lesions:
        own[lesion].add(True)
    raised: set[str] = set()
    for group in connected_groups(records, keys_of):
        lesions = {record.lesion_id for record in group}
        if any(True in own[lesion] for lesion in lesions):
            raised.update(lesion for lesion in lesions if own[lesion] != {True})
    if not raised:
        return list(records), {}
    settled = [
        replace(record, needs_in_person=True) if record.lesion_id in raised else record for record in records
    ]
    disagreed = {lesion for lesion in raised if True in own[lesion]}
    changed = {
        record.image_id
        for record in records
        if record.lesion_id in raised and record.needs_in_person is not True
    }
    findings = {
        "pictures of the lesion disagree on needs_in_person, True was taken": disagreed,
        "a copy of the lesion's picture says in person under another lesion, True was taken": raised
        - disagreed,
        "the photograph's own needs_in_person was not True and became so": changed,
    }
    return settled, {remark: tuple(sorted(names)) for remark, names in findings.items() if names}


def join_duplicates(
    records: Sequence[Record], found: Duplicates
) -> tuple[list[Record], dict[str, tuple[str, ...]]]:
    """Set ``duplicate_group``, and ``shared_unit`` where lesions or patients share a picture.

    Returns:
        The records in the order given, and what is worth reviewing, as findings.
    """
    joined = list(records)
    copies: list[list[int]] = duplicate_groups(found.pairs, len(records))
    for group in copies:
        name = records[group[0]].image_id
        for place in group:
            joined[place] = replace(records[place], duplicate_group=name)
    units: dict[str, str] = {}
    for component in connected_groups(joined) if copies else ():
        names = {record.unit_id for record in component}
        if len(names) > 1:
            units.update(dict.fromkeys((record.image_id for record in component), min(names)))
    if units:
        joined = [
            replace(record, shared_unit=units[record.image_id]) if record.image_id in units else record
            for record in joined
        ]
    beyond_bytes = {place for pair in found.pairs if pair.kind != "file" for place in (pair.one, pair.other)}
    alike = [group for group in copies if beyond_bytes.intersection(group)]
    remarks = {
        "looks like a copy of another picture": alike,
        "copies of one picture stand under two lesions, which count as one unit": [
            group for group in copies if len({records[place].lesion_id for place in group}) > 1
        ],
        "copies of one picture stand under two patients, who count as one unit": [
            group for group in copies if len({records[place].patient_id for place in group} - {None}) > 1
        ],
        "copies of one picture disagree on needs_in_person, labels were left": [
            group for group in copies if len({records[place].needs_in_person for place in group}) > 1
        ],
        "too flat to be compared with other pictures": [np.flatnonzero(found.low_contrast).tolist()],
        "so common a look that it was not compared with every other": [list(found.not_fully_compared)],
    }
    return joined, {
        remark: tuple(sorted(records[place].image_id for group in concerned for place in group))
        for remark, concerned in remarks.items()
        if any(concerned)
    }


def identical_files(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """Findings on byte-identical files, and on whether their lesions and labels differ, too."""
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
