from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import tracemalloc
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tiny_bundle as tiny
from lesion_triage import cli
from lesion_triage.backlog.listing import Case, Listing, freeze
from lesion_triage.backlog.photographs import detect_source
from lesion_triage.backlog.rows import COLUMNS, EXTRA_COLUMNS, RowBuilder
from lesion_triage.bundle.red_flags import RedFlags
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from lesion_triage.errors import BacklogError

PAGE = Path(__file__).parents[2] / "docs/scoring-a-backlog.md"
ALL = "case_id,image\na,referred.png\nb,below.png\nc,black.png\nd,unfamiliar.png\n"


def test_numbers_are_those_of_the_scorer_to_the_last_bit(bundle, pictures, table, score, rows):
    assert score(table(ALL)) == 0
    scorer = Scorer.open(bundle)
    kinds = ("referred", "below", "black", "unfamiliar")
    for kind, row in zip(kinds, rows(), strict=True):
        answer = scorer.score([(pictures / f"{kind}.png").read_bytes()])
        assert row["disposition"] == answer.disposition
        assert row["priority_band"] == answer.priority_band
        assert row["score"] == answer.score
        assert row["threshold"] == answer.threshold
        assert row["reasons"] == [reason.code for reason in answer.reasons]
        unusable = [image for image in answer.images if not image.gradable]
        assert row["unusable_images"] == [
            {"index": image.index, "reasons": [reason.code for reason in image.reasons]} for image in unusable
        ]
        assert row["error_code"] is None
        assert row["certificate_id"] == answer.certificate_id
        assert row["bundle_sha256"] == answer.bundle_sha256
        assert row["synthetic"] is True


def test_numbers_are_those_that_score_prints(bundle, pictures, table, score, rows, capsys):
    score(table(ALL))
    capsys.readouterr()
    for row, image in zip(rows(), ("referred", "below", "black", "unfamiliar"), strict=True):
        assert cli.main(["score", str(bundle), str(pictures / f"{image}.png")]) == 0
        answer = json.loads(capsys.readouterr().out)["answer"]
        assert [row[name] for name in ("disposition", "priority_band", "score", "threshold")] == [
            answer[name] for name in ("disposition", "priority_band", "score", "threshold")
        ]


def test_neighbouring_rows_of_one_case_are_one_case_and_the_highest_logit_counts(table, score, rows):
    score(table("case_id,image\na,below.png\na,referred.png\na,black.png\nb,referred.png\n"))
    first, second = rows()
    assert (first["case_id"], first["photographs"]) == ("a", 3)
    assert first["disposition"] == "needs_in_person"
    assert first["score"] == second["score"]
    assert first["unusable_images"] == [{"index": 2, "reasons": ["image_too_dark"]}]


def test_a_red_flag_of_the_history_refers_and_is_named(tmp_path, pictures, table, rows):
    condition = {"field": "bleeding", "is": True}
    flag = {"code": "bleeding", "when": condition, "action": {"refer": True}, "source": "a test"}
    flags = RedFlags.model_validate({"flags": [flag]})
    flagged = tiny.make(tmp_path / "flagged", red_flags=flags).folder
    cases = table("case_id,image,bleeding\na,below.png,yes\nb,below.png,no\nc,below.png,\n")
    out = str(tmp_path / "out")
    assert cli.main(["score-batch", str(flagged), "--cases", str(cases), "--out", out]) == 0
    assert [row["red_flags"] for row in rows()] == [["bleeding"], [], []]
    assert [row["disposition"] for row in rows()] == ["needs_in_person", "below_threshold", "below_threshold"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "image_not_readable"),
        (b"", "image_empty"),
        (b"dear colleague", "image_format_not_supported"),
        (b"\xff\xd8\xff\xe0 and no more", "image_not_decodable"),
    ],
)
def test_a_photograph_that_cannot_be_used_makes_an_error_row_and_never_a_disposition(
    pictures, table, score, rows, capsys, content, code
):
    if content is not None:
        (pictures / "bad.jpg").write_bytes(content)
    cases = table("case_id,image\na,below.png\na,bad.jpg\nb,below.png\n")
    assert score(cases) == 1
    bad, good = rows()
    assert (bad["disposition"], bad["error_code"], bad["error_image"]) == ("not_scored", code, 1)
    assert [bad[name] for name in ("score", "priority_band", "threshold", "reasons")] == [None] * 4
    assert good["disposition"] == "below_threshold"
    assert f"1 not_scored ({code}: 1)" in capsys.readouterr().out


