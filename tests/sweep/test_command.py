"""Small sweeps from end to end: what they leave, what is pruned, and what a kill changes."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import made_sweeps
import optuna
import pytest
import safetensors.torch
import timm
from optuna.trial import TrialState
from timm.models import register_model
from torch import nn

import lesion_triage.sweep
from lesion_triage import cli, config_file, locks, pipeline
from lesion_triage.sweep import space as spaces
from lesion_triage.sweep import study as studies
from lesion_triage.sweep import trial as trials
from lesion_triage.train import state_files
from lesion_triage.train.weights import create_backbone

TRIALS = 6
SPACE = {
    "sweep": {"startup_trials": 2, "spare_epochs": 0, "last_epochs": 2, "seed": 1},
    "train.learning_rate": [1e-9, 3e-3, 1e-2],
    "train.label_smoothing": {"low": 0.0, "high": 0.1},
}


@dataclass(frozen=True)
class Swept:
    """A sweep that has ended."""

    home: Path
    command: list[str]
    out: str = ""

    @property
    def study(self) -> Path:
        (table,) = (self.home / "sweeps").glob("*/trials.csv")
        return table.parent

    def rows(self) -> list[dict[str, str]]:
        with (self.study / "trials.csv").open(newline="") as stream:
            return [{**row, "seconds": ""} for row in csv.DictReader(stream)]

    def recorded(self) -> list:
        """All trials of the storage, by number, whatever their state."""
        url = f"sqlite:///{self.home / 'sweeps' / 'studies.db'}"
        with studies.open_study(url, self.study.name, spaces.Settings(), 3) as study:
            return study.get_trials()

    def notes(self) -> dict[int, Path]:
        """Run folders of trials, by the trial's number."""
        found = (self.home / "runs").glob(f"*/{trials.NOTE_FILE}")
        return {json.loads(note.read_text())["trial"]: note.parent for note in found}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return made_sweeps.pictures(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data) -> Swept:
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [*made_sweeps.write(folder, SPACE), "--data-root", str(data), "--trials", str(TRIALS)]
    assert cli.main(command) == 0
    return Swept(folder / "experiments", command)


def test_the_sweep_ends_so_many_trials_and_the_best_is_the_highest_value(undisturbed):
    assert [trial.number for trial in undisturbed.recorded()] == list(range(TRIALS))
    rows = undisturbed.rows()
    assert sorted(int(row["trial"]) for row in rows) == list(range(TRIALS))
    complete = [float(row["value"]) for row in rows if row["state"] == "complete"]
    assert complete == sorted(complete, reverse=True)
    assert rows[0]["state"] == "complete"


def test_the_best_configuration_is_taken_up_by_run_where_the_trial_left_it(undisturbed, data):
    best = undisturbed.rows()[0]
    loaded = config_file.load(undisturbed.study / "best.yaml")
    run = pipeline.open_run(loaded, undisturbed.home / "runs")
    assert run.folder == undisturbed.notes()[int(best["trial"])]
    curve = json.loads((run.folder / pipeline.CURVE).read_text())
    expected = sum(line["validation_auroc"] for line in curve[-2:]) / 2
    assert float(best["value"]) == pytest.approx(expected, abs=5e-5)
    assert not (run.folder / "train_state").exists()
    assert not (run.folder / "model.onnx").exists()
    assert loaded.data.root == data


def test_a_hopeless_learning_rate_is_pruned_and_leaves_no_run_behind(undisturbed):
    pruned = [row for row in undisturbed.rows() if row["state"] == "pruned"]
    assert "1e-09" in [row["train.learning_rate"] for row in pruned]
    assert all(int(row["epochs"]) < 3 for row in pruned)
    assert undisturbed.notes().keys() == {
        int(row["trial"]) for row in undisturbed.rows() if row["state"] == "complete"
    }


def test_every_trial_is_a_run_below_the_sweeps_in_mlflow_and_a_pruned_one_says_so(undisturbed):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{undisturbed.home / 'mlflow.db'}")
    parent = client.get_run((undisturbed.study / "mlflow_run_id.txt").read_text().strip())
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    states = {int(run.data.tags["sweep.trial"]): run.data.tags["sweep.state"] for run in children}
    assert states == {int(row["trial"]): row["state"] for row in undisturbed.rows()}
    assert len(children) == TRIALS
    by_trial = {int(run.data.tags["sweep.trial"]): run for run in children}
    for trial in undisturbed.recorded():
        curve = client.get_metric_history(by_trial[trial.number].info.run_id, "train.validation_auroc")
        assert {point.step: point.value for point in curve} == trial.intermediate_values
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["sweep.best"] == pytest.approx(float(undisturbed.rows()[0]["value"]), abs=5e-5)


