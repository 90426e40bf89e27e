from __future__ import annotations

import json
import resource
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import features

import tiny_bundle as tiny
from lesion_triage import cli
from lesion_triage.backlog.shards import Shards
from lesion_triage.errors import BacklogError

SIX = "case_id,image\n" + "".join(f"{letter},below.png\n" for letter in "abcdef")


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "cases").iterdir())}


def test_the_same_command_again_does_nothing_over(table, score, tmp_path, capsys):
    cases = table(SIX)
    score(cases, "--part-cases", "2")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cases").iterdir()}
    assert score(cases, "--part-cases", "2") == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cases").iterdir()} == before
    assert "6 cases are already done" in capsys.readouterr().out


def test_a_part_that_is_missing_cut_short_or_of_another_run_is_scored_again(table, score, tmp_path):
    cases = table(SIX)
    out = tmp_path / "out"
    score(cases, "--part-cases", "2")
    whole = files_of(out)
    part = [out / "cases" / name for name in whole]
    part[0].unlink()
    part[1].write_bytes(part[1].read_bytes()[:-9])
    part[2].write_bytes(whole[part[1].name])
    foreign = pq.read_table(part[2])
    pq.write_table(foreign.replace_schema_metadata({b"lesion_triage.run": b"0" * 64}), part[2])
    assert score(cases, "--part-cases", "2") == 0
    assert files_of(out) == whole


def spoilt_lists(whole):
    """By what happened to it: the frozen list of six cases in parts of two."""
    buffer = pa.BufferOutputStream()
    table = pq.read_table(pa.BufferReader(whole))
    images = pa.array([["referred.png"]] * 6, table.schema.field("images").type)
    pq.write_table(table.set_column(1, "images", images), buffer, row_group_size=2)
    return {
        "empty": b"",
        "cut short": whole[:-100],
        "flipped": whole[:200] + bytes(20) + whole[220:],
        "other pictures": buffer.getvalue().to_pybytes(),
        "missing": None,
    }


@pytest.mark.parametrize("what", ["empty", "cut short", "flipped", "other pictures", "missing"])
def test_a_list_that_was_spoilt_since_is_not_scored(table, score, rows, tmp_path, what):
    cases, out = table(SIX), tmp_path / "out"
    score(cases, "--part-cases", "2")
    expected, listing = rows(), out / "listing.parquet"
    whole = listing.read_bytes()
    listing.unlink()
    if (spoilt := spoilt_lists(whole)[what]) is not None:
        listing.write_bytes(spoilt)
    (out / "cases" / "part-00000001.parquet").unlink()
    assert score(cases, "--part-cases", "2") == 0
    assert rows() == expected
    assert listing.read_bytes() == whole


def test_a_list_that_is_refused_leaves_the_one_that_stands(table, score, tmp_path):
    out = tmp_path / "out"
    score(table(SIX))
    before = (out / "listing.parquet").read_bytes()
    assert score(table(SIX + "g,referred.png\n")) == 2
    assert (out / "listing.parquet").read_bytes() == before
    assert not (out / ".listing.parquet.new").exists()


def test_a_list_that_names_a_case_twice_is_not_left_in_the_folder(table, score, tmp_path):
    assert score(table(SIX + "a,referred.png\n")) == 2
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == [".lock"]


def test_no_flipped_bit_of_a_part_is_read_as_other_rows(pictures, table, score, rows, tmp_path):
    score(table("case_id,image\na,referred.png\nb,below.png\nc,black.png\n"))
    expected, out = rows(), tmp_path / "out"
    (part,) = (out / "cases").iterdir()
    whole = part.read_bytes()
    refused = 0
    for place in range(0, len(whole), 61):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        opened = Shards(out)
        try:
            sound = opened.missing_parts() == [] and bool(opened.finish())
        except BacklogError:
            sound = False
        refused += not sound
        assert not sound or rows() == expected  # sound: a bit that nobody reads, as in the writer's name
    assert refused > 20


