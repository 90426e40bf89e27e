from __future__ import annotations

import json
import time
import tracemalloc
from collections import Counter
from unicodedata import normalize

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny_bundle as tiny
from lesion_triage import cli
from lesion_triage.backlog.listing import freeze
from lesion_triage.backlog.photographs import detect_source, file_bytes, read_photographs
from lesion_triage.bundle.history import History
from lesion_triage.bundle.red_flags import NUMBER_FIELDS, YES_NO_FIELDS


def kept(rows):
    """What the rows say, whatever place the photographs came from."""
    return [{name: cell for name, cell in row.items() if name != "position"} for row in rows]


def test_a_table_gives_the_same_rows_as_csv_as_parquet_and_with_its_bytes(
    pictures, table, score, rows, tmp_path
):
    text = "case_id,image,bleeding,age_years\n1,referred.png,yes,61\n1,black.png,,\n2,below.png,no,7.5\n"
    score(table(text))
    from_csv = rows()

    frame = pd.DataFrame(
        {
            "case_id": [1, 1, 2],
            "image": ["referred.png", "black.png", "below.png"],
            "bleeding": [True, None, False],
            "age_years": [61, None, 7.5],
        }
    )
    frame.to_parquet(pictures / "cases.parquet")
    (tmp_path / "out").rename(tmp_path / "csv")
    score(pictures / "cases.parquet")
    assert rows() == from_csv

    frame["image_bytes"] = [(pictures / name).read_bytes() for name in frame.pop("image")]
    frame.to_parquet(tmp_path / "bytes.parquet")
    (tmp_path / "out").rename(tmp_path / "parquet")
    score(tmp_path / "bytes.parquet")
    assert rows() == from_csv


def test_a_parquet_file_is_told_by_its_ending_however_that_is_written(score, tmp_path, capsys):
    frame = pd.DataFrame({"case_id": ["a", ""], "image": ["referred.png", "below.png"]})
    frame.to_parquet(tmp_path / "CASES.PARQUET")
    assert score(tmp_path / "CASES.PARQUET") == 2
    assert "CASES.PARQUET, row 2: case_id is empty." in capsys.readouterr().err


