from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest

from lesion_triage.bundle.pixels import decode
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.data.sources import folder
from lesion_triage.errors import DataError, ImageError

Dataset = Callable[..., Path]


def test_two_columns_are_enough(dataset: Dataset) -> None:
    listing = folder.read(dataset([{"image": "a.png", "needs_in_person": "true"}]), "cases.csv")
    (record,) = listing.records
    assert (record.image_id, record.path, record.needs_in_person) == ("a.png", "a.png", True)
    assert record.source == "folder"


@pytest.mark.parametrize(
    ("cell", "truth"),
    [
        ("true", True),
        ("TRUE", True),
        ("yes", True),
        ("1", True),
        ("false", False),
        ("No", False),
        ("0", False),
        ("1.0", True),
        ("0.0", False),
        ("", None),
        ("  ", None),
    ],
)
def test_a_label_has_few_spellings_and_nothing_means_unknown(
    dataset: Dataset, cell: str, truth: bool | None
) -> None:
    (record,) = folder.read(dataset([{"image": "a.png", "needs_in_person": cell}]), "cases.csv").records
    assert record.needs_in_person is truth


@pytest.mark.parametrize("cell", ["maybe", "2", "0.5", "1.5", "None", "unknown"])
def test_any_other_label_is_refused(dataset: Dataset, cell: str) -> None:
    with pytest.raises(DataError, match="line 2: needs_in_person cannot be read"):
        folder.read(dataset([{"image": "a.png", "needs_in_person": cell}]), "cases.csv")


def test_empty_rows_that_a_spreadsheet_leaves_are_counted_with_their_lines(tmp_path: Path) -> None:
    table = "image,needs_in_person,sex\na.png,1,\n, ,\nb.png,0,\n,,\n,,\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    listing = folder.read(tmp_path, "cases.csv")
    assert [record.image_id for record in listing.records] == ["a.png", "b.png"]
    assert listing.dropped == {"an empty row of the table": ("line 3", "line 5", "line 6")}
    assert folder.line_numbers(tmp_path, "cases.csv") == {"a.png": 2, "b.png": 4}


def test_a_bmp_file_is_left_out_and_counted_because_the_server_refuses_it(dataset: Dataset) -> None:
    names = ("a.png", "b.bmp", "c.BMP")
    root = dataset([{"image": name, "needs_in_person": "1"} for name in names])
    listing = folder.read(root, "cases.csv")
    assert [record.image_id for record in listing.records] == ["a.png"]
    assert [record.image_id for record in listing.refused[folder.BMP]] == ["b.bmp", "c.BMP"]
    with pytest.raises(ImageError) as caught:
        decode((root / "b.bmp").read_bytes(), PixelSpec(size_px=32))
    assert caught.value.code == "image_format_not_supported"


def test_a_picture_without_a_lesion_is_a_lesion_of_its_own_and_reported(dataset: Dataset) -> None:
    rows = [
        {"image": "a.png", "needs_in_person": "1", "lesion_id": "b.png"},
        {"image": "b.png", "needs_in_person": "0", "lesion_id": ""},
    ]
    listing = folder.read(dataset(rows), "cases.csv")
    assert len({record.lesion_id for record in listing.records}) == 2
    assert list(listing.findings.values()) == [("b.png",)]


def test_the_lesion_is_the_case_and_the_patient_the_unit_where_known(dataset: Dataset) -> None:
    rows = [{"image": "a.png", "needs_in_person": "1", "lesion_id": "l", "patient_id": "p"}]
    record = folder.read(dataset(rows), "cases.csv").records[0]
    assert (record.case_id, record.unit_id) == ("l", "p")


