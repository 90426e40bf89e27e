"""What a certificate counts on a table, and how many lesions it has to take on trust."""

from __future__ import annotations

import pytest

from lesion_triage.config import Part
from lesion_triage.data.records import (
    Listing,
    RawRecord,
    parse_age,
    placeholder_lesion_id,
    unit_of_analysis,
    unnamed_lesions,
    unnamed_photographs,
)
from lesion_triage.data.sources import mixture
from lesion_triage.errors import DataError


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
    assert unit_of_analysis(records(*patients)) == unit
    assert unnamed_lesions(records(*patients)) == unnamed


@pytest.mark.parametrize("cell", ["4_5", "\uff14\uff15", "nan", "inf", "121", "-1", "old"])
def test_an_age_is_a_decimal_number_of_years(cell):
    assert [parse_age(written, "age") for written in ("", "45", "45.0", "4.5e1")] == [None, 45, 45, 45]
    with pytest.raises(DataError, match=r"^age is not a number of years from 0 to 120\.$"):
        parse_age(cell, "age")


@pytest.mark.parametrize("name", ["phone_image", "image", "phone"])
def test_only_photographs_that_name_no_lesion_are_counted_whatever_a_part_of_a_mixture_is_called(name):
    named = records(None, None)
    alone = RawRecord(
        image_id="x.png",
        path="x.png",
        lesion_id=placeholder_lesion_id("x.png"),
        needs_in_person=True,
        source="folder",
    )
    assert unnamed_photographs((*named, alone)) == 1
    listing = Listing(records=(*named, alone), citation=())
    assert (
        unnamed_photographs(mixture.merge_listings([(Part(source="folder", name=name), listing)]).records)
        == 1
    )
