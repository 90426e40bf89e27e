from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lesion_triage import config_file, runs
from lesion_triage.bundle.files import temporary_path
from lesion_triage.config import Config
from lesion_triage.errors import RunError


def config(**values) -> Config:
    return Config.model_validate({"name": "try", "data": {"source": "synthetic"}, **values})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def done(run: runs.Run, stage: str = "manifest", inputs: str = "in") -> None:
    (run.folder / "manifest.csv").write_text("rows")
    (run.folder / "report").mkdir(exist_ok=True)
    (run.folder / "report" / "index.html").write_text("page")
    run.record_stage(stage, inputs, ["manifest.csv", "report"], 1.0)


def test_the_same_configuration_comes_back_to_its_folder(root):
    first = runs.find_or_make(config(), root)
    assert runs.find_or_make(config(), root).folder == first.folder
    assert runs.find_or_make(config(seed=1), root).folder != first.folder


PLACES = {
    "data": {
        "source": "mixture",
        "root": "pics",
        "mixture": [{"source": "ddi", "root": "faces"}, {"source": "ham10000"}],
    },
    "model": {"weights": "first.safetensors"},
}


def test_the_frozen_configuration_leads_to_the_data_from_whatever_folder_it_is_read_in(
    root, tmp_path, monkeypatch
):
    """Its reader takes a relative place for one beside the file."""
    monkeypatch.chdir(tmp_path)
    told = config(**PLACES)
    folder = runs.make(told, root).folder
    for _ in range(2):  # as it was made, and as it was found again
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "elsewhere")
        read = config_file.load(folder / runs.FROZEN_CONFIG)
        assert read.data.folders == {"ddi": tmp_path / "faces", "ham10000": tmp_path / "pics" / "ham10000"}
        assert read.model.weights == str(tmp_path / "first.safetensors")
        assert read.identity_sha256() == told.identity_sha256() == runs.config_identity(folder)
        monkeypatch.chdir(tmp_path)
        assert runs.find_or_make(told, root).folder == folder


def test_two_runs_begun_in_the_same_second_have_two_folders(root):
    assert runs.make(config(), root).folder != runs.make(config(), root).folder


SEEK = """
import sys
from pathlib import Path
from lesion_triage import runs
from lesion_triage.config import Config

print("ready", flush=True)
sys.stdin.readline()
for seed in range(25):
    config = Config.model_validate({"name": "try", "seed": seed, "data": {"source": "synthetic"}})
    print(runs.find_or_make(config, Path(sys.argv[1])).folder)
"""