def test_a_case_of_which_the_graph_gives_no_number_is_an_error_row_and_the_others_are_scored(
    tmp_path, table, rows, capsys
):
    broken = tiny.make_with_nan_logit(tmp_path / "broken").folder
    cases = table("case_id,image\na,below.png\nb,black.png\nc,black.png\nc,below.png\n")
    assert cli.main(["score-batch", str(broken), "--cases", str(cases), "--out", str(tmp_path / "out")]) == 1
    first, second, third = rows()
    for row in (first, third):
        assert (row["disposition"], row["error_code"], row["error_image"]) == (
            "not_scored",
            "scoring_failed",
            None,
        )
        assert [row[name] for name in ("score", "priority_band", "threshold", "reasons")] == [None] * 4
    assert (second["disposition"], second["error_code"]) == ("ungradable", None)
    assert "2 not_scored (scoring_failed: 2)" in capsys.readouterr().out


def test_pipes_folders_and_very_long_files_are_not_read(bundle, pictures, table, score, rows):
    os.mkfifo(pictures / "pipe.png")
    (pictures / "folder.png").mkdir()
    with (pictures / "long.png").open("wb") as stream:
        stream.truncate(10**12)  # sparse
    cases = table("case_id,image\na,pipe.png\nb,folder.png\nc,long.png\nd,below.png\n")
    assert score(cases) == 1
    codes = [row["error_code"] for row in rows()]
    assert codes == ["image_not_readable", "image_not_readable", "image_too_large", None]


def test_too_many_photographs_are_an_error_of_the_case(pictures, table, score, rows):
    lines = []
    for number in range(17):
        (pictures / f"{number}.png").write_bytes(tiny.picture_bytes("below"))
        lines.append(f"a,{number}.png")
    score(table("case_id,image\n" + "\n".join(lines) + "\nb,below.png\n"))
    assert [row["error_code"] for row in rows()] == ["too_many_images", None]


def parquet_of(path, photographs):
    """One case of these photographs and another of a good one, in groups of four rows."""
    files = [*photographs, tiny.picture_bytes("below")]
    ids = ["a"] * len(photographs) + ["b"]
    table = pa.table({"case_id": ids, "image_bytes": files})
    pq.write_table(table, path, use_dictionary=False, row_group_size=4)
    return path


def test_photographs_of_a_case_that_has_too_many_are_not_kept(tmp_path, score, rows):
    noise = np.random.default_rng(0).bytes(1_000_000)
    cases = parquet_of(tmp_path / "cases.parquet", [bytes([n]) + noise for n in range(120)])
    tracemalloc.start()
    assert score(cases, "--threads", "1") == 1
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row["error_code"] for row in rows()] == ["too_many_images", None]
    assert most < 60e6


def test_of_a_photograph_that_is_too_long_no_more_is_kept_than_shows_it(bundle, tmp_path):
    cases = parquet_of(tmp_path / "cases.parquet", [b"x" * 5000, b"y" * 4999])
    source = detect_source(cases, None, None)
    freeze(source, tmp_path / "listing.parquet", 10)
    listing = Listing(tmp_path / "listing.parquet", 10, source.images, cases)
    first, second = listing.cases(0)
    assert listing.file_bytes(first, 4999) == [b"x" * 5000, b"y" * 4999]
    assert listing.file_bytes(first, 100) == [b"x" * 101, b"y" * 101]
    listing.skip_photographs(first)
    assert listing.file_bytes(second, 30_000) == [tiny.picture_bytes("below")]


def test_a_table_of_photographs_that_broke_meanwhile_is_named(tmp_path):
    cases = parquet_of(tmp_path / "cases.parquet", [bytes([n]) * 5000 for n in range(40)])
    freeze(detect_source(cases, None, None), tmp_path / "listing.parquet", 10)
    listing = Listing(tmp_path / "listing.parquet", 10, tmp_path, cases)
    _, last = listing.cases(0)
    whole, end = cases.read_bytes(), pq.read_metadata(cases).row_group(10).column(1).data_page_offset
    cases.write_bytes(whole[:end] + bytes(100) + whole[end + 100 :])
    with pytest.raises(BacklogError, match=r"cases.parquet: row 41 or later cannot be read"):
        listing.file_bytes(last, 10_000)


def test_photographs_of_a_table_that_was_sorted_anew_meanwhile_are_not_taken_for_another_cases(tmp_path):
    files = [tiny.picture_bytes("referred"), tiny.picture_bytes("black")]
    cases = parquet_of(tmp_path / "cases.parquet", files)
    freeze(detect_source(cases, None, None), tmp_path / "listing.parquet", 10)
    listing = Listing(tmp_path / "listing.parquet", 10, tmp_path, cases)
    first, second = listing.cases(0)
    parquet_of(cases, files[::-1])
    with pytest.raises(BacklogError, match=r"not those that this run began with"):
        listing.file_bytes(first, 10_000)
    assert len(listing.file_bytes(second, 10_000)) == 1
    pq.write_table(pq.read_table(cases).slice(0, 1), cases)
    with pytest.raises(BacklogError, match=r"not those that this run began with"):
        listing.file_bytes(second, 10_000)