def test_an_unknown_column_is_refused_with_the_nearest_known_one(dataset: Dataset) -> None:
    rows = [{"image": "a.png", "needs_in_person": "1", "leison_id": "l"}]
    with pytest.raises(DataError, match=r"unknown column 'leison_id'; did you mean 'lesion_id'\?"):
        folder.read(dataset(rows), "cases.csv")


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("image,needs_in_person,age", "unknown column 'age'; did you mean 'age_approx'?"),
        ("image,label", "unknown column 'label'; did you mean 'needs_in_person'?"),
        ("Image,needs_in_person", "unknown column 'Image'; did you mean 'image'?"),
        ("image,needs_in_person,gender", "unknown column 'gender'; did you mean 'sex'?"),
        ("image,needs_in_person,bleding", "did you mean 'bleeding'? If not, remove it."),
        ("image,needs_in_person,visit_date", "'visit_date'; remove it if it is none of these: image, needs"),
        (
            "image,needs_in_person,comment",
            "unknown column 'comment'; remove it if it is none of these: image",
        ),
        ("image,needs_in_person,age_approx,age", "'age'; 'age_approx' is already there, so remove one."),
    ],
)
def test_a_column_that_is_there_already_is_not_what_was_meant(
    tmp_path: Path, header: str, sentence: str
) -> None:
    (tmp_path / "cases.csv").write_text(f"{header}\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        folder.read(tmp_path, "cases.csv")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("image\na.png\n", "found no 'needs_in_person'"),
        ("needs_in_person\n1\n", "found no 'image'"),
        ("", "found no 'image'"),
        ("image,needs_in_person,sex,sex\na.png,1,f,f\n", "column 'sex' appears twice"),
        ("image,needs_in_person\na.png\n", "line 2: more or fewer cells"),
        ("image,needs_in_person\na.png,1,2\n", "line 2: more or fewer cells"),
        ("image,needs_in_person\n,1\n", "line 2: the image cell is empty"),
        ("image,needs_in_person,age_approx\na.png,1,inf\n", "line 2: age_approx is not a number of years"),
        ("image,needs_in_person,age_approx\na.png,1,-3\n", "line 2: age_approx is not a number of years"),
        ('image,needs_in_person\n"a.png,1\n', "line 2: cannot be read as a UTF-8 table"),
        ('image,needs_in_person\na.png,1\n"b" c.png,1\nd.png,1\n', "line 3: cannot be read as a UTF-8 table"),
    ],
)
def test_a_broken_table_is_refused_in_one_sentence(tmp_path: Path, table: str, sentence: str) -> None:
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=sentence):
        folder.read(tmp_path, "cases.csv")


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "the table is in UTF-16"), ("latin-1", "0xe4")])
def test_a_table_in_another_encoding_is_refused(tmp_path: Path, encoding: str, said: str) -> None:
    (tmp_path / "cases.csv").write_bytes("image,needs_in_person\nä.png,1\n".encode(encoding))
    with pytest.raises(
        DataError, match=f"expected UTF-8, found something else .*{said}.*save it as 'CSV UTF-8'"
    ):
        folder.read(tmp_path, "cases.csv")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_one_row_of_thousands_in_another_encoding_is_named_by_its_line(tmp_path: Path, end: str) -> None:
    rows = [b"image,needs_in_person", *(b"%d.png,1" % number for number in range(9_000))]
    rows[7_000] = "Fu\N{LATIN SMALL LETTER SHARP S}.png,1".encode("cp1252")
    (tmp_path / "cases.csv").write_bytes(end.encode().join(rows))
    with pytest.raises(DataError, match=r"line 7001 has the byte 0xdf"):
        folder.read(tmp_path, "cases.csv")


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("sep=,\nimage,needs_in_person\na.png,1\n", "the first line names the separator"),
        ("sep=;\nimage;needs_in_person\na.png;1\n", "the first line names the separator"),
        ("image;needs_in_person\na.png;1\n", "the table is separated by semicolons; save it with commas."),
        ("image\tneeds_in_person\na.png\t1\n", "the table is separated by tabs; save it with commas."),
        (
            "image,needs_in_person,\na.png,1,\n",
            "column 3 of 3 has no name; name it, or remove it (the header",
        ),
        ("image,,needs_in_person\na.png,,1\n", "column 2 of 3 has no name; name it, or remove it."),
        ("image,needs_in_person\na.png,1,\n", "line 2: more or fewer cells than the header: it ends with"),
        (
            'image,needs_in_person,attribution\na.png,1,"Ada\rByron"\n',
            "line 3: the attribution holds a carriage",
        ),
    ],
)
def test_what_a_spreadsheet_makes_of_a_table_is_named(tmp_path: Path, table: str, sentence: str) -> None:
    (tmp_path / "cases.csv").write_bytes(table.encode())
    with pytest.raises(DataError) as caught:
        folder.read(tmp_path, "cases.csv")
    assert f"cases.csv: {sentence}" in str(caught.value) or f"cases.csv, {sentence}" in str(caught.value)