def test_rows_of_other_cases_are_not_taken_for_these(table, score, tmp_path, capsys):
    """A part file under another part's name has the right length, and belongs to the run."""
    cases = table(SIX)
    score(cases, "--part-cases", "2")
    first, second, _ = sorted((tmp_path / "out" / "cases").iterdir())
    second.write_bytes(first.read_bytes())
    assert score(cases, "--part-cases", "2") == 2
    assert "its rows are not the cases of the listing" in capsys.readouterr().err


def test_a_file_that_is_no_part_is_named(table, score, tmp_path, capsys):
    cases = table(SIX)
    score(cases)
    (tmp_path / "out" / "cases" / "part-00000009.parquet").write_bytes(b"")
    assert score(cases) == 2
    assert "part-00000009.parquet is missing or does not belong to this run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "options", "what"),
    [
        ("cases", [], "other cases"),
        ("bundle", [], "another bundle"),
        ("images", ["--images", "."], "another folder of photographs"),
        ("options", ["--with", "note"], "other options (--with, --language or --part-cases)"),
        ("options", ["--part-cases", "3"], "other options (--with, --language or --part-cases)"),
    ],
)
def test_a_folder_takes_one_backlog_by_one_bundle(
    table, score, tmp_path, capsys, bundle, change, options, what
):
    cases = table(SIX)
    score(cases)
    before = files_of(tmp_path / "out")
    if change == "cases":
        table(SIX + "g,referred.png\n")
    words = [str(bundle if change != "bundle" else tiny.make(tmp_path / "other", threshold=0.4).folder)]
    words += ["--cases", str(cases), "--out", str(tmp_path / "out"), *options]
    capsys.readouterr()
    assert cli.main(["score-batch", *words]) == 2
    assert f"out: was started with {what};" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == before


@pytest.mark.parametrize("library", ["jpg", "libjpeg_turbo", "webp", "littlecms2"])
def test_a_folder_takes_one_version_of_each_decoder(table, score, capsys, monkeypatch, library):
    cases, here = table(SIX), features.version
    score(cases)
    monkeypatch.setattr(features, "version", lambda name: "99" if name == library else here(name))
    assert score(cases) == 2
    assert "another version of lesion-triage, onnxruntime, Pillow or a library" in capsys.readouterr().err


def test_a_folder_of_an_older_format_is_not_continued(table, score, tmp_path, capsys):
    cases = table(SIX)
    score(cases)
    begun = tmp_path / "out" / "run.json"
    begun.write_text(json.dumps({**json.loads(begun.read_text()), "format": 1}))
    before = files_of(tmp_path / "out")
    assert score(cases) == 2
    assert "was not written by this release of score-batch; name another folder" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == before