def test_what_the_machine_lacks_is_no_fault_of_a_photograph(bundle, pictures):
    row_builder = RowBuilder(Scorer.open(bundle), pictures, ())
    work = (Case(0, "a", ("below.png",), (), 1, "", 1), None)
    held, (soft, hard) = [], resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        with pytest.raises(BacklogError, match=r"photographs cannot be read.*Too many open files"):
            row_builder.rows([work])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in held:
            os.close(handle)
    assert [row["disposition"] for row in row_builder.rows([work])] == ["below_threshold"]


def test_a_photograph_that_is_too_long_is_refused_from_a_table_too(bundle, tmp_path, score, rows):
    most = open_bundle(bundle).header.pixels.max_bytes
    data = tiny.picture_bytes("below")
    assert score(parquet_of(tmp_path / "cases.parquet", [data + bytes(most + 1 - len(data))])) == 1
    assert [row["error_code"] for row in rows()] == ["image_too_large", None]


def test_rows_hold_codes_and_no_words_unless_they_are_asked_for(bundle, pictures, table, score, rows):
    score(table(ALL))
    for row in rows():
        words = [value for value in row.values() if isinstance(value, str) and " " in value]
        assert words == []
        assert "note" not in row


def test_note_answer_and_evidence_are_kept_on_request(bundle, pictures, table, score, rows):
    assert score(table(ALL), "--with", "note", "--with", "answer", "--with", "images") == 0
    scorer = Scorer.open(bundle)
    for kind, row in zip(("referred", "below", "black", "unfamiliar"), rows(), strict=True):
        answer = scorer.score([(pictures / f"{kind}.png").read_bytes()])
        assert row["note"] == answer.note
        assert json.loads(row["answer"]) == answer.model_dump(mode="json")
        (image,) = row["images"]
        assert [image[name] for name in ("gradable", "logit", "score")] == [
            answer.images[0].gradable,
            answer.images[0].logit,
            answer.images[0].score,
        ]
        assert image["advice"] == [reason.code for reason in answer.images[0].advice]


@pytest.mark.parametrize("extra", ["images", "note", "answer"])
def test_what_is_kept_beside_the_codes_changes_none_of_them(extra, tmp_path, table, score, rows):
    # Without an extra the gate does not even look for what it would only advise.
    cases = table(ALL)
    score(cases)
    plain = rows()
    shutil.rmtree(tmp_path / "out")
    score(cases, "--with", extra)
    assert [{name: row[name] for name in COLUMNS.names} for row in rows()] == plain


def test_the_files_of_one_case_at_a_time_are_in_memory(bundle, tmp_path):
    count, size = 16, 2_000_000
    photograph = tiny.picture_bytes("below", "JPEG")
    for number in range(count):
        (tmp_path / f"{number}.jpg").write_bytes(photograph + bytes(size))  # what follows the end is ignored
    row_builder = RowBuilder(Scorer.open(bundle), tmp_path, ())
    works = [
        (Case(number, str(number), (f"{number}.jpg",), (), 1, "", number), None) for number in range(count)
    ]
    tracemalloc.start()
    try:
        made = row_builder.rows(works)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [row["disposition"] for row in made] == ["below_threshold"] * count
    assert most < 4 * size, f"{most / size:.1f} photographs at once"


def test_the_note_is_in_the_language_asked_for(bundle, pictures, table, score, rows):
    score(table(ALL), "--with", "note", "--language", "de")
    expected = Scorer.open(bundle).score([(pictures / "referred.png").read_bytes()], language="de").note
    assert rows()[0]["note"] == expected


def test_pyarrow_pandas_and_duckdb_read_the_folder_as_one_table(tmp_path, table, score):
    score(table(ALL), "--part-cases", "3")
    cases = tmp_path / "out" / "cases"
    assert len(list(cases.iterdir())) == 2
    ids = ["a", "b", "c", "d"]
    assert pq.read_table(cases)["case_id"].to_pylist() == ids
    assert pd.read_parquet(cases)["case_id"].tolist() == ids
    query = f"SELECT case_id, list_contains(reasons, 'no_gradable_image') FROM '{cases}/*.parquet' ORDER BY 1"
    assert duckdb.sql(query).fetchall() == [("a", False), ("b", False), ("c", True), ("d", True)]


def test_every_column_is_documented():
    page = PAGE.read_text(encoding="utf-8")
    names = [*COLUMNS.names, *EXTRA_COLUMNS]
    assert [name for name in names if f"`{name}`" not in page] == []