@pytest.mark.parametrize(("told", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_path_is_found_as_windows_and_other_disks_spell_it(
    pictures, table, score, rows, tmp_path, told, stored
):
    (pictures / normalize(stored, "M\u00fcller")).mkdir()
    for kind in ("referred", "below"):
        name = normalize(stored, f"M\u00fcller/t\u00eate {kind}.png")
        (pictures / name).write_bytes((pictures / f"{kind}.png").read_bytes())
    names = [normalize(told, f"M\u00fcller\\t\u00eate {kind}.png") for kind in ("referred", "below")]
    assert score(table("case_id,image\n" + "".join(f"{n},{name}\n" for n, name in enumerate(names)))) == 0
    found = kept(rows())
    (tmp_path / "out").rename(tmp_path / "accents")
    score(table("case_id,image\n0,referred.png\n1,below.png\n"))
    assert found == kept(rows())


def test_one_photograph_under_two_spellings_of_its_name_is_one(pictures, table, score, capsys):
    names = [normalize(form, "t\u00eate.png") for form in ("NFC", "NFD")]
    (pictures / names[1]).write_bytes((pictures / "below.png").read_bytes())
    text = "case_id,image\n" + "".join(f"a,{name}\n" for name in names)
    assert score(table(text)) == 2
    assert "line 3: its case already has this photograph;" in capsys.readouterr().err


def test_two_photographs_whose_names_differ_by_their_spelling_alone_are_two(
    pictures, table, score, rows, tmp_path
):
    names = [normalize(form, "t\u00eate.png") for form in ("NFC", "NFD")]
    for name, kind in zip(names, ("below", "referred"), strict=True):
        (pictures / name).write_bytes((pictures / f"{kind}.png").read_bytes())
    if (pictures / names[0]).samefile(pictures / names[1]):
        pytest.skip("ONE SPELLING: this disk takes both names for one")
    assert score(table("case_id,image\n" + "".join(f"a,{name}\n" for name in names))) == 0
    assert [row["photographs"] for row in rows()] == [2]


@pytest.mark.parametrize("word", ["unknown", "nan", "-", "?", "not available", "N/A"])
@pytest.mark.parametrize("field", ["sex", "anatom_site_general", "fitzpatrick_skin_type"])
def test_a_group_of_which_only_is_said_that_it_is_not_known_is_not_said(tmp_path, field, word):
    told = json.dumps({field: word, "bleeding": True}).replace('"', '""')
    tables = {
        "column": f"case_id,image,{field},bleeding\na,a.png,{word},yes\n",
        "json": f'case_id,image,history\na,a.png,"{told}"\n',
    }
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
        (photograph,) = read_photographs(detect_source(tmp_path / f"{name}.csv", None, None), Counter())
        assert json.loads(photograph.history) == {"bleeding": True}


@pytest.mark.parametrize("field", History.model_fields)
def test_a_single_history_column_is_read_whatever_holds_it(tmp_path, field):
    answer = True if field in YES_NO_FIELDS else 61.0 if field in NUMBER_FIELDS else "male"
    columns = {"case_id": ["a"], "image": ["a.png"], field: [answer]}
    with_bytes = {"case_id": ["a"], "image_bytes": [b"a photograph"], field: [answer]}
    (tmp_path / "cases.csv").write_text(f"case_id,image,{field}\na,a.png,{answer}\n")
    pq.write_table(pa.table(columns), tmp_path / "paths.parquet")
    pq.write_table(pa.table(with_bytes), tmp_path / "bytes.parquet")
    for name in ("cases.csv", "paths.parquet", "bytes.parquet"):
        (photograph,) = read_photographs(detect_source(tmp_path / name, None, None), Counter())
        assert json.loads(photograph.history) == {field: answer}


def test_a_history_may_be_one_column_of_json(table, score, rows, tmp_path):
    history = json.dumps({"bleeding": True, "age_years": 61}).replace('"', '""')
    score(table(f'case_id,image,history\na,below.png,"{history}"\nb,below.png,\n'))
    listing = pq.read_table(tmp_path / "out" / "listing.parquet")
    told = [json.loads(cell) if cell else {} for cell in listing["history"].to_pylist()]
    assert told == [{"bleeding": True, "age_years": 61.0}, {}]


def test_a_yes_about_one_photograph_is_a_yes_about_the_case(table, score, tmp_path):
    score(table("case_id,image,bleeding\na,below.png,no\na,black.png,yes\na,referred.png,\n"))
    listing = pq.read_table(tmp_path / "out" / "listing.parquet")
    assert json.loads(listing["history"][0].as_py()) == {"bleeding": True}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected the column case_id and one of image and image_bytes, found no header."),
        ("case_id;image\na;b.png\n", "expected commas between the columns, found ';'; save it with commas."),
        ("case_id\timage\na\tb.png\n", r"expected commas between the columns, found '\t'"),
        ("image\na.png\n", "expected the column case_id and one of image and image_bytes, found image."),
        ("case_id\na\n", "expected the column case_id and one of image and image_bytes, found case_id."),
        ("case_id,image\n", "expected at least one photograph, found none."),
        ("case_id,image,bleding\na,b.png,\n", "unknown column 'bleding'; did you mean 'bleeding'?"),
        ("case_id,image,visit_date\na,b.png,\n", "'visit_date'; remove it if it is none of these: case_id"),
        ("case_id,image,image\na,b.png,b.png\n", "column 'image' appears twice; keep one."),
        ("case_id,image,history,fever\na,b.png,,\n", "the history is in both 'history' and 'fever'"),
        ("case_id,image\n,b.png\n", "line 2: case_id is empty."),
        ("case_id,image\na,b.png\nNaN,c.png\n", "line 3: case_id is 'NaN', which in tables means unknown"),
        ("case_id,image\na,b.png\n?,c.png\n", "line 3: case_id is '?', which in tables means unknown"),
        (
            'case_id,image,history\na,b.png,"{""sex"": ""unknown"", ""sex"": ""male""}"\n',
            "line 2: history: sex: the field appears twice; keep one.",
        ),
        ("case_id,image,history\na,b.png,[1]\n", "line 2: history: "),
        ("case_id,image\na,\n", "line 2: image is empty; expected the path of a photograph."),
        ("case_id,image\na,b.png,c\n", "line 2: more or fewer cells than the header has."),
        ("case_id,image\na,../b.png\n", "line 2: the path in image leaves "),
        ("case_id,image\na,..\\b.png\n", "line 2: the path in image leaves "),
        ("case_id,image\na,C:\\b.png\n", "line 2: the path in image leaves "),
        ("case_id,image\na,\\\\host\\b.png\n", "line 2: the path in image leaves "),
        ("case_id,image\na,/etc/passwd\n", "line 2: the path in image leaves "),
        ("case_id,image,fever\na,b.png,perhaps\n", "line 2: fever cannot be read; expected true, yes, 1"),
        ("case_id,image,age_years\na,b.png,1_0\n", "line 2: age_years: expected a number."),
        ("case_id,image,age_years\na,b.png,121\n", "line 2: age_years: Input should be less"),
        ("case_id,image,history\na,b.png,{}x\n", "line 2: history: "),
        (
            'case_id,image,history\na,b.png,"{""fever"": true, ""fever"": false}"\n',
            "line 2: history: fever: the field appears twice; keep one.",
        ),
        (f"case_id,image,history\na,b.png,{'[' * 100_000}\n", "line 2: history: "),
        ("case_id,image\na,b.png\nc,d.png\na,e.png\n", "line 4: the case_id of line 2 appears again;"),
        ("case_id,image\na,b.png\na,b.png\n", "line 3: its case already has this photograph;"),
        (
            "case_id,image,age_years\na,b.png,39\na,c.png,\na,d.png,41\n",
            "line 4: an earlier line of its case has another age_years",
        ),
        (
            "case_id,image,sex\na,b.png,male\na,c.png,unknown\na,d.png,female\n",
            "line 4: an earlier line of its case has another sex",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_place_and_reason(
    table, score, tmp_path, capsys, text, sentence
):
    assert score(table(text)) == 2
    error = capsys.readouterr().err
    assert error.startswith("BacklogError: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out" / "run.json").exists()


def test_no_sentence_repeats_a_name(table, score, capsys):
    for row in ("Jane Doe,../Jane Doe.png", "Jane Doe,below.png\nx,below.png\nJane Doe,black.png"):
        assert score(table(f"case_id,image\n{row}\n")) == 2
        assert "Jane" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"case_id": [1.5], "image": ["a.png"]}, "column 'case_id' has the type double"),
        ({"case_id": ["a"], "image": [1]}, "column 'image' has the type int64"),
        ({"case_id": ["a"], "image_bytes": ["text"]}, "column 'image_bytes' has the type string"),
        ({"case_id": ["a"], "image_bytes": pa.array([None], pa.binary())}, "row 1: image_bytes is empty."),
        ({"case_id": [None, "b"], "image": ["a.png", "b.png"]}, "row 1: case_id is empty."),
        (
            {"case_id": ["a"], "image": ["a.png"], "age_years": [float("nan")]},
            "row 1: age_years: expected a number",
        ),
        (
            {"case_id": ["a"], "image": ["a.png"], "age_years": [130]},
            "row 1: age_years: Input should be less",
        ),
    ],
)
def test_a_parquet_file_that_cannot_be_used_is_refused(tmp_path, score, capsys, columns, sentence):
    pq.write_table(pa.table(columns), tmp_path / "cases.parquet")
    assert score(tmp_path / "cases.parquet") == 2
    assert sentence in capsys.readouterr().err