def test_two_processes_that_ask_for_one_configuration_at_once_are_given_one_folder(root):
    command = [sys.executable, "-c", SEEK, str(root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    seekers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for seeker in seekers:
        assert seeker.stdout.readline() == "ready\n"
    for seeker in seekers:
        seeker.stdin.write("go\n")
        seeker.stdin.flush()
    here, there = (
        [word for word in seeker.communicate(timeout=120)[0].split() if word.startswith(str(root))]
        for seeker in seekers
    )  # without what is said by whoever waits for the other
    assert here == there
    assert len(set(here)) == 25


def test_a_run_that_is_outdated_stays_and_the_next_one_is_found_from_then_on(root):
    first = runs.find_or_make(config(), root)
    second = runs.find_or_make(config(), root, lambda run: run.folder == first.folder)
    assert second.folder != first.folder
    assert first.folder.is_dir()
    assert runs.find_or_make(config(), root).folder == second.folder


@pytest.mark.parametrize("begin", [runs.make, runs.find_or_make])
def test_a_folder_of_runs_that_cannot_be_made_is_one_sentence(tmp_path, begin):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(RunError, match="no run can be started in it"):
        begin(config(), tmp_path / "file" / "runs")


def test_a_name_that_continues_another_is_another_run(root):
    longer = runs.make(config().model_copy(update={"name": "try-2"}), root)
    assert list(runs.other_runs(runs.make(config(), root))) == []
    assert longer.folder.exists()


def test_a_stage_holds_only_with_its_record_its_inputs_and_its_files(root):
    run = runs.make(config(), root)
    assert not run.is_up_to_date("manifest", "in")
    done(run)
    assert run.is_up_to_date("manifest", "in")
    assert not run.is_up_to_date("manifest", "other")
    (run.folder / "report" / "index.html").write_text("changed")
    assert not run.is_up_to_date("manifest", "in")


def test_a_missing_output_is_a_stage_to_repeat(root):
    run = runs.make(config(), root)
    done(run)
    (run.folder / "manifest.csv").unlink()
    assert not run.is_up_to_date("manifest", "in")


def test_a_finished_stage_is_taken_over_whole(root):
    old, new = runs.make(config(), root), runs.make(config(seed=1), root)
    done(old)
    new.reuse_stage("manifest", old)
    assert new.is_up_to_date("manifest", "in")
    assert old.is_up_to_date("manifest", "in")
    assert new.record("manifest") == old.record("manifest")


def test_what_a_killed_write_left_beside_an_output_goes_with_it(root):
    run = runs.make(config(), root)
    killed = (
        "import os, pathlib, sys\n"
        "from lesion_triage.bundle.files import write_atomically\n"
        "os.fsync = lambda handle: os._exit(9)\n"
        "write_atomically(pathlib.Path(sys.argv[1]) / 'model.onnx', b'graph')\n"
    )
    assert subprocess.run([sys.executable, "-c", killed, str(run.folder)], check=False).returncode == 9
    temporary_path(run.folder / "bundle").mkdir()
    (run.folder / ".model.onnx.notes").write_text("somebody's own")
    kept = {"config.yaml", "config.sha256", ".model.onnx.notes"}
    assert len({path.name for path in run.folder.iterdir()} - kept) == 2
    run.clear(["model.onnx", "bundle"])
    assert {path.name for path in run.folder.iterdir()} == kept


def test_what_is_taken_over_is_a_copy(root):
    old, new = runs.make(config(), root), runs.make(config(seed=1), root)
    done(old)
    new.reuse_stage("manifest", old)
    (new.folder / "manifest.csv").write_text("altered")
    assert old.is_up_to_date("manifest", "in")


def test_a_damaged_record_is_an_error_and_not_a_repeat(root):
    run = runs.make(config(), root)
    done(run)
    (run.folder / "stages" / "manifest.json").write_text('{"inputs_sha256": ')
    with pytest.raises(RunError, match=r"'manifest' is damaged .* remove it to do the stage again"):
        run.is_up_to_date("manifest", "in")


def test_time_does_not_change_what_was_made(root):
    run = runs.make(config(), root)
    done(run)
    first = run.record("manifest")
    run.record_stage("manifest", "in", ["manifest.csv", "report"], 99.0)
    again = run.record("manifest")
    assert first is not None
    assert again is not None
    assert first.sha256() == again.sha256()


def test_the_fingerprint_of_a_folder_sees_additions_and_changes(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    first = runs.tree_fingerprint(tmp_path)
    assert runs.tree_fingerprint(tmp_path) == first
    (tmp_path / "b").write_text("")
    second = runs.tree_fingerprint(tmp_path)
    (tmp_path / "sub" / "a").write_text("22")
    assert len({first, second, runs.tree_fingerprint(tmp_path)}) == 3


def test_a_picture_behind_a_link_to_a_folder_is_watched(tmp_path):
    disk, root = tmp_path / "disk" / "deep", tmp_path / "root"
    disk.mkdir(parents=True)
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "disk")
    (disk / "a.jpg").write_bytes(b"cut")
    first = runs.tree_fingerprint(root)
    (disk / "a.jpg").write_bytes(b"repaired")
    second = runs.tree_fingerprint(root)
    assert len({first, second}) == 2
    assert runs.tree_fingerprint(root) == second


def test_a_folder_that_was_moved_whole_is_still_the_same(tmp_path):
    (tmp_path / "here" / "v1").mkdir(parents=True)
    (tmp_path / "here" / "v1" / "a.jpg").write_bytes(b"a")
    (tmp_path / "here" / "images").symlink_to("v1")
    first = runs.tree_fingerprint(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert runs.tree_fingerprint(tmp_path / "there") == first


def test_a_link_that_leads_to_another_version_of_the_folder_is_a_change(tmp_path):
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.jpg").write_text(version)
    (tmp_path / "images").symlink_to("v1")
    first = runs.tree_fingerprint(tmp_path)
    (tmp_path / "images").unlink()
    (tmp_path / "images").symlink_to("v2")
    assert runs.tree_fingerprint(tmp_path) != first


def test_a_link_to_a_folder_above_is_no_endless_road(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.jpg").write_bytes(b"a")
    (root / "sub" / "up").symlink_to(tmp_path)
    first = runs.tree_fingerprint(root)
    (root / "sub" / "a.jpg").write_bytes(b"other")
    assert runs.tree_fingerprint(root) != first


def test_a_link_to_a_folder_around_the_data_is_not_followed_and_its_change_is_one(tmp_path):
    root = tmp_path / "project" / "data"
    root.mkdir(parents=True)
    (root / "a.jpg").write_bytes(b"a")
    (root / "up").symlink_to("..")
    first = runs.tree_fingerprint(root)
    (tmp_path / "project" / "runs").mkdir()
    (tmp_path / "project" / "runs" / "log").write_text("what a command writes")
    assert runs.tree_fingerprint(root) == first
    (root / "up").unlink()
    (root / "up").symlink_to("../..")
    assert runs.tree_fingerprint(root) != first


def test_a_link_that_leads_nowhere_is_absent_until_its_file_comes(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.jpg").symlink_to(tmp_path / "a.jpg")
    first = runs.tree_fingerprint(root)
    assert runs.tree_fingerprint(root) == first
    (tmp_path / "a.jpg").write_bytes(b"a")
    assert runs.tree_fingerprint(root) != first


def test_a_name_that_is_no_unicode_is_a_name(tmp_path):
    first = runs.tree_fingerprint(tmp_path)
    (tmp_path / "l\udce4sion.jpg").write_bytes(b"a")  # as latin-1 file names are read
    assert runs.tree_fingerprint(tmp_path) != first


def test_an_opening_that_cannot_be_written_down_is_one_sentence_and_leaves_no_half_of_a_line(root, full_disk):
    run = runs.make(config(), root)
    runs.record_test_opening(run.folder, "1" * 64)
    path = run.folder / "test_openings.jsonl"
    before = path.read_bytes()
    with full_disk(len(before) + 20), pytest.raises(RunError, match="it was not opened"):
        runs.record_test_opening(run.folder, "2" * 64, "transfer")
    assert path.read_bytes() == before