def test_a_spreadsheet_s_byte_order_mark_is_no_column(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("image,needs_in_person\na.png,1\n", encoding="utf-8-sig")
    assert folder.read(tmp_path, "cases.csv").records[0].image_id == "a.png"


def test_a_missing_table_says_where_it_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cases\.csv: expected the table"):
        folder.read(tmp_path, "cases.csv")


@pytest.mark.parametrize("path", ["../a.png", "x/../../a.png", "/etc/a.png", "C:\\a.png", "\\\\host\\a.png"])
def test_a_path_outside_the_root_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "cases.csv").write_text(f"image,needs_in_person\n{path},1\n", encoding="utf-8")
    with pytest.raises(DataError, match="leaves the data root"):
        folder.read(tmp_path, "cases.csv")


def test_one_file_has_one_spelling(tmp_path: Path) -> None:
    table = "image,needs_in_person\n./x//a.png,1\nx\\a.png,1\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=r"line 3: has the image of line 2 again"):
        folder.read(tmp_path, "cases.csv")


@pytest.mark.parametrize(("told", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_with_accents_is_found_however_the_disk_composes_them(
    tmp_path: Path, picture: Callable[..., None], told: str, stored: str
) -> None:
    name = "Rücken/tête.png"
    picture(tmp_path / normalize(stored, name))
    table = f"image,needs_in_person\n{normalize(told, name)},1\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    (record,) = folder.read(tmp_path, "cases.csv").records
    assert record.image_id == normalize(told, name)
    assert (tmp_path / record.path).is_file()


def test_a_name_that_two_files_could_bear_is_left_to_be_missing(
    tmp_path: Path, picture: Callable[..., None]
) -> None:
    both = normalize("NFC", "é") + normalize("NFD", "é")
    for form in ("NFC", "NFD"):
        picture(tmp_path / normalize(form, f"{both}.png"))
    (tmp_path / "cases.csv").write_text(f"image,needs_in_person\n{both}.png,1\n", encoding="utf-8")
    (record,) = folder.read(tmp_path, "cases.csv").records
    assert record.path == f"{both}.png"


def test_a_name_longer_than_a_disk_takes_is_left_to_be_missing(tmp_path: Path) -> None:
    name = "\u00e9" * 130 + ".png"  # two bytes each, of 255
    (tmp_path / "cases.csv").write_text(f"image,needs_in_person\n{name},1\n", encoding="utf-8")
    (record,) = folder.read(tmp_path, "cases.csv").records
    assert record.path == name


def test_a_picture_that_stands_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    table = "image,needs_in_person\na.png,1\nb.png,0\na.png,0\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=r"cases\.csv, line 4: has the image of line 2 again"):
        folder.read(tmp_path, "cases.csv")


@pytest.mark.parametrize("column", ["sex", "anatom_site_general", "fitzpatrick_skin_type"])
@pytest.mark.parametrize("word", ["arm; left", "??", "-arm", "[unknown]", "x" * 61])
def test_a_word_that_no_platform_can_send_is_refused_with_its_line(
    tmp_path: Path, column: str, word: str
) -> None:
    table = f"image,needs_in_person,{column}\na.png,1,\nb.png,0,{word}\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        folder.read(tmp_path, "cases.csv")
    assert f"cases.csv, line 3: {column} is no word that a platform can send" in str(caught.value)


FILLERS = ["nan", "NaN", "NA", "n/a", "null", "None", "unk", "unknown", "<NA>", "#N/A"]
FILLERS += ["NaT", "-", "--", "?", "N.A.", "missing", "not available", "not recorded"]


@pytest.mark.parametrize("column", ["sex", "anatom_site_general", "fitzpatrick_skin_type"])
@pytest.mark.parametrize("word", FILLERS)
def test_a_group_of_which_a_cell_only_says_that_it_is_not_known_is_not_said(
    tmp_path: Path, column: str, word: str
) -> None:
    table = f"image,needs_in_person,{column}\na.png,1, {word} \n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    (record,) = folder.read(tmp_path, "cases.csv").records
    assert getattr(record, column) == ""


@pytest.mark.parametrize("column", ["lesion_id", "patient_id"])
@pytest.mark.parametrize("word", FILLERS)
def test_a_word_that_fills_an_empty_cell_joins_no_strangers(tmp_path: Path, column: str, word: str) -> None:
    table = f"image,needs_in_person,{column}\na.png,1,\nb.png,0, {word} \n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        folder.read(tmp_path, "cases.csv")
    assert f"line 3: {column} is '{word}', which in tables means unknown" in str(caught.value)


@pytest.mark.parametrize("column", ["lesion_id", "patient_id"])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12", "12.0"),
        ("007", "7"),
        ("P1", "p1"),
        ("A  1", "A 1"),
        (normalize("NFC", "Jos\u00e9-1"), normalize("NFD", "Jos\u00e9-1")),
    ],
)
def test_two_spellings_of_one_name_do_not_become_two_people(
    tmp_path: Path, column: str, one: str, other: str
) -> None:
    table = f"image,needs_in_person,{column}\na.png,1,{one}\nb.png,0,x\nc.png,0,{other}\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        folder.read(tmp_path, "cases.csv")
    assert f"line 4: {column} is probably that of line 2, spelt in another way" in str(caught.value)


