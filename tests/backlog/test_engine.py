from __future__ import annotations

import signal
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

import tiny_bundle as tiny
from lesion_triage import cli

CASES = 240


@pytest.fixture
def backlog(tmp_path):
    """Four kinds of pictures under many names."""
    root = tmp_path / "backlog"
    root.mkdir()
    kinds = ("referred", "below", "black", "unfamiliar")
    for kind in kinds:
        (tmp_path / f"{kind}.png").write_bytes(tiny.picture_bytes(kind))
    for number in range(CASES):
        (root / f"{number:04d}.png").hardlink_to(tmp_path / f"{kinds[number % 7 % 4]}.png")
    return root


def command(bundle, backlog, out, *options):
    words = [str(bundle), "--cases", str(backlog), "--case-is", "picture", "--out", str(out)]
    return ["score-batch", *words, "--part-cases", "20", *options]


def parts_of(out):
    return {path.name: path.read_bytes() for path in sorted((out / "cases").glob("part-*"))}


# As a power cut would, at the worst moment: a file is whole under its temporary name and not yet renamed.
KILLED = """
import os, signal, sys
left = int(sys.argv.pop(1))
def hook(event, arguments):
    global left
    if event == "os.rename":
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from lesion_triage import cli
cli.main(sys.argv[1:])
"""


def test_kills_lose_and_double_nothing(bundle, backlog, tmp_path):
    """The first comes before the list is in its place, the second before it is said what it belongs to.

    The list is put in its place by each command, and what it belongs to is said once.
    """
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert cli.main(command(bundle, backlog, undisturbed)) == 0
    words = command(bundle, backlog, killed)
    for renames, parts in ((1, 0), (2, 0), (6, 3), (9, 10)):
        run = subprocess.run(
            [sys.executable, "-B", "-c", KILLED, str(renames), *words], check=False, stdout=subprocess.DEVNULL
        )
        assert run.returncode == -signal.SIGKILL
        assert len(parts_of(killed)) == parts
        assert not (killed / "summary.json").exists()
    assert cli.main(words) == 0
    assert parts_of(killed) == parts_of(undisturbed)
    table = pq.read_table(killed / "cases")
    assert table["case_id"].to_pylist() == [f"{number:04d}.png" for number in range(CASES)]
    assert [path.name for path in (killed / "cases").iterdir() if path.name.startswith(".")] == []


def test_a_kill_while_the_list_is_read_leaves_nothing_in_the_way(bundle, backlog, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "cases").mkdir(parents=True)
    (out / ".lock").touch()
    (out / ".listing.parquet.new").write_bytes(b"half")
    assert cli.main(command(bundle, backlog, out)) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "cases",
        "listing.parquet",
        "run.json",
        "summary.json",
    ]


def test_rows_do_not_depend_on_the_number_of_threads(bundle, backlog, tmp_path):
    for threads in ("1", "5"):
        assert cli.main(command(bundle, backlog, tmp_path / threads, "--threads", threads)) == 0
    assert parts_of(tmp_path / "1") == parts_of(tmp_path / "5")


def test_what_is_scored_is_what_was_listed(bundle, backlog, tmp_path):
    """A picture that comes while the backlog is scored is not half in it; the next command says so."""
    out = tmp_path / "out"
    assert cli.main(command(bundle, backlog, out)) == 0
    (backlog / "new.png").write_bytes(tiny.picture_bytes("referred"))
    assert cli.main(command(bundle, backlog, out)) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--threads", "0"], "whole numbers of at least 1"),
        (["--part-cases", "0"], "whole numbers of at least 1"),
        (["--address", "127.0.0.1:6379"], "give --engine ray with it"),
        (["--engine", "ray", "--threads", "2"], "--threads is for --engine local"),
    ],
)
def test_options_that_contradict_each_other_are_refused(bundle, backlog, tmp_path, capsys, options, sentence):
    assert cli.main(command(bundle, backlog, tmp_path / "out", *options)) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_neither_torch_nor_ray_is_imported_to_score_on_one_machine(bundle, backlog, tmp_path):
    code = (
        "import sys; from lesion_triage import cli; status = cli.main(sys.argv[1:]); "
        "print([m for m in ('torch', 'timm', 'mlflow', 'sklearn', 'ray') if m in sys.modules]); "
        "sys.exit(status)"
    )
    words = command(bundle, backlog, tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