def test_the_output_says_what_choosing_on_validation_means(undisturbed, capsys):
    assert cli.main(undisturbed.command) == 0  # nothing is left to do: table and meaning once more
    out = capsys.readouterr().out
    assert "trial 0:" not in out
    assert "no longer held out" in out
    assert "certificate does not rest on them" in out


@pytest.mark.slow
def test_kill_9_within_an_epoch_and_the_same_command_end_as_the_undisturbed_sweep(
    undisturbed, data, tmp_path, capsys
):
    quiet = made_sweeps.write(tmp_path, SPACE, tracking={"enabled": False})
    command = [*quiet, "--data-root", str(data), "--trials", str(TRIALS)]
    code = "import sys; from lesion_triage import cli; sys.exit(cli.main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("trial 1:"):
        assert process.poll() is None
    while not list((tmp_path / "experiments" / "runs").glob("*/train_state/000001-0000000[1-9].json")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    capsys.readouterr()

    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "trial 0:" not in out
    assert out.index("trial 1:") < out.index("resuming ") < out.index("trial 2:")
    swept = Swept(tmp_path / "experiments", command)
    assert [trial.state.is_finished() for trial in swept.recorded()] == [True] * TRIALS
    assert swept.rows() == undisturbed.rows()
    before = [(t.state, t.value, t.params, t.intermediate_values) for t in undisturbed.recorded()]
    assert [(t.state, t.value, t.params, t.intermediate_values) for t in swept.recorded()] == before


def test_equal_draws_are_trained_once_with_each_seed_and_what_diverges_is_counted(data, tmp_path, capsys):
    space = {
        "sweep": {"startup_trials": 9, "last_epochs": 1, "seeds": 2},
        "train.learning_rate": [3e-3, 1e30],
    }
    quiet = made_sweeps.write(tmp_path, space, tracking={"enabled": False}, train={"epochs": 1})
    assert cli.main([*quiet, "--data-root", str(data), "--trials", "5"]) == 0
    swept = Swept(tmp_path / "experiments", quiet)
    states = {row["state"]: row["train.learning_rate"] for row in swept.rows()}
    assert states == {"complete": "0.003", "diverged": "1e+30"}
    trained = list((swept.home / "runs").glob(f"*/{pipeline.CURVE}"))
    assert len(trained) == 2  # one for each seed, however often the value was drawn
    mean = sum(json.loads(path.read_text())[-1]["validation_auroc"] for path in trained) / 2
    values = [trial.value for trial in swept.recorded() if trial.params["train.learning_rate"] == 3e-3]
    assert len(values) > 1
    assert set(values) == {mean}


def test_a_run_that_another_study_is_about_to_train_in_is_not_removed(data, tmp_path):
    """Two sweeps over the same runs may draw the same values, and one may prune what the other begins."""
    command = made_sweeps.write(tmp_path, SPACE)
    space = spaces.read(Path(command[3]), config_file.load(Path(command[1]), [], data))
    url, runs = f"sqlite:///{tmp_path / 'studies.db'}", tmp_path / "runs"
    with ExitStack() as stack:
        one, two = (
            stack.enter_context(studies.open_study(url, name, spaces.Settings(), 3))
            for name in ("one", "two")
        )
        ours = trials.SweepContext(space, one, runs, tmp_path / "sweeps" / "one")
        other = trials.SweepContext(space, two, runs, tmp_path / "sweeps" / "two")
        one.add_trial(optuna.create_trial(state=TrialState.PRUNED))
        run = pipeline.open_run(space.base, runs)
        (run.folder / trials.NOTE_FILE).write_text(json.dumps(ours.note_content(0)))
        with locks.hold_lock(other.lock_of(run.config.identity_sha256())):
            ours.remove_ended_trials()
            assert run.folder.exists()
        note = (run.folder / trials.NOTE_FILE).read_bytes()
        (run.folder / trials.NOTE_FILE).write_bytes(note[:-9])  # by a bad disk: nobody's, and kept
        ours.remove_ended_trials()
        assert run.folder.exists()
        (run.folder / trials.NOTE_FILE).write_bytes(note)
        ours.remove_ended_trials()
        assert not run.folder.exists()


def test_an_error_stops_the_sweep_and_the_same_command_takes_the_trial_up(data, tmp_path, capsys):
    late = tmp_path / "late.safetensors"
    space = {"sweep": {"startup_trials": 9}, "model.weights": ["none", str(late)]}
    quiet = made_sweeps.write(tmp_path, space, tracking={"enabled": False}, train={"epochs": 1})
    command = [*quiet, "--data-root", str(data), "--trials", "3"]
    assert cli.main(command) == 2
    assert f"{late}: no such weights file" in capsys.readouterr().err
    safetensors.torch.save_file(create_backbone("test_efficientnet", "none", 32).state_dict(), late)
    assert cli.main(command) == 0
    swept = Swept(tmp_path / "experiments", command)
    assert [trial.state for trial in swept.recorded()] == [TrialState.COMPLETE] * 3
    assert {trial.params["model.weights"] for trial in swept.recorded()} >= {str(late)}
    assert {row["model.weights"] for row in swept.rows()} == {"none", late.name}  # what MLflow is sent


def test_without_optuna_the_command_says_what_to_install(data, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("lesion_triage.sweep.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("search", "report", "study", "trial"):
        monkeypatch.delattr(lesion_triage.sweep, name, raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)  # as Python marks a module that is not to be found
    command = [*made_sweeps.write(tmp_path, SPACE), "--data-root", str(data), "--trials", "1"]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert "install the extra [train,sweep]; in a checkout: pip install '.[train,sweep]'" in error


def test_a_mistake_in_the_space_stops_before_anything_is_made(data, tmp_path, capsys):
    command = [*made_sweeps.write(tmp_path, {"train.lerning_rate": [1, 2]}), "--data-root", str(data)]
    assert cli.main([*command, "--trials", "2"]) == 2
    error = capsys.readouterr().err
    assert "unknown key 'train.lerning_rate'; did you mean 'train.learning_rate'?" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "experiments").exists()


def test_an_average_of_networks_which_has_no_curve_is_refused_before_anything_starts(data, tmp_path, capsys):
    command = [*made_sweeps.write(tmp_path, SPACE, ensemble={"members": 2}), "--data-root", str(data)]
    assert cli.main([*command, "--trials", "1"]) == 2
    error = capsys.readouterr().err
    assert "small.yaml: a sweep compares learning curves, and an average of 2 networks has none" in error
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("space", "train", "complaint"),
    [
        ({"model.backbone": ["test_efficientnet", "test_eficientnet"]}, {}, "timm knows no backbone"),
        ({"train.frozen_stages": [0, 50]}, {}, "train.frozen_stages is 50, which leaves nothing to train"),
        (
            {"model.backbone": ["test_efficientnet", "test_vit3"], "pixels.size_px": [64, 96]},
            {"small_first": 0.5},
            "'test_vit3', built for 96 px, takes no pictures of 64 px",
        ),
        (
            {
                "model.backbone": ["test_efficientnet", "ghostnet_050"],
                "model.drop_path_rate": {"low": 0.0, "high": 0.2},
            },
            {},
            "'ghostnet_050' takes no drop_path_rate, found 0.2",
        ),
        ({"train.loss": ["bce", "focal"]}, {"devices": 2}, "a sweep trains each trial in one process"),
    ],
)
def test_networks_that_cannot_be_built_are_refused_before_anything_starts(
    data, tmp_path, capsys, space, train, complaint
):
    command = [*made_sweeps.write(tmp_path, space, train=train), "--data-root", str(data)]
    assert cli.main([*command, "--trials", "2"]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("space", "model"),
    [
        ({"model.backbone": ["test_efficientnet", "ghostnet_050"]}, {"weights": "hub"}),
        ({"model.weights": ["none", "hub"]}, {"backbone": "ghostnet_050"}),
    ],
)
def test_weights_that_the_hub_does_not_have_are_refused_before_anything_starts(
    data, tmp_path, capsys, space, model
):
    command = [*made_sweeps.write(tmp_path, space, model=model), "--data-root", str(data)]
    assert cli.main([*command, "--trials", "2"]) == 2
    assert "timm has no pretrained weights of backbone 'ghostnet_050'" in capsys.readouterr().err
    assert not (tmp_path / "experiments").exists()


def test_a_batch_that_the_split_does_not_hold_is_refused_before_the_study_begins(data, tmp_path, capsys):
    command = [*made_sweeps.write(tmp_path, {"train.batch_size": [8, 4096]}), "--data-root", str(data)]
    assert cli.main([*command, "--trials", "2"]) == 2
    assert "space.yaml: split 'train' has 32 pictures, less than one batch of 4096" in capsys.readouterr().err
    assert not list((tmp_path / "experiments" / "sweeps").glob("*.db"))


def test_a_trial_that_can_never_be_trained_fails_with_its_reason_and_the_sweep_goes_on(
    data, tmp_path, capsys
):
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(create_backbone("test_resnet", "none", 32).state_dict(), foreign)
    space = {"sweep": {"startup_trials": 9}, "model.weights": ["none", str(foreign)]}
    quiet = made_sweeps.write(tmp_path, space, tracking={"enabled": False}, train={"epochs": 1})
    command = [*quiet, "--data-root", str(data), "--trials", "4"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    swept = Swept(tmp_path / "experiments", command)
    states = {row["model.weights"]: row["state"] for row in swept.rows()}
    assert states == {"none": "complete", foreign.name: "failed"}
    failed = [trial.number for trial in swept.recorded() if trial.state is TrialState.FAIL]
    for number in failed:
        assert f"Trial {number} failed, and would again: {foreign}: does not fit the backbone" in out
    assert not set(failed) & swept.notes().keys()
    assert cli.main(command) == 0  # they have ended: none is taken up again
    assert "trial 0:" not in capsys.readouterr().out


@register_model
def unexportable_efficientnet(**settings) -> nn.Module:
    """A backbone that can be trained, and that torch cannot export: it looks at its own values."""

    def look(module: nn.Module, inputs: tuple) -> None:
        if inputs[0].abs().max() > 1e9:
            raise ValueError("too bright")

    made = timm.create_model("test_efficientnet", **settings)
    made.conv_stem.register_forward_pre_hook(look)
    return made


def test_a_backbone_that_cannot_be_exported_fails_its_trials_and_the_sweep_goes_on(data, tmp_path, capsys):
    weights = tmp_path / "w.safetensors"  # with random ones no export is tried
    safetensors.torch.save_file(create_backbone("test_efficientnet", "none", 32).state_dict(), weights)
    command = made_sweeps.write(
        tmp_path,
        {
            "sweep": {"startup_trials": 9},
            "model.backbone": ["test_efficientnet", "unexportable_efficientnet"],
        },
        model={"weights": str(weights)},
        train={"epochs": 1},
        tracking={"enabled": False},
    )
    assert cli.main([*command, "--data-root", str(data), "--trials", "3"]) == 0
    states = {row["model.backbone"]: row["state"] for row in Swept(tmp_path / "experiments", command).rows()}
    assert states == {"test_efficientnet": "complete", "unexportable_efficientnet": "failed"}
    assert "failed, and would again: the network could not be written as ONNX" in capsys.readouterr().out


def test_a_damaged_training_state_is_no_fault_of_the_trials_values(data, tmp_path, capsys):
    space = {"sweep": {"startup_trials": 9}, "train.learning_rate": [3e-3, 1e-2]}
    quiet = made_sweeps.write(tmp_path, space, tracking={"enabled": False}, train={"epochs": 1})
    command = [*quiet, "--data-root", str(data)]
    assert cli.main([*command, "--trials", "3"]) == 0
    swept = Swept(tmp_path / "experiments", command)
    before = {trial.params["train.learning_rate"]: trial.value for trial in swept.recorded()}
    for note in (swept.home / "runs").glob(f"*/{trials.NOTE_FILE}"):  # as a kill and a bad disk leave a run
        (note.parent / "stages" / "train.json").unlink()
        (note.parent / state_files.FOLDER).mkdir()
        (note.parent / state_files.FOLDER / "000001-00000000.json").write_text("{")
    assert cli.main([*command, "--trials", "8"]) == 0
    assert "no state of this training run in it is complete" in capsys.readouterr().out
    later = swept.recorded()[3:]
    assert {trial.state for trial in later} == {TrialState.COMPLETE}
    again = [trial for trial in later if trial.params["train.learning_rate"] in before]
    assert again
    assert all(trial.value == before[trial.params["train.learning_rate"]] for trial in again)
