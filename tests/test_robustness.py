from __future__ import annotations

import re

import pytest

from evaluated_runs import make_run
from lesion_triage import console
from lesion_triage.cli import main


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_scored(tmp_path, capsys):
    in_the_way = tmp_path / "a file"
    in_the_way.touch()
    # The run is not there either, and would be missed next: the folder is what is asked for first.
    assert main(["robustness", str(tmp_path / "no run"), "--out", str(in_the_way / "out")]) == 2
    assert re.search("--out .* cannot be made", capsys.readouterr().err)


@pytest.mark.parametrize(("option", "least"), [("--seed", 0), ("--others", 1)])
@pytest.mark.parametrize("value", ["-1", "1.5", "some"])
def test_a_number_that_nothing_can_be_drawn_with_is_refused_before_the_test_split_is_opened(
    tmp_path, capsys, option, least, value
):
    with pytest.raises(SystemExit) as stopped:
        main(["robustness", str(tmp_path / "no run"), "--out", str(tmp_path / "out"), f"{option}={value}"])
    assert stopped.value.code == 2
    assert f"{option}: expected a whole number from {least} up, found '{value}'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_photograph_that_cannot_be_shown_is_told_before_minutes_of_corruptions(
    tmp_path, capsys, monkeypatch
):
    """A folder of something else is not cleaned by anyone, and nothing is written after such an error."""
    monkeypatch.setattr(console, "_LINE_EVERY_SECONDS", 0.0)  # every step of the progress is a line
    run = make_run(tmp_path / "run", cases=20)
    other = tmp_path / "other"
    (other / "album.jpg").mkdir(parents=True)  # a folder is no photograph, whatever its name
    (other / "1.jpg").write_bytes(b"no picture")
    command = ["robustness", str(run), "--out", str(tmp_path / "out"), "--show", f"cats={other}"]
    assert main([*command, "--severities", "1"]) == 2
    said = capsys.readouterr()
    assert "1.jpg: The file is not a JPEG, PNG or WEBP picture" in said.err
    assert "corrupting" not in said.out


def test_a_name_that_would_break_the_table_is_refused(tmp_path, capsys):
    for name in ("cats|dogs", "cats\ndogs"):
        command = ["robustness", str(tmp_path / "no run"), "--out", str(tmp_path / "out")]
        assert main([*command, "--show", f"{name}={tmp_path}"]) == 2
        assert "the name is a cell of a table" in capsys.readouterr().err


def test_two_folders_of_one_name_are_refused_and_none_is_left_out(tmp_path, capsys):
    shown = []
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").touch()
        shown += ["--show", f"skin={tmp_path / folder}"]
    assert main(["robustness", str(tmp_path / "no run"), "--out", str(tmp_path / "out"), *shown]) == 2
    assert re.search("--show 'skin=.*second': 'skin' was given twice", capsys.readouterr().err)