def test_what_is_no_parquet_file_is_refused(tmp_path, score, capsys):
    (tmp_path / "cases.parquet").write_bytes(b"PAR1 and no more")
    assert score(tmp_path / "cases.parquet") == 2
    assert "cannot be read as a parquet file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("nowhere.csv", [], "expected a CSV file, a parquet file or a folder here, found nothing."),
        ("table.xlsx", [], "expected a name that ends in .csv or .parquet, or a folder."),
        ("folder", [], "say with --case-is what one case is in it"),
        ("folder", ["--case-is", "picture", "--images", "."], "--images is for tables"),
        ("table.csv", ["--case-is", "picture"], "--case-is is for folders"),
    ],
)
def test_what_is_to_be_scored_must_be_said_plainly(tmp_path, score, capsys, name, options, sentence):
    (tmp_path / "folder").mkdir()
    for file in ("table.xlsx", "table.csv"):
        (tmp_path / file).write_text("case_id,image\n")
    assert score(tmp_path / name, *options) == 2
    assert sentence in capsys.readouterr().err


def test_an_absolute_path_below_the_folder_of_the_images_is_taken(pictures, table, score, rows):
    cases = table(f"case_id,image\na,{pictures / 'below.png'}\n")
    assert score(cases, "--images", "/") == 0
    assert rows()[0]["disposition"] == "below_threshold"


