from __future__ import annotations

from pathlib import Path

import pytest

import made_sources
from lesion_triage.config import Data
from lesion_triage.data import manifest as manifests
from lesion_triage.data.records import RawRecord
from lesion_triage.data.sources import bcn20000, isic_2018, isic_2019, isic_2020, isic_2024, milk10k
from lesion_triage.errors import DataError


def by_id(records: tuple[RawRecord, ...]) -> dict[str, RawRecord]:
    return {record.image_id: record for record in records}


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_2018_keeps_its_official_splits_and_its_lesions(tmp_path: Path) -> None:
    records = by_id(isic_2018.read(made_sources.isic_2018(tmp_path).root).records)
    assert {name: record.official_split for name, record in records.items()} == {
        "ISIC_0024306": "train",
        "ISIC_0024308": "train",
        "ISIC_0034321": "validation",
        "ISIC_0034524": "test",
    }
    assert records["ISIC_0024306"].lesion_id == "HAM_0000001"
    assert records["ISIC_0024306"].diagnosis_confirm_type == "histopathology"
    assert records["ISIC_0024308"].diagnosis_confirm_type == "follow_up"


def test_2018_test_pictures_can_be_read_alone(tmp_path: Path) -> None:
    made = made_sources.isic_2018(tmp_path)
    for part in ("Training", "Validation"):
        (tmp_path / f"ISIC2018_Task3_{part}_GroundTruth" / f"ISIC2018_Task3_{part}_GroundTruth.csv").unlink()
    assert by_id(isic_2018.read(made.root).records).keys() == {"ISIC_0034524"}


def test_2018_a_training_picture_without_a_lesion_is_refused(tmp_path: Path) -> None:
    made = made_sources.isic_2018(tmp_path)
    replace_in(made.tables[0], "ISIC_0024308,HAM_0000002", "ISIC_0024308,")
    with pytest.raises(DataError, match=r"line 3: its image has no lesion_id in ISIC2018"):
        isic_2018.read(made.root)


@pytest.mark.parametrize("cells", ["1.0,1.0,0.0", "0.0,0.0,0.0", "0.5,0.5,0.0", "x,0.0,0.0"])
def test_2018_a_row_has_exactly_one_class(tmp_path: Path, cells: str) -> None:
    made = made_sources.isic_2018(tmp_path)
    replace_in(made.table, "ISIC_0024306,1.0,0.0,0.0", f"ISIC_0024306,{cells}")
    with pytest.raises(DataError, match="line 2: expected exactly one class"):
        isic_2018.read(made.root)


def test_2019_lesion_ids_tell_the_collection_and_their_lack_is_reported(tmp_path: Path) -> None:
    listing = isic_2019.read(made_sources.isic_2019(tmp_path).root)
    records = by_id(listing.records)
    assert {record.source for record in listing.records} == {"isic_2019_ham", "isic_2019_bcn", "isic_2019"}
    assert records["ISIC_0053453"].lesion_id == "BCN_0003884"
    (remark,) = listing.findings
    assert "names no lesion" in remark
    assert listing.findings[remark] == ("ISIC_0000002_downsampled", "ISIC_0034525")


def test_2019_a_picture_made_smaller_is_the_archive_s_picture(tmp_path: Path) -> None:
    record = by_id(isic_2019.read(made_sources.isic_2019(tmp_path).root).records)["ISIC_0000002"]
    assert record.path.endswith("/ISIC_0000002_downsampled.jpg")
    assert record.age_approx is None


def test_2019_a_missing_picture_made_smaller_has_the_name_that_its_record_would_have(tmp_path: Path) -> None:
    root = made_sources.isic_2019(tmp_path).root
    next(root.rglob("ISIC_0000002_downsampled.jpg")).unlink()
    assert isic_2019.read(root).missing == ("ISIC_0000002",)


def test_2019_what_no_class_fits_is_unknown_and_stays_in_the_test_split(tmp_path: Path) -> None:
    record = by_id(isic_2019.read(made_sources.isic_2019(tmp_path).root).records)["ISIC_0034525"]
    assert (record.diagnosis, record.needs_in_person, record.official_split) == ("UNK", None, "test")


def test_2020_second_pictures_of_the_official_list_are_left_out_and_counted(tmp_path: Path) -> None:
    made = made_sources.isic_2020(tmp_path)
    listing = isic_2020.read(made.root)
    assert listing.dropped == {"duplicate_by_the_dataset_s_own_list": ("ISIC_9999999",)}
    built = manifests.build(Data(source="isic_2020"), made.root)
    assert built.dropped == listing.dropped


def test_2020_the_first_version_of_the_table_has_no_lesions(tmp_path: Path) -> None:
    made = made_sources.isic_2020(tmp_path)
    rows = [line.split(",") for line in made.table.read_text(encoding="utf-8").splitlines()]
    text = "\n".join(",".join(cells[:2] + cells[3:]) for cells in rows)
    made.table.rename(tmp_path / "ISIC_2020_Training_GroundTruth.csv").write_text(text, encoding="utf-8")
    listing = isic_2020.read(made.root)
    assert all(record.lesion_id.startswith("image:") for record in listing.records)
    assert all(record.patient_id for record in listing.records)


