from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import made_sources
from lesion_triage.bundle.history import History, history_from_text
from lesion_triage.config import Data
from lesion_triage.data import manifest as manifests
from lesion_triage.data.records import RawRecord
from lesion_triage.data.sources import ddi, derm7pt, dermamnist, fitzpatrick17k, pad_ufes_20, ph2, scin
from lesion_triage.errors import DataError


def by_id(records: tuple[RawRecord, ...]) -> dict[str, RawRecord]:
    return {record.image_id: record for record in records}


def replace_in(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_pad_ufes_20_lesion_ids_are_made_unique_by_the_patient(tmp_path: Path) -> None:
    records = by_id(pad_ufes_20.read(made_sources.pad_ufes_20(tmp_path).root).records)
    assert records["PAT_46_881_939"].lesion_id != records["PAT_47_881_140"].lesion_id
    assert records["PAT_46_881_939"].patient_id == "PAT_46"


def test_pad_ufes_20_words_become_ours_and_missing_stays_unknown(tmp_path: Path) -> None:
    records = by_id(pad_ufes_20.read(made_sources.pad_ufes_20(tmp_path).root).records)
    cut, left = records["PAT_46_881_939"], records["PAT_1516_1765_530"]
    assert (cut.fitzpatrick_skin_type, cut.sex, cut.anatom_site_general) == ("III", "female", "neck")
    assert (left.fitzpatrick_skin_type, left.sex, left.age_approx) == ("", "", 8.0)
    assert (cut.diagnosis_confirm_type, left.diagnosis_confirm_type) == ("histopathology", "consensus")


def test_pad_ufes_20_answers_become_a_history_and_silence_stays_silence(tmp_path: Path) -> None:
    records = by_id(pad_ufes_20.read(made_sources.pad_ufes_20(tmp_path).root).records)
    told = history_from_text(records["PAT_46_881_939"].history)
    assert told == History(
        itching=True,
        growing=True,
        painful=False,
        changing=True,
        bleeding=True,
        skin_tumour_treated_before=True,
        diameter_mm=6,
    )
    silent = history_from_text(records["PAT_1516_1765_530"].history)
    assert (silent.itching, silent.skin_tumour_treated_before, silent.diameter_mm) == (False, None, None)


def test_pad_ufes_20_jpeg_copies_of_the_png_files_are_found(tmp_path: Path) -> None:
    made = made_sources.pad_ufes_20(tmp_path)
    for file in tmp_path.rglob("*.png"):
        file.rename(file.with_suffix(".jpg"))
    assert not pad_ufes_20.read(made.root).missing


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (",True\n", ",perhaps\n", "biopsed 'perhaps' is unknown"),
        (",3.0,", ",7.0,", "fitspatrick '7' is unknown"),
        ("PAT_46,881", "PAT_46,", "patient_id or lesion_id is empty"),
        (",55,", ",old,", "age is not a number of years"),
    ],
)
def test_pad_ufes_20_a_cell_that_cannot_be_read_is_refused(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    made = made_sources.pad_ufes_20(tmp_path)
    replace_in(made.table, old, new)
    with pytest.raises(DataError, match=f"line 3: .*{sentence}"):
        pad_ufes_20.read(made.root)


def test_derm7pt_s_two_pictures_of_a_row_are_one_case(tmp_path: Path) -> None:
    records = derm7pt.read(made_sources.derm7pt(tmp_path).root).records
    kinds = [record.image_type for record in records if record.case_id == "case-1"]
    assert kinds == ["clinical: close-up", "dermoscopic"]


def test_derm7pt_s_dermoscopic_picture_in_place_of_the_clinical_one_is_taken_once(tmp_path: Path) -> None:
    made = made_sources.derm7pt(tmp_path)
    replace_in(made.table, "NEL/NEL025.JPG,NEL/Nel026.jpg,,", "NEL/Nel026.jpg,NEL/Nel026.jpg,,")
    built = manifests.build(Data(source="derm7pt"), made.root)
    assert [record.image_type for record in built.records if record.case_id == "case-1"] == ["dermoscopic"]
    assert built.findings[derm7pt.NO_CLINICAL] == ("NEL/Nel026.jpg",)


def test_derm7pt_s_official_splits_are_rows_of_the_table(tmp_path: Path) -> None:
    records = derm7pt.read(made_sources.derm7pt(tmp_path).root).records
    assert {record.case_id: record.official_split for record in records} == {
        "case-1": "train",
        "case-2": "validation",
        "case-3": "test",
    }


def test_derm7pt_s_index_beyond_the_table_is_refused(tmp_path: Path) -> None:
    made = made_sources.derm7pt(tmp_path)
    replace_in(made.table.parent / "test_indexes.csv", "2", "3")
    with pytest.raises(DataError, match=r"meta\.csv: 3 rows, but row 3, from 0, is in the test split"):
        derm7pt.read(made.root)


def test_derm7pt_s_advice_to_cut_out_is_not_the_truth(tmp_path: Path) -> None:
    records = derm7pt.read(made_sources.derm7pt(tmp_path).root).records
    cut_out = {record.needs_in_person for record in records if record.case_id in ("case-1", "case-2")}
    assert cut_out == {True, False}


def test_derm7pt_names_that_differ_in_case_are_found(tmp_path: Path) -> None:
    records = by_id(derm7pt.read(made_sources.derm7pt(tmp_path).root).records)
    assert records["NEL/NEL025.JPG"].path == "release_v0/images/NEL/NEL025.jpg"


def test_ph2_bmp_files_reach_the_pixel_path_without_loss(tmp_path: Path) -> None:
    made = made_sources.ph2(tmp_path)
    built = manifests.build(Data(source="ph2"), made.root)
    for record in built.records:
        with Image.open(made.root / record.path) as original:
            wanted = np.asarray(original.convert("RGB"))
        data = manifests.read_picture(made.root, record)
        (tmp_path / "copy.png").write_bytes(data)
        with Image.open(tmp_path / "copy.png") as copy:
            assert np.array_equal(np.asarray(copy), wanted)


def test_ph2_masks_are_not_pictures_and_the_legend_is_no_row(tmp_path: Path) -> None:
    records = ph2.read(made_sources.ph2(tmp_path).root).records
    assert [record.path.rpartition("/")[2] for record in records] == [
        "IMD003.bmp",
        "IMD009.bmp",
        "IMD058.bmp",
    ]


def test_ph2_only_what_pathology_saw_is_called_confirmed(tmp_path: Path) -> None:
    records = ph2.read(made_sources.ph2(tmp_path).root).records
    assert [record.diagnosis_confirm_type for record in records] == ["clinical", "clinical", "histopathology"]


def test_fitzpatrick17k_a_label_that_a_reviewer_doubted_is_unknown(tmp_path: Path) -> None:
    listing = fitzpatrick17k.read(made_sources.fitzpatrick17k(tmp_path).root)
    assert by_id(listing.records)["0" * 32].needs_in_person is None
    assert list(listing.findings.values()) == [("0" * 32,)]


def test_fitzpatrick17k_skin_types_are_roman_and_minus_one_is_unknown(tmp_path: Path) -> None:
    records = fitzpatrick17k.read(made_sources.fitzpatrick17k(tmp_path).root).records
    assert [record.fitzpatrick_skin_type for record in records] == ["III", "", "II", "VI"]


def test_fitzpatrick17k_a_label_that_contradicts_its_partition_is_refused(tmp_path: Path) -> None:
    made = made_sources.fitzpatrick17k(tmp_path)
    replace_in(made.table, "melanoma,malignant melanoma,malignant", "melanoma,benign melanocyte,benign")
    with pytest.raises(DataError, match="line 3: label 'melanoma' contradicts 'benign'"):
        fitzpatrick17k.read(made.root)


def test_ddi_skin_tones_are_pairs_of_types_and_all_is_confirmed(tmp_path: Path) -> None:
    records = by_id(ddi.read(made_sources.ddi(tmp_path).root).records)
    assert records["000001"].fitzpatrick_skin_type == "V-VI"
    assert {record.diagnosis_confirm_type for record in records.values()} == {"histopathology"}


def test_ddi_a_disease_that_contradicts_malignant_is_refused(tmp_path: Path) -> None:
    made = made_sources.ddi(tmp_path)
    replace_in(made.table, "True,melanoma-in-situ", "False,melanoma-in-situ")
    with pytest.raises(DataError, match="line 2: disease 'melanoma-in-situ' contradicts malignant False"):
        ddi.read(made.root)


def test_scin_opinions_on_photographs_are_no_labels(tmp_path: Path) -> None:
    records = by_id(scin.read(made_sources.scin(tmp_path).root).records)
    assert records["-31"].diagnosis == "SCC/SCCIS"
    assert {record.needs_in_person for record in records.values()} == {None}
    assert records["-31"].patient_id == records["-32"].patient_id != records["-33"].patient_id


@pytest.mark.parametrize("cell", ["__import__('os')", "[" * 5000, "{'Eczema': 'much'}", "nonsense", "{1"])
def test_scin_a_differential_is_data_and_never_run(tmp_path: Path, cell: str) -> None:
    made = made_sources.scin(tmp_path)
    replace_in(made.tables[1], "{'Eczema': 0.31, 'SCC/SCCIS': 0.69}", cell)
    with pytest.raises(DataError, match="line 2: weighted_skin_condition_label"):
        scin.read(made.root)


def test_dermamnist_pixels_are_those_of_the_array(tmp_path: Path) -> None:
    made = made_sources.dermamnist(tmp_path)
    built = manifests.build(Data(source="dermamnist"), made.root)
    with np.load(made.table) as arrays:
        wanted = arrays["val_images"][1]
    record = by_id(built.records)["val-00001"]  # type: ignore[arg-type]
    (tmp_path / "copy.png").write_bytes(manifests.read_picture(made.root, record))  # type: ignore[arg-type]
    with Image.open(tmp_path / "copy.png") as copy:
        assert np.array_equal(np.asarray(copy), wanted)


def test_dermamnist_keeps_the_official_splits(tmp_path: Path) -> None:
    records = dermamnist.read(made_sources.dermamnist(tmp_path).root).records
    counts = {split: sum(record.official_split == split for record in records) for split in ("train", "test")}
    assert counts == {"train": 8, "test": 2}


@pytest.mark.parametrize(
    "damage", ["a class too many", "no array", "no archive", "flat", "pickle", "cut", "empty", "turned bytes"]
)
def test_dermamnist_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    made = made_sources.dermamnist(tmp_path)
    with np.load(made.table) as found:
        arrays = dict(found)
    if damage == "a class too many":
        arrays["val_labels"][0] = 7
    elif damage == "no array":
        del arrays["test_images"]
    elif damage == "flat":
        arrays["val_images"] = arrays["val_images"][..., 0]
    elif damage == "pickle":
        arrays["val_labels"] = np.array([[None], [1]], dtype=object)
    np.savez_compressed(made.table, **arrays)
    said = made.table.read_bytes()
    written = {
        "no archive": b"not a zip file",
        "cut": said[:-100],
        "empty": b"",
        "turned bytes": said[:60] + bytes(byte ^ 255 for byte in said[60:120]) + said[120:],
    }
    made.table.write_bytes(written.get(damage, said))
    with pytest.raises(DataError, match=r"dermamnist\.npz"):
        dermamnist.read(made.root)


def test_dermamnist_two_files_are_one_too_many(tmp_path: Path) -> None:
    made = made_sources.dermamnist(tmp_path)
    (tmp_path / "dermamnist_64.npz").write_bytes(made.table.read_bytes())
    with pytest.raises(DataError, match="found 2"):
        dermamnist.read(made.root)


@pytest.mark.data
def test_the_real_pad_ufes_20_copy_has_its_known_counts(data_root: Path) -> None:
    built = manifests.build(Data(source="pad_ufes_20"), data_root / "pad_ufes_20")
    assert not built.dropped
    assert len(built.records) == 426
    assert len({record.patient_id for record in built.records}) == 327
    # The trap of the docstring: whoever learns from what is missing learns what was not biopsied.
    unsaid = {record.diagnosis_confirm_type for record in built.records if not record.fitzpatrick_skin_type}
    assert unsaid == {"consensus"}


@pytest.mark.data
def test_the_real_dermamnist_copy_has_its_known_counts(data_root: Path) -> None:
    records = dermamnist.read(data_root / "dermamnist_28").records
    counts = [sum(r.official_split == split for r in records) for split in ("train", "validation", "test")]
    assert counts == [7007, 1003, 2005]