def test_an_absolute_path_may_name_the_folder_of_the_images_by_a_link(pictures, table, score, rows, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(pictures)
    cases = table(f"case_id,image\na,{link / 'below.png'}\nb,{pictures / 'referred.png'}\n")
    assert score(cases, "--images", str(link)) == 0
    assert [row["disposition"] for row in rows()] == ["below_threshold", "needs_in_person"]


@pytest.fixture
def folders(tmp_path):
    """Two sub-folders with pictures, one of them with a sub-folder of its own and with other files."""
    root = tmp_path / "folders"
    for path in ("b/2.png", "b/10.png", "a/x.PNG", "a/deep/y.heic", "a/notes.txt", "a/.hidden.png"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(tiny.picture_bytes("below"))
    return root


def test_each_picture_of_a_folder_is_a_case_if_that_is_said(folders, score, rows, capsys):
    assert score(folders, "--case-is", "picture") == 0
    assert [row["case_id"] for row in rows()] == ["a/x.PNG", "a/deep/y.heic", "b/10.png", "b/2.png"]
    assert "left out 1: .txt" in capsys.readouterr().out


def test_each_folder_of_pictures_is_a_case_if_that_is_said(folders, score, rows):
    assert score(folders, "--case-is", "folder") == 0
    assert [(row["case_id"], row["photographs"]) for row in rows()] == [("a", 1), ("a/deep", 1), ("b", 2)]


def test_a_folder_whose_photographs_are_missing_is_counted(folders, score, rows, capsys):
    """A case whose photographs were not copied would vanish from the queue."""
    for name in ("empty", "letters", "b/thumbnails"):
        (folders / name).mkdir()
    (folders / "letters" / "referral.pdf").write_bytes(b"%PDF")
    (folders / "letters" / ".hidden.png").write_bytes(tiny.picture_bytes("below"))
    assert score(folders, "--case-is", "folder") == 0
    assert [row["case_id"] for row in rows()] == ["a", "a/deep", "b"]
    assert "left out 3: folder without a photograph" in capsys.readouterr().out


def test_results_among_the_pictures_are_refused(folders, bundle, capsys):
    """They would be taken for photographs, and no interrupted run could be continued."""
    for out in (folders, folders / "out", folders / ".." / "folders" / "a"):
        words = ["score-batch", str(bundle), "--cases", str(folders), "--case-is", "picture"]
        assert cli.main([*words, "--out", str(out)]) == 2
        assert "is in the folder of the pictures" in capsys.readouterr().err
        assert not (out / ".lock").exists()


def test_pictures_beside_the_folders_of_cases_belong_to_none(folders, score, capsys):
    (folders / "loose.png").write_bytes(tiny.picture_bytes("below"))
    assert score(folders, "--case-is", "folder") == 2
    assert "found pictures beside the sub-folders" in capsys.readouterr().err


def test_a_file_that_may_be_a_photograph_is_never_left_out_of_its_case(folders, score, rows):
    """Its case would be judged by the others, and could only seem less urgent."""
    (folders / "b" / "11.tiff").write_bytes(b"II*\x00 of a kind that is not read")
    assert score(folders, "--case-is", "folder") == 1
    assert [row["error_code"] for row in rows()] == [None, None, "image_format_not_supported"]


def test_files_are_read_from_any_row_of_a_table_in_groups_of_any_length(tmp_path):
    files = [bytes([number]) * 10 for number in range(100)]
    for group in (1, 7, 40, 100):
        path = tmp_path / f"{group}.parquet"
        pq.write_table(pa.table({"image_bytes": files}), path, row_group_size=group)
        for first in (1, 2, 39, 41, 100):
            assert list(file_bytes(path, first)) == files[first - 1 :]
        assert list(file_bytes(path, 5, 3)) == files[4:7]


def test_a_long_group_of_photographs_is_read_page_by_page(tmp_path):
    noise = np.random.default_rng(0).bytes(30_000)
    files = [noise[number % 1000 :] for number in range(4000)]  # 118 MB in one group
    path = tmp_path / "long.parquet"
    table = pa.table({"case_id": [str(number) for number in range(4000)], "image_bytes": files})
    pq.write_table(table, path, use_dictionary=False)
    del table, files
    before = pa.total_allocated_bytes()
    most = 0
    for _ in read_photographs(detect_source(path, None, None), Counter()):
        most = max(most, pa.total_allocated_bytes() - before)
    assert pq.read_metadata(path).num_row_groups == 1
    assert most < 70e6  # a page has 1024 rows, and is there packed and unpacked


def test_memory_does_not_grow_with_the_table(tmp_path):
    most = []
    for count in (4_000, 40_000):
        path = tmp_path / "long.csv"
        lines = (f"{number},{number}.png\n" for number in range(count))
        path.write_text("case_id,image\n" + "".join(lines))
        tracemalloc.start()
        assert sum(1 for _ in read_photographs(detect_source(path, None, None), Counter())) == count
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < most[0] + 500_000


def test_a_case_of_six_times_the_photographs_is_not_listed_in_thirty_times_the_time(tmp_path):
    def seconds(count):
        lines = (f"a,a/folder/of/photographs/IMG_{number:08d}.png\n" for number in range(count))
        (tmp_path / "cases.csv").write_text("case_id,image\n" + "".join(lines))
        source = detect_source(tmp_path / "cases.csv", None, None)
        began = time.process_time()
        assert freeze(source, tmp_path / "listing.parquet", 100).photographs == count
        return time.process_time() - began

    seconds(10)  # the first pays for what is loaded
    assert min(seconds(24_000), seconds(24_000)) < 15 * max(seconds(4_000), seconds(4_000))
