"""What a certificate counts on a table, and how many lesions it has to take on trust."""

from __future__ import annotations

import pytest

from lesion_triage.data.records import RawRecord, counted_by, unnamed_lesions


def records(*patients: str | None) -> list[RawRecord]:
    """Two photographs of each lesion; one lesion for each patient."""
    return [
        RawRecord(
            image_id=f"{number}-{view}",
            path=f"{number}-{view}.png",
            lesion_id=f"l{number}",
            patient_id=patient,
            needs_in_person=True,
            source="clinic",
        )
        for number, patient in enumerate(patients)
        for view in range(2)
    ]


@pytest.mark.parametrize(
    ("patients", "unit", "unnamed"),
    [
        (("a", "a", "b"), "patient", 0),
        ((None, None), "lesion", 0),
        (("a", None, None), "patient", 2),
        ((None, "", "a"), "patient", 2),
    ],
)
def test_lesions_without_a_patient_count_as_patients_only_where_others_are_named(patients, unit, unnamed):
    assert counted_by(records(*patients)) == unit
    assert unnamed_lesions(records(*patients)) == unnamed