def test_a_folder_with_other_files_is_left_alone(table, score, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert score(table(SIX)) == 2
    assert "holds other files and no results of score-batch" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_folder_that_another_process_writes_to_is_left_alone(table, score, tmp_path, capsys):
    cases = table(SIX)
    score(cases)
    code = (
        "import fcntl, sys; stream = open(sys.argv[1]); fcntl.flock(stream, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out" / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"held\n"
    assert score(cases) == 2
    assert "another process is scoring into it" in capsys.readouterr().err
    holder.communicate()
    assert score(cases) == 0


def test_a_full_disk_costs_one_sentence_and_what_is_written_stays(table, bundle, tmp_path):
    """A limit on the length of files stands in for the disk: the system call fails in the same way."""
    cases = table("case_id,image\n" + "".join(f"{number},below.png\n" for number in range(300)))
    out = tmp_path / "out"
    words = ["score-batch", str(bundle), "--cases", str(cases), "--out", str(out), "--part-cases", "100"]
    assert cli.main(words) == 0
    whole = files_of(out)
    sorted((out / "cases").iterdir())[1].unlink()
    (out / "summary.json").unlink()

    def short_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4500, 4500))

    code = (
        "import signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from lesion_triage import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    run = subprocess.run(
        [sys.executable, "-B", "-c", code, *words],
        check=False,
        preexec_fn=short_files,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert "out: the disk is full; what is written is kept, and the same command continues" in run.stderr
    assert len(files_of(out)) == 2
    assert cli.main(words) == 0
    assert files_of(out) == whole


def test_what_cannot_be_written_is_not_said_to_want_room(table, score, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".lock").touch()
    (out / "cases").write_text("no folder")
    assert score(table(SIX)) == 2
    error = capsys.readouterr().err
    assert "out: cannot be written (File exists); what is written is kept" in error
    assert "room" not in error


def test_a_list_that_cannot_be_read_is_named_and_the_folder_is_not_blamed(table, score, tmp_path):
    score(table(SIX), "--part-cases", "2")
    listing = tmp_path / "out" / "listing.parquet"
    opened, whole = Shards(tmp_path / "out").listing(), listing.read_bytes()
    listing.write_bytes(bytes(len(whole)))
    for read in (Shards(tmp_path / "out").listing, lambda: list(opened.cases(1)), lambda: opened.case_ids(1)):
        with pytest.raises(BacklogError, match=r"listing.parquet: cannot be read .* writes it again"):
            read()


def test_a_disk_of_photographs_that_went_away_stops_the_run(pictures, table, score, rows, tmp_path, capsys):
    cases = table(SIX)
    pictures_elsewhere = tmp_path / "elsewhere"
    photographs = pictures / "below.png"
    data = photographs.read_bytes()
    photographs.rename(pictures_elsewhere)
    assert score(cases, "--part-cases", "2") == 2
    assert "none of 2 consecutive cases, from number 1 on, has photographs" in capsys.readouterr().err
    assert files_of(tmp_path / "out") == {}
    photographs.write_bytes(data)
    assert score(cases, "--part-cases", "2") == 0
    assert {row["disposition"] for row in rows()} == {"below_threshold"}


def test_a_few_unreadable_cases_at_the_end_do_not_stop_the_run(table, score, rows):
    assert score(table("case_id,image\na,below.png\nb,below.png\nc,gone.png\n"), "--part-cases", "2") == 1
    assert [row["error_code"] for row in rows()] == [None, None, "image_not_readable"]


@pytest.mark.parametrize(("good", "gone", "part"), [(0, 1, 2000), (0, 3, 2000), (110, 100, 110)])
def test_a_last_part_without_a_photograph_stops_the_run_if_it_tells_of_a_disk(
    table, score, capsys, good, gone, part
):
    images = ["below.png"] * good + ["gone.png"] * gone
    lines = [f"{number},{image}\n" for number, image in enumerate(images)]
    assert score(table("case_id,image\n" + "".join(lines)), "--part-cases", str(part)) == 2
    assert f"none of {gone} consecutive cases, from number {good + 1} on" in capsys.readouterr().err


def test_photographs_that_could_not_be_read_are_read_when_they_are_back(pictures, table, score, rows):
    cases = table("case_id,image\na,below.png\nb,late.png\nc,below.png\n")
    assert score(cases, "--part-cases", "1", "--accept-unreadable") == 1
    assert [row["error_code"] for row in rows()] == [None, "image_not_readable", None]
    (pictures / "late.png").write_bytes(tiny.picture_bytes("referred"))
    assert score(cases, "--part-cases", "1") == 1
    assert score(cases, "--part-cases", "1", "--retry-unreadable") == 0
    assert [row["disposition"] for row in rows()][1] == "needs_in_person"


def test_the_summary_counts_what_stands_in_the_rows(pictures, table, score, rows, tmp_path):
    (pictures / "bad.png").write_bytes(b"")
    score(table("case_id,image\na,referred.png\nb,below.png\nc,black.png\nd,bad.png\ne,below.png\n"))
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["dispositions"] == {
        "below_threshold": 2,
        "needs_in_person": 1,
        "not_scored": 1,
        "ungradable": 1,
    }
    assert summary["errors"] == {"image_empty": 1}
    assert sum(summary["priority_bands"].values()) == 4
    assert summary["cases"] == len(rows()) == 5
