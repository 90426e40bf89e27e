from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lesion_triage.config import Data, Split
from lesion_triage.data import manifest as manifests
from lesion_triage.data import split as splitting
from lesion_triage.data.sources import ham10000
from lesion_triage.errors import DataError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"
ROWS = (
    "HAM_1,ISIC_1,mel,histo,80.0,male,scalp,rosendahl",
    "HAM_2,ISIC_2,nv,follow_up,,unknown,unknown,vidir_molemax",
)


@pytest.fixture
def layout(tmp_path: Path, picture: Callable[..., None]) -> Callable[..., Path]:
    def make(*rows: str, header: str = HEADER, name: str = "HAM10000_metadata.csv") -> Path:
        (tmp_path / name).write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
        picture(tmp_path / "HAM10000_images_part_1" / "ISIC_1.jpg", 1)
        picture(tmp_path / "HAM10000_images_part_2" / "ISIC_2.jpg", 2)
        return tmp_path

    return make


@pytest.mark.parametrize("name", ham10000.METADATA_NAMES)
def test_pictures_are_found_in_any_sub_folder(layout: Callable[..., Path], name: str) -> None:
    listing = ham10000.read(layout(*ROWS, name=name))
    assert [record.path for record in listing.records] == [
        "HAM10000_images_part_1/ISIC_1.jpg",
        "HAM10000_images_part_2/ISIC_2.jpg",
    ]
    assert not listing.missing
    assert "10.1038/sdata.2018.161" in listing.citation[0]


def test_words_become_ours_and_unknown_becomes_empty(layout: Callable[..., Path]) -> None:
    first, second = ham10000.read(layout(*ROWS)).records
    assert (first.needs_in_person, first.diagnosis_confirm_type, first.age_approx) == (
        True,
        "histopathology",
        80.0,
    )
    assert (second.needs_in_person, second.diagnosis_confirm_type, second.age_approx) == (
        False,
        "follow_up",
        None,
    )
    assert (second.sex, second.anatom_site_general, second.source) == ("", "", "vidir_molemax")
    assert first.case_id == "HAM_1"


@pytest.mark.parametrize("word", ["None", "null", "Not recorded", "missing", "<NA>", "-", "UNK"])
def test_what_a_table_of_one_s_own_takes_for_unknown_a_dataset_s_table_does(
    layout: Callable[..., Path], word: str
) -> None:
    _, second = ham10000.read(layout(ROWS[0], ROWS[1].replace("unknown", word))).records
    assert (second.sex, second.anatom_site_general) == ("", "")


def test_lesions_of_which_no_name_is_known_are_not_taken_for_one(layout: Callable[..., Path]) -> None:
    root = layout(*(row.replace(f"HAM_{number}", "nan") for number, row in enumerate(ROWS, start=1)))
    with pytest.raises(DataError, match=r"line 2: lesion_id is 'nan', which in tables means unknown"):
        ham10000.read(root)


def test_a_table_without_the_dataset_column_is_read(layout: Callable[..., Path]) -> None:
    root = layout("HAM_1,ISIC_1,mel,histo,80.0,male,scalp", header=HEADER.removesuffix(",dataset"))
    assert [record.source for record in ham10000.read(root).records] == ["ham10000"]


def test_a_picture_without_a_file_is_named(layout: Callable[..., Path]) -> None:
    listing = ham10000.read(layout(*ROWS, "HAM_3,ISIC_3,bcc,histo,60.0,female,face,rosendahl"))
    assert listing.missing == ("ISIC_3",)


def test_a_picture_stored_twice_is_taken_once_and_reported(
    layout: Callable[..., Path], picture: Callable[..., None]
) -> None:
    root = layout(*ROWS)
    picture(root / "ham10000_images_part_1" / "ISIC_1.jpg", 1)
    listing = ham10000.read(root)
    assert [record.image_id for record in listing.records] == ["ISIC_1", "ISIC_2"]
    assert list(listing.findings.values()) == [("ISIC_1",)]


