"""The verb ``reproduce``: what a user does with it, and what it says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from small_experiment import CONFIG, EXPERIMENT, QUEUE, VERSION, write

from lesion_triage.cli import main
from lesion_triage.reproduce import records
from lesion_triage.reproduce.definition import Train, load_experiment
from lesion_triage.reproduce.steps import recipe_sha256


def reproduce(folder: Path, runs: Path, *more: str) -> int:
    return main(["reproduce", str(folder), "--runs", str(runs), *more])


def copy(recorded: Path, to: Path) -> Path:
    """The record and the finished runs of ``small``, to be changed."""
    shutil.copytree(recorded.parent, to, dirs_exist_ok=True)
    return to / recorded.name


def result(runs: Path, version: str = "full") -> dict:
    return json.loads((runs / f"small-{version}-reproduction" / "reproduction.json").read_text())


def test_an_experiment_done_again_elsewhere_on_this_machine_agrees_in_every_cell(recorded, tmp_path, capsys):
    folder = shutil.copytree(recorded, tmp_path / "small")
    assert reproduce(folder, tmp_path / "runs") == 0
    out = capsys.readouterr().out
    rows = result(tmp_path / "runs")["rows"]
    assert f"{len(rows)} of {len(rows)} cells agree" in out
    assert {"seed-0.bundle_content", "seed-0.all.auroc", "waits.four_bands.all.mean.relative"} <= {
        row["cell"] for row in rows
    }
    assert all(row["difference"] == 0 for row in rows if row["difference"] is not None)


@pytest.mark.parametrize("name", ["A copy: small (🔬)", "2026"])
def test_the_folder_of_an_experiment_may_have_any_name(recorded, tmp_path, name):
    folder = copy(recorded, tmp_path).rename(tmp_path / name)
    assert reproduce(folder, tmp_path / "runs") == 0
    told = [yaml.safe_load(path.read_text()) for path in (tmp_path / "runs").glob("small-*/config.yaml")]
    assert f"reproduction of {name} (full), seed 0" in [one["calibrate"]["second_look"] for one in told]
    assert name in [one["tracking"]["experiment"] for one in told]


def test_what_is_finished_is_taken_over_and_not_done_again(recorded, tmp_path, capsys):
    folder = copy(recorded, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("bundle/*")}
    capsys.readouterr()
    assert reproduce(folder, tmp_path / "runs") == 0
    out = capsys.readouterr().out
    assert out.count("train: unchanged") == 1
    assert "waits: unchanged" in out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("bundle/*")}


def test_a_cell_that_differs_is_named_with_its_difference_and_the_status_is_1(recorded, tmp_path, capsys):
    folder = copy(recorded, tmp_path)
    changed = json.loads((folder / "waits.json").read_text())
    row = next(row for row in changed["waits"] if row["statistic"] == "mean" and row["group"] == "negatives")
    row["relative"] += 0.25
    (folder / "waits.json").write_text(json.dumps(changed))
    assert reproduce(folder, tmp_path / "runs") == 1
    differing = [row for row in result(tmp_path / "runs")["rows"] if row["verdict"] == "differs"]
    assert [row["difference"] for row in differing] == [pytest.approx(-0.25)]
    assert "DIFFERS" in capsys.readouterr().out


def test_other_pictures_are_told_before_the_training(recorded, tmp_path, capsys):
    folder = copy(recorded, tmp_path)
    shutil.rmtree(tmp_path / "runs")
    other = {**CONFIG, "data": {"source": "synthetic", "synthetic": {"lesions": 240, "seed": 9}}}
    (folder / "small.yaml").write_text(yaml.safe_dump(other))
    assert reproduce(folder, tmp_path / "runs") == 2
    assert "other pictures or splits: manifest_sha256" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("checkpoint.safetensors"))


def test_on_another_machine_the_wider_tolerance_holds_and_hashes_are_not_compared(recorded, tmp_path, capsys):
    folder = copy(recorded, tmp_path)
    about = json.loads((folder / "recorded.json").read_text())
    about["machine"]["processor"] = "an abacus"
    (folder / "recorded.json").write_text(json.dumps(about))
    assert reproduce(folder, tmp_path / "runs") == 3
    rows = {row["cell"]: row for row in result(tmp_path / "runs")["rows"]}
    assert rows["seed-0.all.auroc"]["tolerance"] == 0.1
    assert rows["seed-0.bundle_content"]["verdict"] == "not compared"
    assert "instead of an abacus" in rows["seed-0.bundle_content"]["why"]
    assert "could not be compared" in capsys.readouterr().out


def test_a_record_made_with_other_settings_is_compared_like_one_of_another_machine(recorded, tmp_path):
    folder = copy(recorded, tmp_path)
    about = json.loads((folder / "recorded.json").read_text())
    (folder / "recorded.json").write_text(json.dumps({**about, "settings": ["train.precision=bf16-mixed"]}))
    assert reproduce(folder, tmp_path / "runs") == 3
    rows = {row["cell"]: row for row in result(tmp_path / "runs")["rows"]}
    assert "recorded with --set train.precision=bf16-mixed" in rows["seed-0.bundle_content"]["why"]


def test_a_record_of_another_recipe_is_compared_with_nothing(recorded, tmp_path):
    folder = copy(recorded, tmp_path)
    (folder / "small.yaml").write_text(yaml.safe_dump({**CONFIG, "evaluate": {"bootstrap_draws": 120}}))
    assert reproduce(folder, tmp_path / "runs") == 3
    rows = {row["cell"]: row for row in result(tmp_path / "runs")["rows"]}
    assert "other inputs: recipe_sha256" in rows["seed-0.all.auroc"]["why"]


def test_what_is_recorded_here_is_of_the_recipes_that_stand_here():
    """Whoever changes a configuration records its experiments again, or moves them to another one."""
    experiments = Path(__file__).parents[2] / "experiments"
    said, standing = {}, {}
    for folder in sorted(path.parent for path in experiments.glob("*/experiment.yaml")):
        definition = load_experiment(folder)
        for name, version in definition.versions().items():
            record = records.read(folder, definition, name)
            for step in (step for step in version.steps if isinstance(step, Train)):
                for seed, document in zip(step.seeds, step.documents(), strict=True):
                    recipe = record.made_from.get(document, {}).get("recipe_sha256")
                    if recipe is not None:  # records from before December 2026 do not say
                        said[folder.name, name, document] = recipe
                        standing[folder.name, name, document] = recipe_sha256(step, folder, seed)
    assert said == standing
    assert ("ham10000-best", "drawn", "seed-0") in said


def test_a_document_put_in_by_hand_is_compared_and_its_machine_is_not_known(recorded, tmp_path):
    folder = copy(recorded, tmp_path)
    text = (folder / "seed-0.json").read_text()
    (folder / "seed-0.json").write_text(json.dumps(json.loads(text)))
    assert reproduce(folder, tmp_path / "runs") == 3
    rows = {row["cell"]: row for row in result(tmp_path / "runs")["rows"]}
    assert rows["seed-0.all.auroc"]["tolerance"] == 0.1
    assert rows["seed-0.bundle_content"]["verdict"] == "not compared"


def test_nothing_recorded_is_said_and_is_no_agreement(tmp_path, capsys):
    light = {**VERSION, "steps": VERSION["steps"][1:], "table": VERSION["table"][3:]}
    folder = write(tmp_path / "small", {**EXPERIMENT, "full": light, "quick": light})
    assert reproduce(folder, tmp_path / "runs", "--no-tracking") == 3
    assert "not in the record" in capsys.readouterr().out


def test_quick_without_pictures_is_done_on_drawn_ones_and_says_so(tmp_path, capsys):
    light = {**VERSION, "steps": VERSION["steps"][1:], "table": VERSION["table"][3:]}
    real = {**light, "steps": [{"kind": "train", "name": "one", "config": "small.yaml", "data": "far"}]}
    data = [{"name": "far", "catalogue": "ham10000", "what": "pictures that nobody has"}]
    folder = write(
        tmp_path / "small",
        {"asks": EXPERIMENT["asks"], "data": data, "full": real, "quick": real, "drawn": light},
    )
    assert reproduce(folder, tmp_path / "runs", "--quick", "--record", "--no-tracking") == 0
    assert "the quick version uses DRAWN pictures" in capsys.readouterr().out
    assert (folder / "drawn" / "waits.json").is_file()
    assert reproduce(folder, tmp_path / "runs", "--no-tracking") == 2
    error = capsys.readouterr().err
    assert "far (pictures that nobody has; `lesion-triage datasets show ham10000`" in error


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"asks": "Why?"}, "asks: String should have at least 10 characters"),
        ({"step": []}, "step: Extra inputs are not permitted"),
        (
            {"quick": {**VERSION, "table": [{"cells": "*", "because": "no reason at all"}]}},
            "states no tolerance",
        ),
        (
            {"full": {**VERSION, "steps": [{"kind": "transfer", "name": "a", "bundle": "b", "config": "c"}]}},
            "needs the run 'b', which no earlier step makes",
        ),
        (
            {"full": {**VERSION, "steps": [{**VERSION["steps"][0], "data": "elsewhere"}]}},
            "needs elsewhere, which 'data' does not describe",
        ),
    ],
    ids=["short", "unknown", "nothing tolerated", "no run", "no data"],
)
def test_a_definition_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, capsys, change, sentence):
    folder = write(tmp_path / "small", {**EXPERIMENT, **change})
    assert reproduce(folder, tmp_path / "runs") == 2
    assert sentence in capsys.readouterr().err


def test_arguments_that_a_verb_refuses_are_a_sentence(tmp_path, capsys):
    step = {"kind": "queue", "name": "waits", "arguments": [*QUEUE, "--no-such-word"]}
    light = {**VERSION, "steps": [step], "table": VERSION["table"][3:]}
    folder = write(tmp_path / "small", {**EXPERIMENT, "full": light, "quick": light})
    assert reproduce(folder, tmp_path / "runs", "--no-tracking") == 2
    assert "arguments are refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    "step",
    [
        {"kind": "queue", "name": "waits", "scores": "gone.csv", "arguments": []},
        {"kind": "coverage", "name": "waits", "scores": "gone.csv", "draws": 100},
        {"kind": "script", "name": "waits", "script": "gone.py", "arguments": ["{out}"]},
    ],
)
def test_a_file_that_the_definition_names_and_that_is_gone_is_named(tmp_path, capsys, step):
    light = {**VERSION, "steps": [step], "table": VERSION["table"][3:]}
    folder = write(tmp_path / "small", {**EXPERIMENT, "full": light, "quick": light})
    assert reproduce(folder, tmp_path / "runs", "--no-tracking") == 2
    assert re.search(r"DataError: .*gone\.\w+: the definition names this file", capsys.readouterr().err)


def test_a_folder_of_runs_that_cannot_be_made_is_refused(tmp_path, capsys):
    step = {"kind": "queue", "name": "waits", "arguments": QUEUE}
    light = {**VERSION, "steps": [step], "table": VERSION["table"][3:]}
    folder = write(tmp_path / "small", {**EXPERIMENT, "full": light, "quick": light})
    (tmp_path / "a file").touch()
    assert reproduce(folder, tmp_path / "a file", "--no-tracking") == 2
    assert "cannot be made (Not a directory); name another folder with --runs" in capsys.readouterr().err


def test_a_folder_without_a_definition_is_refused(tmp_path, capsys):
    assert reproduce(tmp_path, tmp_path / "runs") == 2
    assert "name a folder that holds experiment.yaml" in capsys.readouterr().err


def test_mlflow_shows_the_trainings_below_the_reproduction_in_the_experiments_name(recorded):
    import sqlite3

    with sqlite3.connect(recorded.parent / "mlflow.db") as database:
        names = dict(database.execute("SELECT name, experiment_id FROM experiments"))
        rows = database.execute(
            "SELECT runs.name, tags.value FROM runs LEFT JOIN tags ON tags.run_uuid = runs.run_uuid "
            "AND tags.key = 'mlflow.parentRunId' WHERE experiment_id = ?",
            (names["small"],),
        ).fetchall()
    parents = {name for name, parent in rows if parent is None}
    children = {name for name, parent in rows if parent is not None}
    assert parents == {"small-full-reproduction"}
    assert len(children) == 1


def test_an_experiment_is_not_done_once_for_each_process(recorded, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(recorded, tmp_path / "small")
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun says it
    assert reproduce(folder, tmp_path / "runs") == 2
    assert "repeated in one process, found train.devices 1 and WORLD_SIZE 2" in capsys.readouterr().err
