"""The pipeline of an ensemble: members are runs, and what comes after the training sees one network."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from lesion_triage import config_file, pipeline, predictions, runs
from lesion_triage.bundle import pixels
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.calibrate.novelty import fit_novelty_model
from lesion_triage.data import pixel_cache
from lesion_triage.errors import CalibrationError, RunError, TrainingError
from lesion_triage.tracking import Tracker
from lesion_triage.train import checkpoint
from lesion_triage.train.losses import lowest_logit

pytestmark = pytest.mark.first

SMALL = {
    "name": "several",
    "data": {"source": "synthetic", "synthetic": {"lesions": 100, "positive_share": 0.4}},
    "split": {"fractions": {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}},
    "pixels": {"size_px": 32},
    "model": {"backbone": "test_resnet", "weights": "none", "drop_path_rate": 0.0},
    "train": {"epochs": 2, "batch_size": 8, "learning_rate": 5e-3, "workers": 0, "accelerator": "cpu"},
    "calibrate": {"target_sensitivity": 0.8, "confidence": 0.8},
    "evaluate": {"bootstrap_draws": 100},
    "tracking": {"enabled": False},
}
AVERAGE = ("ensemble.members=3",)
STUDENT = (
    *AVERAGE,
    "ensemble.combine=distil",
    "calibrate.second_look=another network is asked about the same cases",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "several.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture(scope="module")
def load(home):
    return lambda *overrides: config_file.load(home / "several.yaml", overrides)


@pytest.fixture(scope="module")
def average(home, load) -> runs.Run:
    return pipeline.run_verb("run", load(*AVERAGE), home / "runs")


@pytest.fixture(scope="module")
def student(home, load, average) -> runs.Run:
    """Its members are those of ``average``."""
    return pipeline.run_verb("run", load(*STUDENT), home / "runs")


@pytest.fixture(scope="module")
def members(home, load, average) -> list[runs.Run]:
    """The runs that the seeds 0, 1 and 2 have by themselves."""
    return [runs.find_or_make(load(f"seed={seed}"), home / "runs") for seed in range(3)]


def test_members_are_the_runs_of_their_seeds(members, average):
    for member in members:
        assert member.record("train") is not None
        assert member.folder != average.folder
    first, second, _ = (load_file(member.folder / checkpoint.CHECKPOINT) for member in members)
    assert not first["needs_in_person.weight"].equal(second["needs_in_person.weight"])


def test_what_a_seed_has_trained_by_itself_is_taken_over_and_not_trained_again(members, load, home, capsys):
    """With another confidence, members have other runs: they are found by what decides a training."""
    other = ("calibrate.confidence=0.81", "ensemble.members=2")
    pipeline.run_verb("train", load(*STUDENT, *other), home / "runs")
    said = capsys.readouterr().out
    for member, number in zip(members[:2], (1, 2), strict=True):
        after = said.partition(f"member {number} of 2: seed {number - 1}")[2].splitlines()
        assert after[1] == f"train: reused from {member.folder.name}"
    assert said.count("epoch 2/2") == 1  # the student's


def test_members_are_those_that_were_trained_even_if_one_is_begun_anew_meanwhile(load, home):
    whole = load("ensemble.members=2", "train.epochs=1", "calibrate.confidence=0.82")
    run = pipeline.open_run(whole, home / "runs")
    for name in ("manifest", "split"):
        pipeline.ensure_stage(pipeline.STAGES[name], run, pipeline.open_tracker(run))

    def late(run: runs.Run, tracker: Tracker, **given: object) -> None:
        runs.make(whole.members()[0], home / "runs")  # as `train --fresh` in another process
        pipeline.train(run, tracker, **given)

    pipeline.ensure_stage(replace(pipeline.STAGES["train"], work=late), run, pipeline.open_tracker(run))
    assert (run.folder / checkpoint.CHECKPOINT).is_file()


def test_an_average_of_equal_members_takes_nothing_over_that_was_made_with_other_labels(load, tmp_path):
    """Its file is the same to the bit whatever is said of the pictures that nobody learns from."""

    def averaged(name: str, labels: str) -> runs.Run:
        made = runs.Run(load(*AVERAGE), tmp_path / "runs" / f"several-20260101-00000{name}")
        made.folder.mkdir(parents=True)
        files = {"manifest": "manifest.csv", "split": "splits.json", "train": checkpoint.CHECKPOINT}
        for stage, file in files.items():
            (made.folder / file).write_text(labels if stage == "manifest" else stage)
            made.record_stage(stage, f"{stage} from {labels}", (file,), 1.0)
        return made

    before, after, alike = averaged("0", "no"), averaged("1", "yes"), averaged("2", "no")
    predict, trained = pipeline.STAGES["predict"], before.record("train")
    assert trained is not None
    inputs = runs.inputs_sha256(
        stage="predict", decides=predict.decides(before), needs={"train": trained.sha256()}
    )
    (before.folder / "model.onnx").write_text("graph")
    before.record_stage("predict", inputs, ("model.onnx",), 1.0)
    with pytest.raises(RunError, match="'predict' has not been done"):
        pipeline.ensure_stage(predict, after, pipeline.open_tracker(after), may_work=False)
    pipeline.ensure_stage(predict, alike, pipeline.open_tracker(alike), may_work=False)
    assert alike.record("predict") == before.record("predict")


def test_the_graph_gives_the_mean_of_the_members_logits_and_the_novelty_of_the_first(average, members):
    table, _ = predictions.read(average.folder / "predictions", "validation")
    rows = [row for row in table.rows if row.logit is not None]
    by_id = {record.image_id: record for record in pipeline.records(average, "validation")}
    pictures = [
        pixels.decode(
            (pipeline.data_root(average) / by_id[row.image_id].path).read_bytes(), average.config.pixels
        )
        for row in rows
    ]
    batch = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
    with torch.inference_mode():
        alone = [checkpoint.load_checkpoint(member.folder)(batch) for member in members]
    together = np.array([row.logit for row in rows])
    logits = np.stack([each.logit.numpy() for each in alone])
    np.testing.assert_allclose(together, logits.mean(0), atol=1e-5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-2
    train = pixel_cache.load_pixels(
        pipeline.records(average, "train"), pipeline.data_root(average), average.config.pixels, average.cache
    )
    with torch.inference_mode():
        levels = checkpoint.load_checkpoint(members[0].folder)(torch.from_numpy(np.array(train))).levels
    expected = fit_novelty_model(levels.numpy()).novelty(alone[0].levels.numpy())
    np.testing.assert_allclose([row.novelty for row in rows], expected, rtol=1e-2)


@pytest.mark.parametrize("which", ["average", "student"])
def test_bundle_and_scorer_see_one_network(which, request):
    run: runs.Run = request.getfixturevalue(which)
    results = json.loads((run.folder / "report" / "results.json").read_text())
    assert results["parity"]["largest_score_difference"] <= 1e-4
    assert results["parity"]["decision_flips"] == 0
    scorer = Scorer.open(run.folder / "bundle")
    table, _ = predictions.read(run.folder / "predictions", "test")
    table = table.behind_gate(scorer.bundle.policy.novelty_limit)
    row = next(row for row in table.rows if row.logit is not None)
    by_id = {record.image_id: record for record in pipeline.records(run, "test")}
    data = (pipeline.data_root(run) / by_id[row.image_id].path).read_bytes()
    assert scorer.score([data]).images[0].logit == row.logit


def test_the_model_card_names_the_seeds_and_the_header_counts_all_weights(average, student):
    averaged, taught = (Scorer.open(run.folder / "bundle").bundle for run in (average, student))
    card = (average.folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "| training | mean logit of 3 networks, 2 epochs each, seeds 0, 1, 2; config " in card
    card = (student.folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "2 epochs, seed 0, beside the labels taught by 3 networks of seeds 0, 1, 2, who have 50%" in card
    assert averaged.header.model.parameters == 3 * taught.header.model.parameters
    assert averaged.header.model.embedding_width == taught.header.model.embedding_width


def test_a_student_is_one_network_and_another_than_the_member_of_its_seed(student, members):
    alone = load_file(members[0].folder / checkpoint.CHECKPOINT)
    taught = load_file(student.folder / checkpoint.CHECKPOINT)
    assert taught.keys() == alone.keys()
    assert not torch.equal(taught["needs_in_person.weight"], alone["needs_in_person.weight"])


def test_a_second_pass_repeats_nothing_even_when_the_members_are_gone(
    student, members, load, home, tmp_path, capsys
):
    shutil.copytree(home, tmp_path / "experiments")
    for member in members:
        shutil.rmtree(tmp_path / "experiments" / "runs" / member.folder.name)
    pipeline.run_verb("run", load(*STUDENT), tmp_path / "experiments" / "runs")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if ": unchanged" in line] == [
        f"{name}: unchanged" for name in pipeline.STAGES
    ]


def test_one_network_of_two_backbones_is_trained_sealed_and_told_as_such(load, home, members, capsys):
    """The member that had been trained is taken over; the card and the header name both backbones."""
    both = ("ensemble.backbones=[{backbone: test_vit, weights: none}]", "calibrate.second_look=a test")
    run = pipeline.run_verb("run", load(*both), home / "runs")
    said = capsys.readouterr().out
    assert "member 1 of 2: test_resnet, seed 0" in said
    assert said.count("epoch 2/2") == 1  # of the second member alone
    scorer = Scorer.open(run.folder / "bundle")
    alone = {
        member.model.backbone: runs.find_or_make(member, home / "runs") for member in load(*both).members()
    }
    assert scorer.bundle.header.model.backbone == "test_resnet + test_vit"
    card = (run.folder / "bundle" / "MODEL_CARD.md").read_text()
    assert "mean logit of 2 networks, 2 epochs each, seeds 0 of each of test_resnet, test_vit" in card
    assert json.loads((run.folder / "report" / "results.json").read_text())["parity"]["decision_flips"] == 0
    picture = np.array(
        pixel_cache.load_pixels(
            pipeline.records(run, "validation")[:1], pipeline.data_root(run), run.config.pixels, run.cache
        )
    )
    with torch.inference_mode():
        logits = [
            float(checkpoint.load_checkpoint(each.folder)(torch.from_numpy(picture)).logit)
            for each in alone.values()
        ]
    held = lowest_logit(run.config.train)
    rows = predictions.read(run.folder / "predictions", "validation")[0].rows
    by_id = {row.image_id: row.logit for row in rows}
    mean = sum(max(logit, held) for logit in logits) / 2
    assert by_id[pipeline.records(run, "validation")[0].image_id] == pytest.approx(mean, abs=1e-5)


def test_a_second_backbone_that_does_not_exist_is_refused_before_the_first_is_trained(load, home, capsys):
    with pytest.raises(TrainingError, match="resnet_of_nobody"):
        pipeline.run_verb(
            "train",
            load("seed=77", "ensemble.backbones=[{backbone: resnet_of_nobody, weights: none}]"),
            home / "runs",
        )
    assert "epoch" not in capsys.readouterr().out


def begin(load, home: Path, folder: Path) -> None:
    """The configuration, the pictures and their split, and nothing trained."""
    shutil.copy(home / "several.yaml", folder)
    shutil.copytree(home / "cache", folder / "cache")
    for verb in ("manifest", "split"):
        pipeline.run_verb(verb, load(*STUDENT), folder / "runs")


def killed_in_its_second_member(folder: Path) -> None:
    """A process of its own, ended by ``kill -9``."""
    main = "import sys; from lesion_triage.cli import main; sys.exit(main(sys.argv[1:]))"
    sets = [part for setting in (*STUDENT, "train.checkpoint_minutes=0") for part in ("--set", setting)]
    place = [str(folder / "several.yaml"), "--runs", str(folder / "runs")]
    command = [sys.executable, "-c", main, "train", *place, *sets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for wanted in ("member 2 of 3", "epoch 1/2"):
                while wanted not in (said := process.stdout.readline()):
                    assert said, f"the program has ended before it said {wanted}"
        finally:
            process.kill()


def stopped_in_its_student(load, folder: Path) -> None:
    """SIGTERM once the student has written a state."""
    run = runs.find_or_make(load(*STUDENT), folder / "runs")

    def stop():
        while not list((run.folder / "train_state").glob("*.json")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_verb("train", load(*STUDENT, "train.checkpoint_minutes=0"), folder / "runs")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_ensemble_killed_in_its_second_member_and_stopped_in_its_student_changes_no_bit(
    home, student, members, load, tmp_path, capsys
):
    begin(load, home, tmp_path)
    killed_in_its_second_member(tmp_path)
    stopped_in_its_student(load, tmp_path)
    said = capsys.readouterr().out
    assert said.count("train: unchanged") == 1
    assert said.count("  resuming ") == 1
    ours = [runs.find_or_make(member, tmp_path / "runs") for member in load(*STUDENT).members()]
    times = [(member.folder / checkpoint.CHECKPOINT).stat().st_mtime_ns for member in ours]
    ended = pipeline.run_verb("train", load(*STUDENT), tmp_path / "runs", resume=True)
    said = capsys.readouterr().out
    assert said.count("train: unchanged") == 3
    assert said.count("  resuming ") == 1
    assert times == [(member.folder / checkpoint.CHECKPOINT).stat().st_mtime_ns for member in ours]
    for found, expected in zip((ended, *ours), (student, *members), strict=True):
        mine, theirs = (load_file(run.folder / checkpoint.CHECKPOINT) for run in (found, expected))
        assert mine.keys() == theirs.keys()
        assert all(mine[name].equal(theirs[name]) for name in mine)
    assert not list(tmp_path.glob("runs/*/train_state"))


def test_resume_refuses_an_ensemble_of_which_nothing_is_there(home, average, load, tmp_path):
    begin(load, home, tmp_path)
    with pytest.raises(RunError, match=r"no interrupted training .* omit --resume"):
        pipeline.run_verb("train", load(*STUDENT), tmp_path / "runs", resume=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fresh_trains_every_member_anew_with_a_curve_of_its_own_in_mlflow(
    home, members, load, tmp_path, capsys
):
    """The run ends at calibration cases that were looked at before; what is asked here comes earlier."""
    from mlflow.tracking import MlflowClient  # noqa: TID251

    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    tracked = load("ensemble.members=2", "tracking.enabled=true")
    with pytest.raises(CalibrationError, match="a threshold was chosen on these calibration cases"):
        pipeline.run_verb("run", tracked, tmp_path / "runs", fresh=True)
    made = runs.find_or_make(tracked, tmp_path / "runs")
    assert capsys.readouterr().out.count("epoch 2/2") == 2
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    above = (made.folder / "mlflow_run_id.txt").read_text().strip()
    found = client.search_runs([client.get_run(above).info.experiment_id])
    beneath = [each for each in found if each.data.tags.get("mlflow.parentRunId") == above]
    assert len(found) == 3
    assert sorted(each.data.params["seed"] for each in beneath) == ["0", "1"]
    for each in beneath:
        assert each.info.status == "FINISHED"
        assert each.data.params["manifest_sha256"] == client.get_run(above).data.params["manifest_sha256"]
        assert "splits_sha256" in each.data.params
        assert len(client.get_run(each.info.run_id).inputs.dataset_inputs) == 4
        assert len(client.get_metric_history(each.info.run_id, "train.loss")) == 2
    assert client.get_metric_history(above, "train.loss") == []
