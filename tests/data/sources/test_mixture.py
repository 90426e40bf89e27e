from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

import made_sources
from lesion_triage.config import Data, Fractions, Part, Split
from lesion_triage.data import manifest as manifests
from lesion_triage.data import sources
from lesion_triage.data import split as splitting
from lesion_triage.data.labels import DECISIONS
from lesion_triage.data.records import Listing, RawRecord
from lesion_triage.data.sources import mixture
from lesion_triage.errors import ManifestError

Raw = Callable[..., RawRecord]


def raw(image_id: str, **stated: object) -> RawRecord:
    facts: dict[str, object] = {
        "path": f"{image_id}.jpg",
        "lesion_id": f"image:{image_id}",
        "needs_in_person": False,
    }
    return RawRecord(image_id=image_id, **{**facts, "source": "x", **stated})  # type: ignore[arg-type]


def join(**parts: list[RawRecord]) -> Listing:
    return mixture.merge_listings(
        (Part(source=name), Listing(records=tuple(records), citation=(name,)))  # type: ignore[arg-type]
        for name, records in parts.items()
    )


def mixed(root: Path, *names: str) -> Data:
    for name in names:
        made_sources.MADE[name](root / name)
    return Data(source="mixture", root=root, mixture=tuple(Part(source=name) for name in names))  # type: ignore[arg-type]


def test_all_datasets_together_make_one_manifest(tmp_path: Path) -> None:
    config = mixed(tmp_path, *made_sources.MADE)
    built = manifests.build(config, tmp_path)
    assert len({record.image_id for record in built.records}) == len(built.records)
    for record in built.records:
        assert manifests.read_picture(config.folders, record)  # type: ignore[arg-type]
    digest = built.write(tmp_path / "run")
    assert manifests.read(tmp_path / "run") == (built, digest)
    assert len(built.citation) == len(made_sources.MADE)


def test_a_bmp_file_of_a_part_still_counts_for_its_lesion() -> None:
    left_out = raw("a.bmp", lesion_id="L", needs_in_person=True)
    own = Listing(records=(raw("b.jpg", lesion_id="L"),), citation=(), refused={"bmp": (left_out,)})
    merged = mixture.merge_listings([(Part(source="folder"), own)])
    assert {merged.refused["bmp"][0].lesion_id} == {record.lesion_id for record in merged.records}


def test_a_picture_of_the_archive_in_two_datasets_is_kept_once_and_counted(tmp_path: Path) -> None:
    config = mixed(tmp_path, "isic_2018", "ham10000", "isic_2019")
    built = manifests.build(config, tmp_path)
    twice = built.dropped[mixture.SAME_PICTURE]
    assert sorted(twice) == ["ISIC_0024306", "ISIC_0024306", "ISIC_0024308"]
    (kept,) = (record for record in built.records if record.image_id == "ISIC_0024306")
    assert (kept.source, kept.age_approx) == ("rosendahl", 80.0)  # HAM10000's record says most
    assert kept.official_split == "train"


def test_whatever_the_order_the_same_record_is_kept(tmp_path: Path) -> None:
    one = manifests.build(mixed(tmp_path, "isic_2018", "ham10000", "isic_2019"), tmp_path)
    other = manifests.build(mixed(tmp_path, "isic_2019", "ham10000", "isic_2018"), tmp_path)
    assert one.records == other.records


def test_names_of_other_datasets_get_the_part_before_them(tmp_path: Path) -> None:
    built = manifests.build(mixed(tmp_path, "pad_ufes_20", "ham10000"), tmp_path)
    pad = [record for record in built.records if record.source == "pad_ufes_20"]
    assert {record.patient_id for record in pad} == {f"pad_ufes_20:PAT_{n}" for n in (1516, 46, 47)}
    assert all(record.lesion_id.startswith("pad_ufes_20:PAT_") for record in pad)
    ham = [record for record in built.records if record.source != "pad_ufes_20"]
    assert {record.lesion_id for record in ham} == {"HAM_0000001", "HAM_0000002"}


def test_one_kind_of_lesion_has_one_name_in_all_datasets(tmp_path: Path) -> None:
    # Before copies are looked for: some drawings are equal, which settles their labels together.
    config = mixed(tmp_path, *made_sources.MADE)
    listing = sources.read(sources.folders(config, tmp_path), config)
    named = {record.diagnosis for record in listing.records if record.needs_in_person is not None}
    assert named <= set(DECISIONS)


def test_one_source_may_stand_twice_under_two_names(tmp_path: Path) -> None:
    for name in ("north", "south"):
        made_sources.write_file(tmp_path / name / "a.jpg", made_sources.drawn(len(name)))
        made_sources.write_table(
            tmp_path / name / "cases.csv", "image,needs_in_person,lesion_id,patient_id", "a.jpg,1,L1,P1"
        )
    parts = tuple(Part(source="folder", name=name) for name in ("north", "south"))
    built = manifests.build(Data(source="mixture", mixture=parts), tmp_path)
    assert [record.image_id for record in built.records] == ["north:a.jpg", "south:a.jpg"]
    assert len({record.patient_id for record in built.records}) == 2
    assert {record.source for record in built.records} == {"north", "south"}