def test_2020_only_melanoma_is_known_to_be_confirmed(tmp_path: Path) -> None:
    records = isic_2020.read(made_sources.isic_2020(tmp_path).root).records
    assert [record.diagnosis for record in records if record.diagnosis_confirm_type] == ["melanoma"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("melanoma,malignant", "melanoma,benign", "'melanoma' contradicts 'benign'"),
        ("unknown,benign", "unknown,malignant", "'unknown' contradicts 'malignant'"),
        ("nevus,benign", "nevus,harmless", "benign_malignant 'harmless'"),
    ],
)
def test_2020_a_contradiction_is_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    made = made_sources.isic_2020(tmp_path)
    replace_in(made.table, old, new)
    with pytest.raises(DataError, match=sentence):
        isic_2020.read(made.root)


def test_2024_pictures_are_the_jpeg_bytes_of_the_hdf5_file(tmp_path: Path) -> None:
    made = made_sources.isic_2024(tmp_path)
    built = manifests.build(Data(source="isic_2024"), made.root)
    drawn = {name: made_sources.drawn(seed) for seed, name in enumerate(made_sources.SLICE_3D)}
    assert {record.image_id: manifests.read_picture(made.root, record) for record in built.records} == drawn
    assert built.records[0].path == "train-image.hdf5#ISIC_0015670"


def test_2024_actinic_keratosis_needs_a_visit_although_its_target_is_0(tmp_path: Path) -> None:
    records = by_id(isic_2024.read(made_sources.isic_2024(tmp_path).root).records)
    assert records["ISIC_0096034"].needs_in_person is True
    assert records["ISIC_0104229"].needs_in_person is None


def test_2024_a_glance_is_not_called_histopathology(tmp_path: Path) -> None:
    records = by_id(isic_2024.read(made_sources.isic_2024(tmp_path).root).records)
    assert records["ISIC_0015670"].diagnosis_confirm_type == "clinical"
    assert records["ISIC_0082829"].diagnosis_confirm_type == "histopathology"
    assert records["ISIC_0015670"].age_approx is None


def test_2024_jpeg_files_are_read_where_there_is_no_hdf5_file(tmp_path: Path) -> None:
    made = made_sources.isic_2024(tmp_path)
    (tmp_path / "train-image.hdf5").unlink()
    for seed, name in enumerate(made_sources.SLICE_3D):
        made_sources.write_file(tmp_path / "train-image" / "image" / f"{name}.jpg", made_sources.drawn(seed))
    assert isic_2024.read(made.root).records[0].path == "train-image/image/ISIC_0015670.jpg"


def test_2024_a_download_cut_short_is_refused(tmp_path: Path) -> None:
    made = made_sources.isic_2024(tmp_path)
    file = tmp_path / "train-image.hdf5"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(DataError, match=r"train-image\.hdf5: cannot be opened as HDF5"):
        isic_2024.read(made.root)


def test_2024_a_target_that_contradicts_the_diagnosis_is_refused(tmp_path: Path) -> None:
    made = made_sources.isic_2024(tmp_path)
    replace_in(made.table, "ISIC_0015670,0", "ISIC_0015670,1")
    with pytest.raises(DataError, match="line 2: iddx_full 'Benign' contradicts target 1"):
        isic_2024.read(made.root)


def test_bcn20000_lesions_are_the_archive_s_and_test_labels_unknown(tmp_path: Path) -> None:
    records = by_id(bcn20000.read(made_sources.bcn20000(tmp_path).root).records)
    assert records["BCN_0000000001"].lesion_id == records["BCN_0000000003"].lesion_id == "BCN_0003884"
    hidden = records["BCN_0000000002"]
    assert (hidden.needs_in_person, hidden.official_split) == (None, "test")


def test_milk10k_s_two_pictures_of_a_lesion_are_one_case(tmp_path: Path) -> None:
    records = milk10k.read(made_sources.milk10k(tmp_path).root).records
    pair = [record for record in records if record.case_id == "IL_0000652"]
    assert {record.image_type for record in pair} == {"clinical: close-up", "dermoscopic"}
    assert {record.diagnosis_confirm_type for record in pair} == {"histopathology"}


def test_milk10k_a_lesion_with_two_rows_of_classes_is_refused(tmp_path: Path) -> None:
    made = made_sources.milk10k(tmp_path)
    with (tmp_path / milk10k.TRUTH).open("a", encoding="utf-8") as truth:
        truth.write("IL_0000652,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0\n")
    with pytest.raises(DataError, match="line 4: lesion_id is that of line 2"):
        milk10k.read(made.root)


def test_milk10k_a_lesion_of_which_the_metadata_name_no_picture_is_counted(tmp_path: Path) -> None:
    made = made_sources.milk10k(tmp_path)
    with (tmp_path / milk10k.TRUTH).open("a", encoding="utf-8") as truth:
        truth.write("IL_9999999,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\n")
    assert milk10k.read(made.root).dropped == {milk10k.NO_PICTURE: ("IL_9999999",)}


def test_milk10k_s_skin_tone_is_not_taken_for_a_fitzpatrick_type(tmp_path: Path) -> None:
    records = milk10k.read(made_sources.milk10k(tmp_path).root).records
    assert {record.fitzpatrick_skin_type for record in records} == {""}


def test_milk10k_without_its_supplement_does_not_say_what_was_confirmed(tmp_path: Path) -> None:
    made = made_sources.milk10k(tmp_path)
    (tmp_path / "MILK10k_Training_Supplement.csv").unlink()
    assert {record.diagnosis_confirm_type for record in milk10k.read(made.root).records} == {""}
