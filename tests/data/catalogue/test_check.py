"""A copy of a dataset is compared with its official layout, and what is missing is counted."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lesion_triage.cli import main
from lesion_triage.data.catalogue import command, dataset, datasets
from lesion_triage.data.catalogue.check import State, check
from lesion_triage.errors import DataError

HAM = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


@pytest.fixture
def ham(tmp_path, picture):
    """Three pictures of the 10,015, in the official layout."""
    root = tmp_path / "ham"
    ids = [f"ISIC_002430{number}" for number in range(3)]
    rows = [
        (f"HAM_{number}", name, "nv", "histo", "50", "male", "back", "rosendahl")
        for number, name in enumerate(ids)
    ]
    table(root / "HAM10000_metadata.csv", HAM, rows)
    for seed, name in enumerate(ids):
        picture(root / "HAM10000_images_part_1" / f"{name}.jpg", seed)
    return root


def state_and_text(checked, what: str) -> tuple[State, str]:
    (one,) = [finding for finding in checked.findings if finding.what.startswith(what)]
    return one.state, one.found


def test_a_part_of_a_dataset_is_incomplete_and_no_error_of_format(ham):
    checked = check(ham)
    assert checked.entry.name == "ham10000"
    assert checked.exit_code == 1
    assert state_and_text(checked, "table") == (State.INCOMPLETE, "3 rows: 10,012 missing")
    assert state_and_text(checked, "pictures named") == (State.OK, "3")
    assert state_and_text(checked, "the dataset") == (State.INCOMPLETE, "3: 10,012 missing")


@pytest.mark.parametrize("name", ["HAM10000_metadata", "HAM10000_metadata.tab"])
def test_a_table_with_tabs_as_dataverse_serves_it_is_read_as_its_reader_reads_it(ham, name):
    told = (ham / "HAM10000_metadata.csv").read_text(encoding="utf-8")
    (ham / "HAM10000_metadata.csv").unlink()
    (ham / name).write_text(told.replace(",", "\t"), encoding="utf-8")
    checked = check(ham)
    assert checked.exit_code == 1
    assert state_and_text(checked, f"table {name}") == (State.INCOMPLETE, "3 rows: 10,012 missing")
    assert state_and_text(checked, "pictures named") == (State.OK, "3")


def test_pictures_that_the_table_names_and_the_folder_lacks_are_counted(ham):
    (ham / "HAM10000_images_part_1" / "ISIC_0024301.jpg").unlink()
    state, text = state_and_text(check(ham), "pictures named")
    assert (state, text) == (State.INCOMPLETE, "2: 1 missing, such as ISIC_0024301")


def test_pictures_behind_a_link_to_another_disk_are_there(ham):
    disk = ham.parent / "disk"
    (ham / "HAM10000_images_part_1").rename(disk)
    (ham / "images").symlink_to(disk)
    assert state_and_text(check(ham), "pictures named") == (State.OK, "3")


def test_pictures_still_in_their_archive_are_pointed_at(ham):
    (ham / "HAM10000_images_part_1" / "ISIC_0024301.jpg").unlink()
    (ham / "HAM10000_images_part_2.zip").write_bytes(b"packed")
    advice = [finding.advice for finding in check(ham).findings if finding.advice]
    assert advice == ["unpack HAM10000_images_part_2.zip"]


def test_a_missing_column_is_an_error_of_format(ham):
    table(ham / "HAM10000_metadata.csv", HAM[:3], [("HAM_0", "ISIC_0024300", "nv")])
    checked = check(ham, dataset("ham10000"))
    assert checked.exit_code == 2
    assert state_and_text(checked, "table") == (State.BROKEN, "no dx_type, age, sex, localization")


def test_a_missing_table_is_an_error_of_format(ham):
    (ham / "HAM10000_metadata.csv").unlink()
    assert check(ham, dataset("ham10000")).exit_code == 2


def test_pictures_that_no_table_names_are_a_note(ham, picture):
    picture(ham / "extra.jpg")
    assert state_and_text(check(ham), "other pictures") == (State.NOTE, "1, which no table names")


def test_only_a_deep_look_opens_pictures(ham):
    whole = (ham / "HAM10000_images_part_1" / "ISIC_0024301.jpg").read_bytes()
    (ham / "HAM10000_images_part_1" / "ISIC_0024301.jpg").write_bytes(whole[: len(whole) // 2])
    assert state_and_text(check(ham), "pictures named") == (State.OK, "3")
    seen: list[tuple[int, int]] = []
    state, text = state_and_text(
        check(ham, deep=True, progress=lambda done, total: seen.append((done, total))), "pictures that can"
    )
    assert state is State.INCOMPLETE
    assert text.startswith("1 of 3 cannot, such as HAM10000_images_part_1/ISIC_0024301.jpg (image_")
    assert seen[-1] == (3, 3)


def test_a_table_as_published_is_recognised_by_its_checksum(ham, tmp_path):
    fitz = tmp_path / "fitz"
    header = dataset("fitzpatrick17k").layouts[0].tables[0].columns
    table(fitz / "fitzpatrick17k.csv", header, [["0" * 32, *["1"] * (len(header) - 1)]])
    checked = check(fitz)
    assert checked.entry.name == "fitzpatrick17k"
    assert state_and_text(checked, "fitzpatrick17k.csv") == (State.NOTE, "another content")


def test_one_of_a_pictures_two_names_is_enough(tmp_path, picture):
    header = dataset("fitzpatrick17k").layouts[0].tables[0].columns
    rows = [[name * 32, *["1"] * (len(header) - 2), f"http{name}jpg.jpg"] for name in "abc"]
    table(tmp_path / "fitzpatrick17k.csv", header, rows)
    picture(tmp_path / "images" / f"{'a' * 32}.jpg")
    picture(tmp_path / "images" / "httpbjpg.jpg")
    checked = check(tmp_path)
    assert state_and_text(checked, "pictures named") == (
        State.INCOMPLETE,
        f"2: 1 missing, such as {'c' * 32}",
    )
    assert not [finding for finding in checked.findings if finding.what == "other pictures"]


def test_an_hdf5_file_is_asked_for_every_picture_of_the_table(tmp_path):
    h5py = pytest.importorskip("h5py")
    columns = ("isic_id", "target", "patient_id", "age_approx", "sex", "anatom_site_general")
    rows = [(f"ISIC_{number}", "0", "IP_1", "50", "male", "torso") for number in range(3)]
    table(tmp_path / "train-metadata.csv", columns, rows)
    with h5py.File(tmp_path / "train-image.hdf5", "w") as opened:
        for name in ("ISIC_0", "ISIC_2"):
            opened[name] = np.bytes_(b"picture")
    checked = check(tmp_path, dataset("isic_2024"))
    assert checked.layout.name == "Kaggle, one HDF5 file"
    assert state_and_text(checked, "train-image.hdf5") == (State.INCOMPLETE, "2: 1 missing, such as ISIC_1")
    whole = (tmp_path / "train-image.hdf5").read_bytes()
    (tmp_path / "train-image.hdf5").write_bytes(whole[: len(whole) // 2])
    state, text = state_and_text(check(tmp_path, dataset("isic_2024")), "train-image.hdf5")
    assert state is State.BROKEN
    assert text.startswith("cannot be read (")
    assert "truncated file" in text
    (tmp_path / "train-image.hdf5").write_bytes(b"a picture")
    assert check(tmp_path, dataset("isic_2024")).exit_code == 2
    (tmp_path / "train-image.hdf5").unlink()
    assert check(tmp_path, dataset("isic_2024")).layout.name == "Kaggle, single pictures"


def test_a_layout_that_no_reader_takes_is_not_called_readable(tmp_path):
    for one in dataset("isic_2024").layouts[2].tables:
        table(tmp_path / one.names[0], one.columns, [])
    checked = check(tmp_path)
    assert (checked.entry.name, checked.exit_code) == ("isic_2024", 2)
    state, text = state_and_text(checked, "layout")
    assert (state, text) == (State.BROKEN, "'ISIC', which no reader supports")


def test_an_npz_is_measured_without_unpacking_it(tmp_path):
    lengths = dataset("dermamnist").layouts[0].arrays.lengths
    small = {name: np.zeros((length, 1), dtype=np.uint8) for name, length in lengths.items()}
    np.savez(tmp_path / "dermamnist_64.npz", **small)
    checked = check(tmp_path)
    assert (checked.entry.name, checked.exit_code) == ("dermamnist", 0)
    np.savez(tmp_path / "dermamnist_64.npz", **(small | {"test_images": np.zeros((5, 1), dtype=np.uint8)}))
    assert state_and_text(check(tmp_path), "dermamnist_64.npz: test_images") == (
        State.INCOMPLETE,
        "5: 2,000 missing",
    )
    np.savez_compressed(tmp_path / "dermamnist_64.npz", **small)
    said = (tmp_path / "dermamnist_64.npz").read_bytes()
    turned = said[:60] + bytes(byte ^ 255 for byte in said[60:120]) + said[120:]
    for damaged in (b"no arrays", said[:-100], turned):
        (tmp_path / "dermamnist_64.npz").write_bytes(damaged)
        assert check(tmp_path).exit_code == 2


def test_photographs_are_told_from_masks_where_the_layout_does(tmp_path, picture):
    (tmp_path / "PH2_dataset.txt").write_text("|| Name || Histological Diagnosis ||\n")
    for name in ("IMD002_Dermoscopic_Image/IMD002.bmp", "IMD002_lesion/IMD002_lesion.bmp"):
        picture(tmp_path / "PH2 Dataset images" / "IMD002" / name)
    checked = check(tmp_path)
    assert checked.entry.name == "ph2"
    assert state_and_text(checked, "pictures") == (State.INCOMPLETE, "1: 199 missing")


def test_a_deep_look_opens_bmp_pictures_as_the_reader_does(tmp_path):
    (tmp_path / "PH2_dataset.txt").write_text("|| Name || Histological Diagnosis ||\n")
    for number in (2, 3):
        folder = tmp_path / f"IMD00{number}" / f"IMD00{number}_Dermoscopic_Image"
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 48), (180, 120, 90)).save(folder / f"IMD00{number}.bmp")
    assert state_and_text(check(tmp_path, deep=True), "pictures that can") == (State.OK, "2")
    cut = (folder / "IMD003.bmp").read_bytes()
    (folder / "IMD003.bmp").write_bytes(cut[: len(cut) // 2])
    state, text = state_and_text(check(tmp_path, deep=True), "pictures that can")
    assert (state, text[:10]) == (State.INCOMPLETE, "1 of 2 can")


@pytest.mark.parametrize(
    "entry", [entry for entry in datasets() if entry.layouts[0].tables], ids=lambda one: one.name
)
def test_each_layout_is_recognised_by_its_own_tables(tmp_path, entry):
    for one in entry.layouts[0].tables:
        if one.required:
            table(tmp_path / one.names[0], one.columns or ("any",), [])
    if entry.layouts[0].arrays:
        (tmp_path / entry.layouts[0].arrays.names[0]).write_bytes(b"")
    assert check(tmp_path, None if entry.layouts[0].arrays is None else entry).entry.name == entry.name


def test_a_folder_that_is_no_dataset_is_said_to_be_none(tmp_path):
    with pytest.raises(DataError, match="found none; name the dataset with --as"):
        check(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        check(tmp_path / "nowhere")


def test_the_command_prints_rows_that_a_program_can_cut(ham, capsys):
    assert main(["datasets", "check", str(ham)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["what", "expected", "found", "state"]
    assert ["table HAM10000_metadata.csv", "10,015 rows", "3 rows: 10,012 missing", "incomplete"] in [
        line.split("\t") for line in lines
    ]
    assert main(["datasets", "check", str(ham), "--as", "ham1000"]) == 2
    assert "did you mean 'ham10000'?" in capsys.readouterr().err


def test_a_name_with_brackets_is_printed_in_a_terminal_as_it_is(ham, capsys, monkeypatch):
    monkeypatch.setattr(command, "console", Console(force_terminal=True, width=200, color_system=None))
    named = ham / "old [" / "new] [bold]" / "HAM10000_metadata.csv"
    named.parent.mkdir(parents=True)
    (ham / named.name).rename(named)
    assert main(["datasets", "check", str(ham)]) == 1
    assert str(named.relative_to(ham)) in capsys.readouterr().out


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "name", "there", "published", "code"),
    [("ham10000", "ham10000", 8013, 10015, 1), ("pad_ufes_20", "pad_ufes_20", 426, 2298, 1)],
)
def test_the_subsets_at_hand_are_said_to_be_subsets(data_root, folder, name, there, published, code):
    checked = check(data_root / folder)
    assert (checked.entry.name, checked.exit_code) == (name, code)
    assert state_and_text(checked, "table") == (
        State.INCOMPLETE,
        f"{there:,} rows: {published - there:,} missing",
    )
    assert state_and_text(checked, "pictures named") == (State.OK, f"{there:,}")
    assert state_and_text(checked, "the dataset")[1] == f"{there:,}: {published - there:,} missing"


@pytest.mark.data
def test_a_whole_copy_is_said_to_be_whole(data_root, capsys):
    assert main(["datasets", "check", str(data_root / "dermamnist_28")]) == 0
    assert "whole." in capsys.readouterr().out


@pytest.mark.data
def test_every_picture_of_a_real_copy_can_be_opened(data_root):
    assert state_and_text(check(data_root / "pad_ufes_20", deep=True), "pictures that can") == (
        State.OK,
        "426",
    )


def test_of_an_own_table_a_picture_of_the_same_name_elsewhere_is_not_the_one(tmp_path, picture):
    names = ["anna/1.jpg", r"ben\1.jpg", "cléo/2.jpg"]  # the last as two characters on the disk
    table(tmp_path / "cases.csv", ("image", "needs_in_person"), [(name, "1") for name in names])
    for seed, name in enumerate(("anna/1.jpg", "cle\u0301o/2.jpg", "other/3.jpg")):
        picture(tmp_path / name, seed)
    checked = check(tmp_path, dataset("folder"))
    assert checked.exit_code == 1
    state, found = state_and_text(checked, "pictures named")
    assert (state, found) == (State.INCOMPLETE, r"2: 1 missing, such as ben\1.jpg")
    assert state_and_text(checked, "other pictures") == (State.NOTE, "1, which no table names")


def test_the_catalogue_for_programs_is_the_catalogue(capsys):
    assert main(["datasets", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == [one.name for one in datasets()]