def test_names_that_differ_are_kept_as_they_are(tmp_path: Path) -> None:
    names = ["1", "10", "100", "1.1", "1.10", "1-0", "0", "7.0", "P1", "P01", "P10", "1e5"]
    rows = "".join(f"{n}.png,1,{name}\n" for n, name in enumerate(names))
    (tmp_path / "cases.csv").write_text(f"image,needs_in_person,lesion_id\n{rows}", encoding="utf-8")
    assert [record.lesion_id for record in folder.read(tmp_path, "cases.csv").records] == names


@pytest.mark.parametrize("column", ["lesion_id", "patient_id"])
@pytest.mark.parametrize(
    "word", ["1.23457E+11", '"1,23457E+11"', "1e+05", "########", "#VALUE!", "#NAME?", "#DIV/0!"]
)
def test_what_a_spreadsheet_writes_for_any_long_number_joins_no_strangers(
    tmp_path: Path, column: str, word: str
) -> None:
    table = f"image,needs_in_person,{column}\na.png,1,{word}\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        folder.read(tmp_path, "cases.csv")
    assert f"line 2: {column} is what a spreadsheet writes in place of a long number" in str(caught.value)


@pytest.mark.parametrize("word", ["Nan-1", "0", "none of these", "Naomi"])
def test_a_name_that_only_begins_like_such_a_word_is_one(tmp_path: Path, word: str) -> None:
    table = f"image,needs_in_person,lesion_id\na.png,1,{word}\n"
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    assert folder.read(tmp_path, "cases.csv").records[0].lesion_id == word


@pytest.mark.parametrize("word", ["Rücken", "head/neck", "III-IV", "背", "arm, left (upper)"])
def test_a_word_of_any_language_is_kept(tmp_path: Path, word: str) -> None:
    table = f'image,needs_in_person,anatom_site_general\na.png,1,"{word}"\n'
    (tmp_path / "cases.csv").write_text(table, encoding="utf-8")
    assert folder.read(tmp_path, "cases.csv").records[0].anatom_site_general == word


def test_stated_licences_become_the_citation(dataset: Dataset) -> None:
    rows = [
        {
            "image": f"{name}.png",
            "needs_in_person": "1",
            "attribution": "Clinic X",
            "copyright_license": "CC0",
        }
        for name in "ab"
    ]
    assert folder.read(dataset(rows), "cases.csv").citation == ("Clinic X; CC0",)
