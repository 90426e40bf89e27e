from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_triage.bundle.document import sha256_of
from lesion_triage.config import Fractions, Split
from lesion_triage.data import split as splitting
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import SPLITS, Splits, check_disjoint, split
from lesion_triage.errors import SplitError

DIGEST = "a" * 64
PROMISE = settings(max_examples=60, deadline=None)


def make_record(
    image: int, lesion: int, patient: int | None, file: int, needs: bool | None, source: str
) -> Record:
    return Record(
        image_id=f"I{image:04}",
        path=f"{image}.png",
        lesion_id=f"L{lesion}",
        patient_id=None if patient is None else f"P{patient}",
        needs_in_person=needs,
        diagnosis={True: "mel", False: "nv", None: ""}[needs],
        source=source,
        sha256=sha256_of(str(file).encode()),
        width_px=1,
        height_px=1,
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any tangle of patients, lesions and files, with enough loose records that no split stays empty."""
    count = draw(st.integers(1, 60))
    tangled = [
        make_record(
            image,
            draw(st.integers(0, 30)),
            draw(st.none() | st.integers(0, 15)),
            draw(st.integers(0, 80)),
            draw(st.sampled_from([True, False, False, None])),
            draw(st.sampled_from(["a", "b"])),
        )
        for image in range(count)
    ]
    loose = [make_record(1000 + n, 1000 + n, None, 1000 + n, n % 3 == 0, "c") for n in range(40)]
    return Manifest(records=tuple(tangled + loose), source="folder", synthetic=False)


@PROMISE
@given(manifests(), st.integers(0, 5))
def test_no_patient_lesion_or_file_crosses_splits(manifest: Manifest, seed: int) -> None:
    dealt = split(manifest, DIGEST, Split(seed=seed))
    homes: dict[str, set[str]] = {}
    for record in manifest.records:
        home = dealt.assignment.get(record.image_id)
        if home is not None:
            for tie in (record.patient_id, record.lesion_id, record.sha256):
                homes.setdefault(tie or record.lesion_id, set()).add(home)
    assert all(len(found) == 1 for found in homes.values())


@PROMISE
@given(manifests())
def test_every_labelled_picture_is_dealt_once_and_every_other_counted(manifest: Manifest) -> None:
    dealt = split(manifest, DIGEST, Split())
    labelled = {record.image_id for record in manifest.records if record.needs_in_person is not None}
    assert dealt.assignment.keys() == labelled
    assert dealt.left_out == len(manifest.records) - len(labelled)
    parts = [dealt.image_ids(name) for name in SPLITS]
    assert sorted(image_id for part in parts for image_id in part) == sorted(labelled)


@PROMISE
@given(manifests(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(manifest: Manifest, shuffler: random.Random) -> None:
    shuffled = list(manifest.records)
    shuffler.shuffle(shuffled)
    again = split(replace(manifest, records=tuple(shuffled)), DIGEST, Split())
    assert again == split(manifest, DIGEST, Split())


@PROMISE
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), min_size=30, max_size=300),
    st.sampled_from([(0.6, 0.1, 0.15, 0.15), (0.25, 0.25, 0.25, 0.25), (0.5, 0.1, 0.2, 0.2)]),
    st.integers(0, 3),
)
def test_every_split_gets_its_share_overall_and_of_every_stratum(
    groups: list[tuple[bool, str]], shares: tuple[float, float, float, float], seed: int
) -> None:
    records = tuple(
        make_record(number, number, None, number, needs, source)
        for number, (needs, source) in enumerate(groups)
    )
    manifest = Manifest(records=records, source="folder", synthetic=False)
    fractions = Fractions(**dict(zip(SPLITS, shares, strict=True)))
    dealt = split(manifest, DIGEST, Split(seed=seed, fractions=fractions))
    home = dealt.assignment
    stratum_of = {record.image_id: (record.needs_in_person, record.source) for record in records}
    for name, share in zip(SPLITS, shares, strict=True):
        assert len(dealt.image_ids(name)) <= share * len(records) + 1
        for stratum, size in Counter(stratum_of.values()).items():
            got = sum(home[image_id] == name for image_id, at in stratum_of.items() if at == stratum)
            assert abs(got - share * size) <= 3


def simple_manifest(count: int = 40) -> Manifest:
    records = tuple(make_record(n, n, None, n, n % 4 == 0, "a") for n in range(count))
    return Manifest(records=records, source="folder", synthetic=False)


def test_one_seed_gives_one_split_and_another_another() -> None:
    assert split(simple_manifest(), DIGEST, Split(seed=3)) == split(simple_manifest(), DIGEST, Split(seed=3))
    assert split(simple_manifest(), DIGEST, Split(seed=3)) != split(simple_manifest(), DIGEST, Split(seed=4))


def test_an_unlabelled_picture_still_ties_its_neighbours() -> None:
    bridge = [
        make_record(900, 900, None, 1, True, "a"),
        make_record(901, 901, None, 2, True, "a"),
        make_record(902, 900, 7, 3, None, "a"),
        make_record(903, 901, 7, 4, None, "a"),
    ]
    manifest = replace(simple_manifest(400), records=(*bridge, *simple_manifest(400).records[10:]))
    for seed in range(8):
        dealt = split(manifest, DIGEST, Split(seed=seed)).assignment
        assert dealt["I0900"] == dealt["I0901"]


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(SplitError, match=r"3 groups .* leave nothing for"):
        split(simple_manifest(3), DIGEST, Split())


@pytest.mark.parametrize(
    ("positives", "sentence"),
    [
        (40, "'train' has no case without need of an in-person visit and 'validation' has no case without"),
        (0, "'train' has no case that needs an in-person visit and 'validation' has no case that needs"),
    ],
)
def test_a_table_of_one_class_is_refused_before_it_is_trained_on(positives: int, sentence: str) -> None:
    records = tuple(make_record(i, i, None, i, i < positives, "a") for i in range(40))
    manifest = Manifest(records=records, source="folder", synthetic=False)
    dealt = split(manifest, "0" * 64, Split())
    with pytest.raises(SplitError) as caught:
        splitting.require_both_classes(manifest, dealt)
    assert sentence in str(caught.value)
    assert f"of all 40 labelled cases {positives} need a visit and {40 - positives} do not" in str(
        caught.value
    )


def test_a_single_split_of_one_class_is_refused_and_named() -> None:
    records = tuple(make_record(i, i, None, i, i != 3, "a") for i in range(40))
    manifest = Manifest(records=records, source="folder", synthetic=False)
    dealt = split(manifest, "0" * 64, Split())
    home = dealt.assignment[records[3].image_id]
    other = {"train": "validation", "validation": "train"}.get(home, "train")
    with pytest.raises(SplitError, match=f"'{other}' has no case without need"):
        splitting.require_both_classes(manifest, dealt)


def test_both_classes_in_training_and_validation_are_enough() -> None:
    manifest = simple_manifest()
    splitting.require_both_classes(manifest, split(manifest, "0" * 64, Split()))


def test_a_long_chain_of_ties_is_one_group() -> None:
    chain = [make_record(n, n // 2, None, 50_000 + (n + 1) // 2, True, "a") for n in range(20_000)]
    manifest = replace(simple_manifest(), records=(*chain, *replace(simple_manifest()).records))
    loose = [
        replace(record, image_id=f"J{n}", lesion_id=f"M{n}")
        for n, record in enumerate(simple_manifest().records)
    ]
    dealt = split(replace(manifest, records=(*chain, *loose)), DIGEST, Split())
    assert len({dealt.assignment[record.image_id] for record in chain}) == 1


def with_moved_image(dealt: Splits, image_id: str) -> Splits:
    other = next(name for name in SPLITS if name != dealt.assignment[image_id])
    return replace(dealt, assignment={**dealt.assignment, image_id: other})


@pytest.mark.parametrize(
    ("tie", "twin"),
    [
        ("patient", make_record(900, 900, 7, 900, False, "a")),
        ("lesion", make_record(900, 1, None, 900, False, "a")),
        ("file", make_record(900, 900, None, 1, False, "a")),
    ],
)
def test_a_planted_leak_is_found_and_named(tie: str, twin: Record) -> None:
    first = make_record(1, 1, 7 if twin.patient_id else None, 1, False, "a")
    rest = tuple(record for record in simple_manifest().records if record.image_id != "I0001")
    manifest = replace(simple_manifest(), records=(*rest, first, twin))
    dealt = split(manifest, DIGEST, Split())
    check_disjoint(manifest, dealt)
    with pytest.raises(
        SplitError, match=rf"one {tie} is in .*{first.sha256[:12]}.*{twin.sha256[:12]}.* leak"
    ):
        check_disjoint(manifest, with_moved_image(dealt, "I0900"))


def test_a_picture_of_another_manifest_is_found() -> None:
    dealt = split(simple_manifest(), DIGEST, Split())
    stray = replace(dealt, assignment={**dealt.assignment, "I9999": "train"})
    with pytest.raises(SplitError, match="1 pictures have a split but are not in the manifest"):
        check_disjoint(simple_manifest(), stray)


def test_a_forgotten_picture_is_found() -> None:
    dealt = split(simple_manifest(), DIGEST, Split())
    fewer = {image_id: name for image_id, name in dealt.assignment.items() if image_id != "I0003"}
    with pytest.raises(SplitError, match="4e07408562be: has a label but no split"):
        check_disjoint(simple_manifest(), replace(dealt, assignment=fewer))


def test_an_unlabelled_picture_in_a_split_is_found() -> None:
    dealt = split(simple_manifest(), DIGEST, Split())
    blanked = replace(simple_manifest().records[0], needs_in_person=None)
    with pytest.raises(SplitError, match="5feceb66ffc8: has a split but no label"):
        check_disjoint(replace(simple_manifest(), records=(blanked, *simple_manifest().records[1:])), dealt)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    dealt = split(simple_manifest(), DIGEST, Split(seed=2))
    digest = dealt.write(tmp_path)
    assert splitting.read(tmp_path, DIGEST) == (dealt, digest)
    assert digest == sha256_of((tmp_path / "splits.json").read_bytes())


def test_splits_of_another_manifest_are_refused(tmp_path: Path) -> None:
    split(simple_manifest(), DIGEST, Split()).write(tmp_path)
    with pytest.raises(SplitError, match="made from manifest aaaaaaaaaaaa, expected bbbbbbbbbbbb"):
        splitting.read(tmp_path, "b" * 64)


def test_altered_splits_are_refused(tmp_path: Path) -> None:
    split(simple_manifest(), DIGEST, Split()).write(tmp_path)
    path = tmp_path / "splits.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["image_ids"]["train"].append(content["image_ids"]["test"].pop())
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(SplitError, match="altered since it was written"):
        splitting.read(tmp_path, DIGEST)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "null", '{"seal": 1}', '{"format": 1'])
def test_a_broken_file_of_splits_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "splits.json").write_text(content, encoding="utf-8")
    with pytest.raises(SplitError, match="split again"):
        splitting.read(tmp_path, DIGEST)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(SplitError, match="'holdout' is not a split"):
        split(simple_manifest(), DIGEST, Split()).image_ids("holdout")


def test_records_of_the_shared_fixture_split_too(
    record: Callable[..., Record], manifest_of: Callable[[Sequence[Record]], Manifest]
) -> None:
    manifest = manifest_of([record(f"{n}", needs_in_person=n % 2 == 0) for n in range(40)])
    assert split(manifest, DIGEST, Split()).left_out == 0


def official(*splits: str) -> Manifest:
    """Forty lesions for each word, in order."""
    records = [
        replace(make_record(number, number, None, number, number % 4 == 0, "a"), official_split=name)
        for number, name in enumerate(name for name in splits for _ in range(40))
    ]
    return Manifest(records=tuple(records), source="dermamnist", synthetic=False)


def test_official_test_and_validation_pictures_stay_where_they_are() -> None:
    manifest = official("train", "train", "validation", "test")
    dealt = split(manifest, DIGEST, Split(official=True))
    for name in ("validation", "test"):
        stated = {record.image_id for record in manifest.records if record.official_split == name}
        assert set(dealt.image_ids(name)) == stated
    # 0.15 of 0.75: calibration comes out of the official training part, in the proportion of the fractions.
    assert len(dealt.image_ids("calibration")) == 16
    assert len(dealt.image_ids("train")) == 64


def test_what_the_dataset_does_not_name_is_dealt_from_its_training_part() -> None:
    dealt = split(official("train", "train", "test"), DIGEST, Split(official=True))
    assert len(dealt.image_ids("test")) == 40
    assert {len(dealt.image_ids(name)) > 0 for name in SPLITS} == {True}


def test_a_lesion_in_several_official_splits_goes_to_the_last_of_them() -> None:
    manifest = official("train", "validation", "test")
    first, *others = manifest.records
    straddling = (replace(first, lesion_id=others[-1].lesion_id), *others)
    dealt = split(replace(manifest, records=straddling), DIGEST, Split(official=True))
    assert first.image_id in dealt.image_ids("test")


def test_an_official_split_that_no_one_stated_is_refused() -> None:
    manifest = official("train", "test")
    unstated = replace(manifest.records[3], official_split="")
    records = (*manifest.records[:3], unstated, *manifest.records[4:])
    with pytest.raises(SplitError, match=f"{unstated.sha256[:12]}: states no official split"):
        split(replace(manifest, records=records), DIGEST, Split(official=True))


def test_official_splits_without_a_test_part_are_refused() -> None:
    with pytest.raises(SplitError, match="names no official validation or test"):
        split(official("train"), DIGEST, Split(official=True))


def test_official_splits_are_not_looked_at_unless_asked_for() -> None:
    manifest = official("train", "validation", "test")
    blank = tuple(replace(record, official_split="") for record in manifest.records)
    assert split(manifest, DIGEST, Split()) == split(replace(manifest, records=blank), DIGEST, Split())


def cases_with(count: int, start: int, **changes: object) -> list[Record]:
    """Cases of one picture each, which share nothing but what is given."""
    made = [make_record(start + n, start + n, None, start + n, n % 3 == 0, "a") for n in range(count)]
    return [replace(record, **changes) for record in made]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shared", "kind"),
    [({"patient_id": "unknown"}, "patient"), ({"duplicate_group": "0"}, "duplicate group")],
)
def test_a_group_that_swallows_a_tenth_of_the_cases_is_found(shared: dict[str, str], kind: str) -> None:
    records = (*cases_with(40, 0), *cases_with(30, 100, **shared))
    manifest = Manifest(records=records, source="folder", synthetic=False)
    dealt = split(manifest, DIGEST, Split())
    found = splitting.find_oversized_group(manifest, dealt)
    assert found == splitting.OversizedGroup(30, 70, dealt.assignment["I0100"], kind)


@pytest.mark.parametrize(("members", "others"), [(9, 40), (10, 90)])
def test_a_group_of_usual_size_is_not_remarked_upon(members: int, others: int) -> None:
    records = (*cases_with(others, 0), *cases_with(members, 100, patient_id="one"))
    manifest = Manifest(records=records, source="folder", synthetic=False)
    assert splitting.find_oversized_group(manifest, split(manifest, DIGEST, Split())) is None


def test_pictures_without_a_label_are_not_counted_in_a_group() -> None:
    unlabelled = cases_with(50, 200, patient_id="one", needs_in_person=None)
    records = (*cases_with(40, 0), *cases_with(9, 100, patient_id="one"), *unlabelled)
    manifest = Manifest(records=records, source="folder", synthetic=False)
    assert splitting.find_oversized_group(manifest, split(manifest, DIGEST, Split())) is None