def test_a_picture_stored_twice_that_no_row_names_is_not_reported(
    layout: Callable[..., Path], picture: Callable[..., None]
) -> None:
    root = layout(*ROWS)
    for folder in ("a", "b"):
        picture(root / folder / "thumbnail.jpg", 1)
    assert ham10000.read(root).findings == {}


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("HAM_1,ISIC_1,mell,histo,80,male,scalp,x", r"line 2: 'mell' .* did you mean 'mel'\?"),
        ("HAM_1,ISIC_1,mel,histology,80,male,scalp,x", r"line 2: dx_type .* did you mean 'histo'\?"),
        ("HAM_1,ISIC_1,mel,histo,old,male,scalp,x", "line 2: age is not a number of years"),
        ("HAM_1,ISIC_1,mel,histo,nan,male,scalp,x", "line 2: age is not a number of years"),
        (",ISIC_1,mel,histo,80,male,scalp,x", "line 2: lesion_id is empty"),
        ("HAM_1,ISIC_1,mel", "line 2: more or fewer cells"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_with_its_line(
    layout: Callable[..., Path], row: str, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        ham10000.read(layout(row))


def test_another_table_is_refused_with_the_columns_it_lacks(layout: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match="found no lesion_id, image_id"):
        ham10000.read(layout("1,2", header="isic_id,diagnosis"))


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data-root"):
        ham10000.read(tmp_path)


def test_tabs_and_quotes_as_dataverse_serves_them_are_read(layout: Callable[..., Path]) -> None:
    rows = ["\t".join(f'"{cell}"' if cell else "" for cell in row.split(",")) for row in ROWS]
    root = layout(*rows, header=HEADER.replace(",", "\t"), name="HAM10000_metadata.tab")
    first, second = ham10000.read(root).records
    assert (first.lesion_id, first.age_approx, second.age_approx) == ("HAM_1", 80.0, None)


@pytest.mark.data
def test_the_real_dataset_splits_without_a_leak_and_in_proportion(data_root: Path, tmp_path: Path) -> None:
    root = data_root / "ham10000"
    built = manifests.build(Data(source="ham10000"), root)
    assert not built.dropped
    assert not built.synthetic
    digest = built.write(tmp_path)
    assert manifests.read(tmp_path) == (built, digest)
    dealt = splitting.split(built, digest, Split())
    splitting.check_disjoint(built, dealt)
    lesion_of = {record.image_id: record.lesion_id for record in built.records}
    total = len(set(lesion_of.values()))
    for name, fraction in dealt.fractions.items():
        lesions = {lesion_of[image_id] for image_id in dealt.image_ids(name)}
        assert abs(len(lesions) - fraction * total) <= 4


@pytest.mark.data
def test_the_real_dataset_s_repeated_files_are_reported(data_root: Path) -> None:
    built = manifests.build(Data(source="ham10000"), data_root / "ham10000")
    assert len(built.findings["the same file stands under two image ids"]) == 4


def test_pictures_behind_a_link_to_another_disk_are_found(layout: Callable[..., Path]) -> None:
    root = layout(*ROWS)
    disk = root.parent / "disk"
    (root / "HAM10000_images_part_1").rename(disk)
    (root / "HAM10000_images_part_1").symlink_to(disk)
    listing = ham10000.read(root)
    assert [record.path for record in listing.records] == [
        "HAM10000_images_part_1/ISIC_1.jpg",
        "HAM10000_images_part_2/ISIC_2.jpg",
    ]
    assert not listing.missing
    assert not listing.findings


def test_a_link_beside_the_folder_that_it_leads_to_makes_no_second_copy(layout: Callable[..., Path]) -> None:
    root = layout(*ROWS)
    (root / "A_link").symlink_to("HAM10000_images_part_1")
    listing = ham10000.read(root)
    assert listing.records[0].path == "HAM10000_images_part_1/ISIC_1.jpg"
    assert not listing.findings
