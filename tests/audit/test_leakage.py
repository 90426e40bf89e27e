from __future__ import annotations

from dataclasses import replace

import pytest

from lesion_triage.audit import leakage
from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Verdict
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.sources.folder import EMPTY_ROW


@pytest.fixture
def clean(made):
    return made(300)


def _share_between_splits(clean, **shared):
    """The first picture of test takes something over from the first of train; splits stay, as dealt by
    hand."""
    known, splits = clean
    train, test = splits.image_ids("train")[0], splits.image_ids("test")[0]
    records = {record.image_id: record for record in known.records}
    records[test] = replace(
        records[test], **{new: getattr(records[train], old) for new, old in shared.items()}
    )
    return Manifest(tuple(records.values()), "folder", synthetic=False), splits, (train, test)


def test_clean_splits_pass(clean):
    found = leakage.leakage(Columns.from_manifest(*clean))
    assert found.verdict is Verdict.PASS
    assert not found.local


@pytest.mark.parametrize("what", ["lesion_id", "sha256"])
def test_a_lesion_or_a_file_in_two_splits_fails_and_is_named_for_local_use_only(clean, what):
    known, splits, (train, _) = _share_between_splits(clean, **{what: what})
    found = leakage.leakage(Columns.from_manifest(known, splits))
    assert found.verdict is Verdict.FAIL
    value = next(getattr(record, what) for record in known.records if record.image_id == train)
    assert any(value in name for name in found.local)
    assert value not in found.summary
    assert not found.subjects


def test_a_patient_in_two_splits_fails(clean):
    known, splits = clean
    ids = [splits.image_ids(name)[0] for name in ("validation", "calibration")]
    records = tuple(
        replace(record, patient_id="somebody") if record.image_id in ids else record
        for record in known.records
    )
    found = leakage.leakage(Columns.from_manifest(Manifest(records, "folder", synthetic=False), splits))
    assert found.verdict is Verdict.FAIL
    assert found.local == ("patient somebody",)


def test_a_group_of_near_duplicates_in_two_splits_fails(clean):
    known, splits = clean
    crossing = {splits.image_ids("train")[0], splits.image_ids("test")[0]}
    records = tuple(
        replace(record, duplicate_group="g7") if record.image_id in crossing else record
        for record in known.records
    )
    found = leakage.leakage(Columns.from_manifest(Manifest(records, "folder", synthetic=False), splits))
    assert found.verdict is Verdict.FAIL
    assert found.local == ("group of near-duplicates g7",)
    assert "1 groups of near-duplicates in more than one split" in found.summary


@pytest.mark.parametrize(("every", "said"), [(1, "200 of 200"), (2, "100 of 200")])
def test_no_word_of_patients_where_pictures_name_none(made, every, said):
    """HAM10000 names no patient, so nobody can say that none of them stands in two splits."""
    known, splits = made(200)
    records = tuple(
        replace(record, patient_id=None if number % every == 0 else f"p{number}")
        for number, record in enumerate(known.records)
    )
    found = leakage.leakage(Columns.from_manifest(Manifest(records, "folder", synthetic=False), splits))
    assert found.verdict is Verdict.PASS
    assert f"{said} pictures name no patient" in found.summary
    assert found.summary.startswith(
        "No lesion or file of 200" if every == 1 else "No patient, lesion or file of 200"
    )


def test_pictures_outside_every_split_cannot_leak(clean):
    known, splits, (_, test) = _share_between_splits(clean, lesion_id="lesion_id")
    outside = replace(splits, assignment={k: v for k, v in splits.assignment.items() if k != test})
    assert leakage.leakage(Columns.from_manifest(known, outside)).verdict is Verdict.PASS


def _with_copies(clean, pairs, **changes):
    known, splits = clean
    records = list(known.records)
    for number in range(pairs):
        records[2 * number + 1] = replace(
            records[2 * number + 1], sha256=records[2 * number].sha256, **changes
        )
    return Columns.from_manifest(Manifest(tuple(records), "folder", synthetic=False), splits)


def test_a_file_under_two_lesions_warns(clean):
    found = leakage.duplicate_files(_with_copies(clean, 1))
    assert found.verdict is Verdict.WARN
    assert found.local == ("image-000000 = image-000001",)


def test_a_file_twice_within_a_lesion_is_counted_and_passes(clean):
    lesion = clean[0].records[0].lesion_id
    found = leakage.duplicate_files(_with_copies(clean, 1, lesion_id=lesion))
    assert found.verdict is Verdict.PASS
    assert found.measured[0].value == 1
    assert len(found.local) == 1


@pytest.mark.parametrize(("pairs", "verdict"), [(0, Verdict.PASS), (20, Verdict.FAIL)])
def test_the_same_file_with_two_labels_fails_where_there_are_many(clean, pairs, verdict):
    known, splits = clean
    records = list(known.records)
    for number in range(pairs):
        first, second = records[2 * number], records[2 * number + 1]
        records[2 * number + 1] = replace(
            second, sha256=first.sha256, needs_in_person=not first.needs_in_person
        )
    found = leakage.contradictory_labels(
        Columns.from_manifest(Manifest(tuple(records), "folder", synthetic=False), splits)
    )
    assert found.verdict is verdict
    assert len(found.local) == 2 * pairs


def test_copies_that_only_look_alike_and_have_two_labels_warn_and_are_named(clean):
    """As one photograph of PAD-UFES-20, that stands under a naevus and under a carcinoma."""
    known, splits = clean
    records = list(known.records)
    for number in range(20):
        first, second = records[2 * number], records[2 * number + 1]
        records[2 * number] = replace(first, duplicate_group=first.image_id)
        records[2 * number + 1] = replace(
            second, duplicate_group=first.image_id, needs_in_person=not first.needs_in_person
        )
    found = leakage.contradictory_labels(
        Columns.from_manifest(Manifest(tuple(records), "folder", synthetic=False), splits)
    )
    assert found.verdict is Verdict.WARN
    assert len(found.local) == 40
    assert found.summary == "40 pictures have a copy with another label, 0 of them in the same file."


def test_an_empty_row_of_the_table_is_no_lost_picture(clean):
    empty = replace(clean[0], dropped={EMPTY_ROW: tuple(f"line {n}" for n in range(300))})
    found = leakage.dropped_pictures(empty)
    assert (found.verdict, found.summary) == (
        Verdict.PASS,
        "0 pictures of the table could not be used.",
    )


def test_dropped_and_unlabelled_pictures_are_counted(clean):
    known, splits = clean
    lossy = replace(known, dropped={"image_missing": tuple(f"x{n}" for n in range(30))})
    assert leakage.dropped_pictures(lossy).verdict is Verdict.WARN
    assert leakage.dropped_pictures(known).verdict is Verdict.PASS
    unlabelled = tuple(
        replace(record, needs_in_person=None) if number % 5 == 0 else record
        for number, record in enumerate(known.records)
    )
    columns = Columns.from_manifest(Manifest(unlabelled, "folder", synthetic=False), splits)
    assert leakage.unknown_labels(columns).verdict is Verdict.WARN