def test_parts_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    made_sources.ham10000(tmp_path / "one")
    made_sources.ddi(tmp_path / "two")
    parts = (Part(source="ham10000", root=tmp_path / "one"), Part(source="ddi", root=tmp_path / "two"))
    config = Data(source="mixture", mixture=parts)
    built = manifests.build(config, config.folders)  # type: ignore[arg-type]
    assert {record.path.partition("/")[0] for record in built.records} == {"ham10000", "ddi"}


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = mixed(tmp_path, "ham10000")
    config = Data(source="mixture", mixture=(*config.mixture, Part(source="ph2")))
    with pytest.raises(ManifestError, match=r"ph2: expected the folder of the dataset"):
        manifests.build(config, tmp_path)


def test_a_known_label_stands_above_an_unknown_one() -> None:
    told = raw("ISIC_1", needs_in_person=True)
    untold = raw(
        "ISIC_1", needs_in_person=None, sex="male", age_approx=5.0, diagnosis_confirm_type="histopathology"
    )
    (kept,) = join(isic_2019=[untold], isic_2020=[told]).records
    assert kept.needs_in_person is True


def test_datasets_that_disagree_on_a_picture_send_it_up_and_it_is_told() -> None:
    confirmed = raw("ISIC_1", diagnosis_confirm_type="histopathology")
    listing = join(ham10000=[confirmed], isic_2019=[raw("ISIC_1", needs_in_person=True)])
    assert [record.needs_in_person for record in listing.records] == [True]
    assert listing.findings[mixture.LABELS_DIFFER] == ("ISIC_1",)


def test_a_picture_of_any_official_test_set_stays_one() -> None:
    listing = join(
        ham10000=[raw("ISIC_1", sex="male", age_approx=5.0)], isic_2018=[raw("ISIC_1", official_split="test")]
    )
    assert [record.official_split for record in listing.records] == ["test"]
    both = [raw("ISIC_1", official_split=split) for split in ("validation", "test")]
    assert join(isic_2018=both[:1], isic_2019=both[1:]).records[0].official_split == "test"


def test_two_names_of_one_lesion_become_one_for_all_its_pictures() -> None:
    listing = join(
        ham10000=[raw("ISIC_1", lesion_id="HAM_1"), raw("ISIC_2", lesion_id="HAM_1")],
        isic_2020=[
            raw("ISIC_1", lesion_id="IL_9", patient_id="IP_9"),
            raw("ISIC_3", lesion_id="IL_9", patient_id="IP_9"),
        ],
    )
    assert {record.lesion_id for record in listing.records} == {"HAM_1"}
    assert {record.patient_id for record in listing.records} == {"IP_9"}
    assert listing.findings[mixture.LESIONS_JOINED] == ("ISIC_1",)


def test_a_picture_that_one_dataset_lacks_and_another_has_is_not_missing() -> None:
    parts = (
        (Part(source="isic_2019"), Listing(records=(), citation=("a",), missing=("ISIC_1", "ISIC_2"))),
        (Part(source="ham10000"), Listing(records=(raw("ISIC_1"),), citation=("a",))),
    )
    assert mixture.merge_listings(parts).missing == ("ISIC_2",)


def test_a_picture_that_stands_twice_in_one_part_is_refused() -> None:
    with pytest.raises(ManifestError, match="has the same image as"):
        join(ham10000=[raw("ISIC_1"), raw("ISIC_1")])


def test_an_archive_s_name_in_another_dataset_is_another_picture() -> None:
    listing = join(ham10000=[raw("ISIC_1")], ddi=[raw("ISIC_1")])
    assert [record.image_id for record in listing.records] == ["ISIC_1", "ddi:ISIC_1"]


@pytest.mark.data
def test_the_real_mixture_splits_with_no_lesion_and_no_patient_in_two(
    data_root: Path, tmp_path: Path
) -> None:
    parts = (Part(source="ham10000"), Part(source="pad_ufes_20"))
    built = manifests.build(Data(source="mixture", mixture=parts), data_root)
    assert len(built.records) == 8013 + 426
    assert len({record.lesion_id for record in built.records if record.patient_id is None}) == 5977
    assert len({record.patient_id for record in built.records} - {None}) == 327
    dealt = splitting.split(built, built.write(tmp_path), Split(fractions=Fractions()))
    splits: dict[str, set[str]] = {}
    with (tmp_path / manifests.TABLE).open(
        encoding="utf-8", newline=""
    ) as stream:  # as another program would
        for row in csv.DictReader(stream):
            for name in filter(None, (row["lesion_id"], row["patient_id"], row["sha256"])):
                splits.setdefault(name, set()).add(dealt.assignment[row["image_id"]])
    assert {len(found) for found in splits.values()} == {1}
    sources = {
        name: {record.image_id for record in built.records if record.source == "pad_ufes_20"}
        & set(dealt.image_ids(name))
        for name in splitting.SPLITS
    }
    assert all(sources.values())
