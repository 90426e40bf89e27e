"""The whole pipeline in one small run, and what happens when its inputs change or its parts break."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from lesion_triage import config_file, demo, locks, pipeline, predictions, runs
from lesion_triage.bundle.schema import ReasonCode
from lesion_triage.bundle.scorer import Scorer
from lesion_triage.bundle.store import open_bundle
from lesion_triage.calibrate.cases import gather_cases
from lesion_triage.calibrate.novelty import novelty_limit
from lesion_triage.calibrate.referral_burden import ReferralBurden, measure_referral_burden
from lesion_triage.config import Calibrate, Config
from lesion_triage.data import manifest as manifests
from lesion_triage.data import synthetic
from lesion_triage.errors import (
    BundleError,
    CalibrationError,
    ConfigError,
    ManifestError,
    RunError,
    SplitError,
    TrainingError,
)
from lesion_triage.pipeline import sealing
from lesion_triage.tracking import Tracker

pytestmark = pytest.mark.first

SMALL = {
    "name": "small",
    "data": {"source": "synthetic", "synthetic": {"lesions": 240, "positive_share": 0.4}},
    "split": {"fractions": {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}},
    "pixels": {"size_px": 64},
    "model": {"backbone": "test_efficientnet", "weights": "none", "drop_path_rate": 0.0},
    "train": {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "ema_decay": 0.8,
        "augmentation": "flips",
        "workers": 0,
        "accelerator": "cpu",
    },
    "calibrate": {"target_sensitivity": 0.8, "confidence": 0.8},
    "evaluate": {"bootstrap_draws": 100},
    "tracking": {"enabled": False},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("experiments")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture(scope="module")
def load(home):
    return lambda *overrides: config_file.load(home / "small.yaml", overrides)


@pytest.fixture(scope="module")
def run(home, load) -> runs.Run:
    return pipeline.run_verb("run", load(), home / "runs")


def test_the_pipeline_leaves_every_file_that_it_promises(run):
    for name in (
        "config.yaml",
        "checkpoint.safetensors",
        "model.onnx",
        "bundle/bundle.json",
        "report/index.html",
    ):
        assert (run.folder / name).is_file(), name
    for stage in pipeline.STAGES:
        assert run.record(stage) is not None


def test_a_second_pass_repeats_nothing(run, load, home, capsys):
    times = {path: path.stat().st_mtime_ns for path in (run.folder / "bundle").rglob("*")}
    again = pipeline.run_verb("run", load(), home / "runs")
    assert again.folder == run.folder
    assert times == {path: path.stat().st_mtime_ns for path in (run.folder / "bundle").rglob("*")}
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if ": unchanged" in line] == [
        f"{name}: unchanged" for name in pipeline.STAGES
    ]


def test_a_changed_stage_is_redone_in_a_new_folder_and_what_came_before_is_taken_over(
    run, load, home, capsys
):
    before = (run.folder / "policy.json").read_bytes()
    changes = ("calibrate.confidence=0.9", "calibrate.second_look=a stricter promise was asked for")
    other = pipeline.run_verb("calibrate", load(*changes), home / "runs")
    out = capsys.readouterr().out
    assert other.folder != run.folder
    assert f"train: reused from {run.folder.name}" in out or "train: unchanged" in out
    assert "\ncalibrate\n" in out
    assert (run.folder / "policy.json").read_bytes() == before
    assert json.loads((other.folder / "certificate.json").read_text())["confidence"] == 0.9


def test_a_second_look_at_the_calibration_cases_is_refused_unless_asked_for_by_name(run, load, home):
    with pytest.raises(
        CalibrationError, match=r"a threshold was chosen on these .* before.*calibrate\.second_look"
    ):
        pipeline.run_verb("calibrate", load("calibrate.confidence=0.85"), home / "runs")
    newest = max((home / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    assert not (newest / "certificate.json").exists()
    first = json.loads((run.folder / "certificate.json").read_text())
    looked = load("calibrate.confidence=0.85", "calibrate.second_look=to see what it costs")
    again = pipeline.run_verb("calibrate", looked, home / "runs")
    second = json.loads((again.folder / "certificate.json").read_text())
    assert second["purpose"] == "to see what it costs"
    assert first["threshold"] in [look["threshold"] for look in second["ledger"]]
    assert second["confidence_if_selected"] < 0.85


def test_the_same_pictures_at_another_size_are_a_second_look_and_it_is_said_before_the_training(
    run, load, home, capsys
):
    other = load("pixels.size_px=48", "train.epochs=1")
    pipeline.run_verb("train", other, home / "runs")
    before, trained, _ = capsys.readouterr().out.partition("epoch 1/1")
    assert trained
    assert "will require a reason to use them again" in " ".join(before.split())
    reason = load("pixels.size_px=48", "train.epochs=1", "calibrate.second_look=a larger picture", "seed=5")
    pipeline.run_verb("train", reason, home / "runs")
    assert "require a reason" not in capsys.readouterr().out
    with pytest.raises(
        CalibrationError, match=r"a threshold was chosen on these .* before.*calibrate\.second_look"
    ):
        pipeline.run_verb("calibrate", other, home / "runs")


def test_a_ledger_that_cannot_be_read_is_told_before_a_training_and_refuses_none(
    run, home, load, tmp_path, capsys
):
    shutil.copytree(home / "cache", tmp_path / "cache")
    ledger_path = tmp_path / "ledger.jsonl"
    ledger_path.write_text("no line of a ledger\n")
    trained = pipeline.run_verb("train", load("train.epochs=1", "seed=9"), tmp_path / "runs")
    before, epoch, _ = " ".join(capsys.readouterr().out.split()).partition("epoch 1/1")
    assert "line 1 is damaged; restore the ledger" in before
    assert epoch
    assert (trained.folder / "checkpoint.safetensors").is_file()
    assert ledger_path.read_text() == "no line of a ledger\n"
    with pytest.raises(CalibrationError, match="line 1 is damaged"):
        pipeline.run_verb("calibrate", load("train.epochs=1", "seed=9"), tmp_path / "runs")


def test_the_same_look_again_is_the_same_certificate(run, load, home):
    fresh = pipeline.run_verb("export", load(), home / "runs", fresh=False)
    copy = home / "other"
    shutil.copytree(home / "runs", copy / "runs", ignore=lambda folder, names: ["certificate.json"])
    shutil.copytree(home / "cache", copy / "cache")
    shutil.copy(home / "ledger.jsonl", copy)
    repeated = pipeline.run_verb("calibrate", load(), copy / "runs")
    assert (repeated.folder / "certificate.json").read_bytes() == (
        fresh.folder / "certificate.json"
    ).read_bytes()


def test_other_outcomes_of_the_validation_split_are_no_repeated_look(run, home, tmp_path):
    """They fit the calibrator and set the gate: the same calibration table makes another policy of them."""
    other = dataclasses.replace(run, folder=tmp_path / "runs" / run.folder.name)
    shutil.copytree(run.folder, other.folder)
    shutil.copy(home / "ledger.jsonl", tmp_path)
    ledger_path = sealing.ledger_of(other)
    looks = ledger_path.read_text()
    table, _ = predictions.read(other.folder / "predictions", "validation")
    changed = dataclasses.replace(table.rows[0], needs_in_person=not table.rows[0].needs_in_person)
    dataclasses.replace(table, rows=(changed, *table.rows[1:])).write(other.folder / "predictions")
    with pytest.raises(
        CalibrationError, match=r"a threshold was chosen on these .* before.*calibrate\.second_look"
    ):
        sealing.calibrate(other, Tracker(other.config, other.folder, print))
    assert ledger_path.read_text() == looks


def test_the_console_says_what_the_threshold_costs_on_validation_and_then_on_test(run, load, home, capsys):
    why = ("calibrate.second_look=to read the console", "evaluate.bootstrap_draws=101")
    for verb in ("calibrate", "export", "evaluate"):
        again = pipeline.run_verb(verb, load(*why), home / "runs")
    printed = capsys.readouterr().out
    validation, _ = predictions.read(again.folder / "predictions", "validation")
    cost = measure_referral_burden(open_bundle(again.folder / "bundle").policy, validation)
    assert (
        f"  on validation, not on test: specificity {cost.specificity:.3f} ({cost.negatives_referred} of "
        f"{cost.negatives} cases without need referred), referral rate {cost.referral_rate:.3f}\n"
    ) in printed
    results = json.loads((again.folder / "report" / "results.json").read_text())
    whole = results["slices"][0]
    headline = "; " + ", ".join(
        f"{word} {found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
        for found, word in (
            (whole["specificity_exact"], "specificity"),
            (whole["referral_rate_exact"], "referral rate"),
        )
    )
    missed = f"  on test: {results['missed']} of {results['positives']} positive cases missed"
    assert f"{missed}{headline}\n" in printed


def test_a_policy_that_refers_nearly_everyone_is_warned_of(capsys):
    sealing._print_referral_burden(ReferralBurden(cases=60, referred=60, negatives=50, negatives_referred=50))
    assert "WARNING: more than 95 % of negative cases are referred" in capsys.readouterr().out
    sealing._print_referral_burden(ReferralBurden(cases=60, referred=40, negatives=50, negatives_referred=30))
    assert "WARNING" not in capsys.readouterr().out


def test_a_stage_asked_for_too_early_names_the_one_that_comes_first(home, load):
    with pytest.raises(RunError, match=r"'manifest' has not been done.*run `lesion-triage manifest` first"):
        pipeline.run_verb("calibrate", load("data.synthetic.seed=5"), home / "elsewhere" / "runs")


def test_a_training_brings_up_what_it_stands_on_and_a_fresh_one_takes_nothing_over(load, home, capsys):
    again = ["train.epochs=1", "data.synthetic.seed=6", "data.synthetic.lesions=120"]
    first = pipeline.run_verb("train", load(*again), home / "trained" / "runs")
    assert [one for one in ("manifest", "split", "train", "predict") if first.record(one) is None] == []
    assert first.record("calibrate") is None
    capsys.readouterr()
    second = pipeline.run_verb("train", load(*again), home / "trained" / "runs", fresh=True)
    assert second.folder != first.folder
    assert not {"unchanged", "reused"} & set(re.findall("unchanged|reused", capsys.readouterr().out))


def test_one_picture_has_the_same_score_in_evaluation_scorer_and_service(run):
    table, _ = predictions.read(run.folder / "predictions", "test")
    scorer = Scorer.open(run.folder / "bundle")
    by_id = {record.image_id: record for record in pipeline.records(run, "test")}
    table = table.behind_gate(scorer.bundle.policy.novelty_limit)
    rows = [row for row in table.rows if row.logit is not None][:6]
    with demo._server(run.folder / "bundle") as url:
        for row in rows:
            data = (pipeline.data_root(run) / by_id[row.image_id].path).read_bytes()
            ours = scorer.score([data])
            theirs = demo._post_picture(url, data)
            assert ours.images[0].logit == row.logit
            assert theirs == ours.model_dump(mode="json")


def test_the_self_test_notices_a_library_that_decodes_jpeg_files_in_another_way(run, monkeypatch):
    """As libraries do that have no coarser scale; then one that leaves a photograph on its side."""
    scorer = Scorer.open(run.folder / "bundle")
    scorer.self_test()
    with monkeypatch.context() as another:
        another.setattr(JpegImageFile, "draft", lambda self, mode, size: None)
        with pytest.raises(BundleError, match=r"drawn-camera\.jpg"):
            scorer.self_test()
    with monkeypatch.context() as another:
        another.setattr(Image.Image, "transpose", lambda self, method: self)
        with pytest.raises(BundleError, match=r"drawn-camera\.jpg"):
            scorer.self_test()


def test_table_scorer_and_certificate_agree_on_what_is_unfamiliar(run):
    scorer = Scorer.open(run.folder / "bundle")
    limit = scorer.bundle.policy.novelty_limit
    validation, calibration, test = (
        predictions.read(run.folder / "predictions", name)[0]
        for name in ("validation", "calibration", "test")
    )
    share = Calibrate().novelty_share
    assert limit == novelty_limit(validation, share)
    sent_up = sum(row.novelty >= limit for row in validation.rows if row.novelty is not None)
    assert sent_up <= share * len(validation.rows)
    by_id = {record.image_id: record for record in pipeline.records(run, "test")}
    by_novelty = sorted((row for row in test.rows if row.novelty is not None), key=lambda row: row.novelty)
    for row in (*by_novelty[:2], *by_novelty[-2:]):
        data = (pipeline.data_root(run) / by_id[row.image_id].path).read_bytes()
        assert scorer.score([data]).images[0].gradable is (row.novelty < limit)
    cases = gather_cases(calibration.behind_gate(limit))
    abstained = sum(case.needs_in_person and not case.gradable for case in cases)
    assert scorer.bundle.certificate.positives_abstained == abstained


def test_a_picture_of_noise_goes_up_as_unfamiliar(run):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    (image,) = Scorer.open(run.folder / "bundle").score([buffer.getvalue()]).images
    assert [reason.code for reason in image.reasons] == [ReasonCode.out_of_distribution]


def test_torch_and_the_bundle_agree_on_the_whole_test_split(run):
    results = json.loads((run.folder / "report" / "results.json").read_text())
    assert results["parity"]["largest_score_difference"] <= 1e-4
    assert results["parity"]["decision_flips"] == 0


def test_each_opening_of_the_test_split_is_written_down(run):
    (opening,) = (run.folder / "test_openings.jsonl").read_text().splitlines()
    assert json.loads(opening)["bundle_sha256"] == Scorer.open(run.folder / "bundle").bundle.sha256


def test_the_bundle_carries_no_picture_of_the_data(run):
    known = {record.sha256 for name in ("train", "test") for record in pipeline.records(run, name)}
    assert not known & {
        runs.file_sha256(path) for path in (run.folder / "bundle").rglob("*") if path.is_file()
    }


def own_pictures(root: Path, count: int, positive, without=()) -> list[str]:
    """A folder with a table; returns the overrides that point at it."""
    root.mkdir()
    lines = ["image,needs_in_person,lesion_id"]
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        if number not in without:
            Image.fromarray(pixels).save(root / f"{number:02}.png")
        lines.append(f"{number:02}.png,{positive(number)},L{number}")
    (root / "cases.csv").write_text("\n".join(lines))
    return ["data={source: folder}", f"data.root={root}"]


@pytest.mark.parametrize("key", ["model.weights", "ensemble.backbones"])
@pytest.mark.parametrize(
    ("weights", "said"), [(".", "is a folder; expected one safetensors file"), ("none.st", "no such weights")]
)
def test_weights_that_are_no_file_are_refused_before_the_data_are_read(load, tmp_path, key, weights, said):
    path = tmp_path / weights
    value = f"[{{backbone: test_vit, weights: {path}}}]" if key.startswith("ensemble") else path
    with pytest.raises(RunError, match=said):
        pipeline.run_verb("run", load(f"{key}={value}"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_table_of_one_class_is_refused_at_the_split(load, tmp_path):
    overrides = own_pictures(tmp_path / "pictures", 40, lambda number: True)
    with pytest.raises(SplitError, match="'validation' has no case without need of an in-person visit"):
        pipeline.run_verb("split", load(*overrides), tmp_path / "runs")
    assert not list((tmp_path / "runs").rglob("splits.json"))


def test_one_patient_id_for_everybody_unknown_is_remarked_upon_at_the_split(load, tmp_path, capsys):
    overrides = own_pictures(tmp_path / "pictures", 60, lambda number: number % 2 == 0)
    table = tmp_path / "pictures" / "cases.csv"
    head, *rows = table.read_text().split("\n")
    patients = ["clinic" if number < 30 else f"P{number}" for number in range(60)]
    lines = [f"{row},{patient}" for row, patient in zip(rows, patients, strict=True)]
    table.write_text("\n".join([f"{head},patient_id", *lines]))
    pipeline.run_verb("split", load(*overrides), tmp_path / "runs")
    printed = capsys.readouterr().out
    assert "  30 of 60 cases are in '" in printed
    assert "most of their pictures have one patient." in printed


def test_photographs_without_a_label_are_counted_at_the_split(load, tmp_path, capsys):
    overrides = own_pictures(tmp_path / "pictures", 60, lambda number: "" if number < 7 else number % 2 == 0)
    pipeline.run_verb("split", load(*overrides), tmp_path / "runs")
    assert "  7 photographs without a label are in no split\n" in capsys.readouterr().out


def test_dropped_pictures_are_counted_on_the_console_and_named_in_a_file(load, tmp_path, capsys):
    overrides = own_pictures(tmp_path / "pictures", 60, lambda number: number % 2 == 0, without=range(4))
    made = pipeline.run_verb("manifest", load(*overrides), tmp_path / "runs")
    printed = capsys.readouterr().out
    assert "  dropped 4: image_missing\n" in printed
    assert f"  the dropped pictures are listed in {made.folder / 'manifest.json'}\n" in printed
    header = json.loads((made.folder / "manifest.json").read_text())
    assert header["dropped"] == {"image_missing": ["00.png", "01.png", "02.png", "03.png"]}


def test_calibration_cases_that_partly_had_a_look_before_need_a_reason(run, load, home, tmp_path):
    moved = tmp_path / "experiments"
    shutil.copytree(home, moved)
    path = moved / "ledger.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    shared = {**line, "cases_sha256": "a" * 64, "files_sha256": "b" * 64, "pictures": line["pictures"][:1]}
    path.write_text(json.dumps(shared) + "\n")
    other = load("calibrate.target_sensitivity=0.75")
    with pytest.raises(CalibrationError, match="on these calibration cases, or on some of them, once before"):
        pipeline.run_verb("calibrate", other, moved / "runs")
    path.write_text(json.dumps({**shared, "pictures": ["0" * 16]}) + "\n")
    pipeline.run_verb("calibrate", other, moved / "runs")


def test_too_few_positives_leave_no_policy_behind(home, load):
    few = r"^\d+ (patients|lesions) in split 'calibration' need .* takes at least"
    with pytest.raises(CalibrationError, match=few):
        pipeline.run_verb("calibrate", load("calibrate.target_sensitivity=0.99"), home / "runs")
    newest = max((home / "runs").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    assert not (newest / "policy.json").exists()
    assert not (newest / "certificate.json").exists()


def test_a_picture_that_changed_after_the_manifest_stops_the_evaluation(run, load, home, tmp_path):
    moved = tmp_path / "experiments"
    shutil.copytree(home, moved)
    copy = runs.find_or_make(load(), moved / "runs")
    shutil.rmtree(copy.folder / "report")
    victim = pipeline.data_root(copy) / pipeline.records(copy, "test")[0].path
    victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
    with pytest.raises(ManifestError):
        pipeline.run_verb("evaluate", load(), moved / "runs")
    assert not (copy.folder / "report" / "index.html").exists()


def stopped(load, folder: Path) -> runs.Run:
    """A run that SIGTERM stopped once its training had written a state."""

    def stop():
        while not list(folder.glob("runs/*/train_state/*.json")):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    config = load("train.checkpoint_minutes=0")
    with pytest.raises(KeyboardInterrupt):
        pipeline.run_verb("run", config, folder / "runs")
    return runs.find_or_make(config, folder / "runs")


def test_an_interrupted_training_goes_on_in_the_same_run_and_leaves_no_state(load, home, tmp_path, capsys):
    shutil.copytree(home / "cache", tmp_path / "cache")
    first = stopped(load, tmp_path)
    assert list((first.folder / "train_state").glob("*.json"))
    resumed = pipeline.run_verb("train", load(), tmp_path / "runs", resume=True)
    assert resumed.folder == first.folder
    assert "  resuming in epoch " in capsys.readouterr().out
    assert not (resumed.folder / "train_state").exists()


def test_a_state_is_taken_over_by_a_run_that_differs_after_the_training(load, home, tmp_path, capsys):
    shutil.copytree(home / "cache", tmp_path / "cache")
    first = stopped(load, tmp_path)
    other = pipeline.run_verb("train", load("calibrate.confidence=0.7"), tmp_path / "runs")
    assert other.folder != first.folder
    assert f"training state reused from {first.folder.name}" in capsys.readouterr().out


def test_a_state_that_a_full_disk_does_not_take_over_is_taken_over_once_there_is_room(dealt, load):
    """Half a state here would pass for a damaged one, and hide the whole one that lies beside it."""
    import torch

    from lesion_triage.train import state_files

    first = runs.find_or_make(load(), dealt / "runs")
    key = pipeline.training_key(first)
    state_files.write(first.folder, key, state_files.Progress(epoch=1), {"weights": torch.arange(5000)})
    other = pipeline.run_verb("split", load("calibrate.confidence=0.7"), dealt / "runs")
    prepare_resume, before = (
        pipeline.STAGES["train"].prepare_resume,
        resource.getrlimit(resource.RLIMIT_FSIZE),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(RunError, match=rf"state of {first.folder.name} cannot be copied here \(.*room"):
            prepare_resume(other, True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    prepare_resume(other, True)
    found = state_files.read(other.folder, key)
    assert found is not None
    assert found[0].epoch == 1
    assert not list(other.folder.glob(".train_state*"))


def recorded(run: runs.Run):
    """MLflow's client and what it has of a run."""
    from mlflow.tracking import MlflowClient  # noqa: TID251

    client = MlflowClient(tracking_uri=f"sqlite:///{run.folder.parent.parent / 'mlflow.db'}")
    return client, client.get_run((run.folder / "mlflow_run_id.txt").read_text().strip())


def interrupted(config, folder: Path) -> runs.Run:
    """A run whose training was broken off at its third epoch, of which MLflow was told."""
    begun = pipeline.run_verb("split", config, folder / "runs")

    def stop(line):
        if line["epoch"] == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        pipeline.train(begun, pipeline.open_tracker(begun), stop)
    return begun


def test_a_resumed_training_tells_mlflow_of_no_epoch_twice(run, load, home, tmp_path):
    shutil.copytree(home / "cache", tmp_path / "cache")
    begun = interrupted(load("tracking.enabled=true"), tmp_path)
    pipeline.train(begun, pipeline.open_tracker(begun))
    client, found = recorded(begun)
    for key in ("train.loss", "train.validation_auroc", "train.seconds"):
        assert [point.step for point in client.get_metric_history(found.info.run_id, key)] == [1, 2, 3, 4]


def test_a_training_that_is_taken_over_tells_mlflow_of_no_epoch_twice(run, load, home, tmp_path):
    shutil.copytree(home / "cache", tmp_path / "cache")
    begun = interrupted(load("tracking.enabled=true"), tmp_path)
    pipeline.run_verb("train", load("tracking.enabled=true", "calibrate.confidence=0.7"), tmp_path / "runs")
    assert pipeline.run_verb("train", load("tracking.enabled=true"), tmp_path / "runs").folder == begun.folder
    client, found = recorded(begun)
    history = client.get_metric_history(found.info.run_id, "train.loss")
    assert sorted(point.step for point in history) == [1, 2, 3, 4]


def test_mlflow_keeps_the_curve_of_the_weights_that_are_kept(run, load, home, tmp_path):
    """Other weights to begin with in a file of that name: the run is the same, its training begins anew."""
    import timm
    import torch
    from safetensors.torch import save_file

    def weights(seed: int) -> None:
        torch.manual_seed(seed)
        network = timm.create_model("test_efficientnet", num_classes=0)
        save_file(network.state_dict(), tmp_path / "w.safetensors")

    shutil.copytree(home / "cache", tmp_path / "cache")
    config = load("tracking.enabled=true", f"model.weights={tmp_path / 'w.safetensors'}")
    weights(0)
    begun = interrupted(config, tmp_path)
    weights(1)
    done = pipeline.run_verb("train", config, tmp_path / "runs")
    assert done.folder == begun.folder
    client, found = recorded(done)
    history = sorted(
        client.get_metric_history(found.info.run_id, "train.loss"), key=lambda point: point.timestamp
    )
    curve = json.loads((done.folder / "learning_curve.json").read_text())
    assert {point.step: point.value for point in history} == {line["epoch"]: line["loss"] for line in curve}


def test_a_run_whose_stages_were_all_taken_over_is_recorded_whole(run, load, home, tmp_path, capsys):
    shutil.copytree(home / "cache", tmp_path / "cache")
    shutil.copy(home / "ledger.jsonl", tmp_path)
    before = tmp_path / "runs" / run.folder.name
    shutil.copytree(run.folder, before)
    (before / "config.sha256").unlink()  # as if it were of other settings
    capsys.readouterr()
    taken = pipeline.run_verb("run", load("tracking.enabled=true"), tmp_path / "runs")
    out = capsys.readouterr().out
    assert out.count(f": reused from {run.folder.name}") == len(pipeline.STAGES)
    assert "require a reason" not in out  # nothing is trained, and the threshold is the one chosen before
    openings = "test_openings.jsonl"  # the results are of the same openings
    assert (taken.folder / openings).read_text() == (before / openings).read_text()
    client, found = recorded(taken)
    bundle = open_bundle(run.folder / "bundle")
    assert found.data.tags["certificate_id"] == bundle.certificate.certificate_id()
    assert found.data.tags["bundle_sha256"] == bundle.sha256
    assert found.data.metrics["certificate.threshold"] == bundle.policy.threshold
    told = json.loads((run.folder / "report" / "results.json").read_text())
    assert found.data.metrics["test.all.cases"] == told["cases"]
    whole = next(part for part in told["slices"] if part["name"] == "all")
    assert found.data.metrics["test.all.specificity"] == whole["metrics"]["specificity"]["value"]
    assert {"bundle", "report"} <= {file.path for file in client.list_artifacts(found.info.run_id)}


def test_drawn_pictures_that_were_deleted_with_the_cache_are_drawn_again(run, home, tmp_path):
    copied = runs.Run(run.config, tmp_path / "runs" / run.folder.name)
    shutil.copytree(run.folder, copied.folder)
    record = pipeline.records(copied, "test")[0]
    before = manifests.read_picture(pipeline.data_root(run), record)
    assert manifests.read_picture(pipeline.data_root(copied), record) == before
    next((copied.cache).glob("synthetic-*/images/*")).unlink()
    pipeline.data_root(copied)
    drawn = [{path.name for path in one.cache.glob("synthetic-*/images/*")} for one in (run, copied)]
    assert drawn[0] == drawn[1]


def test_a_corrected_label_is_noticed_and_the_verb_says_what_changed(tmp_path, capsys):
    data = tmp_path / "data"
    table = synthetic.draw(4, 0.5, 0, data)
    config = Config.model_validate(
        {
            "name": "own",
            "data": {"source": "folder", "root": data, "table": table.name},
            "tracking": {"enabled": False},
        }
    )
    first = pipeline.run_verb("manifest", config, tmp_path / "runs")
    table.write_text(table.read_text().replace("false", "true"))
    capsys.readouterr()
    with pytest.raises(RunError, match="'manifest' has not been done"):
        pipeline.run_verb("calibrate", config, tmp_path / "runs")
    changed = f"what 'manifest' of {first.folder.name} was made from has changed since"
    assert changed in " ".join(capsys.readouterr().out.split())
    second = pipeline.run_verb("manifest", config, tmp_path / "runs")
    assert second.folder != first.folder
    assert all(record.needs_in_person for record in manifests.read(second.folder)[0].records)


@pytest.mark.parametrize("rank", ["1", "abc"])
def test_a_rank_that_no_torchrun_gave_leaves_a_command_as_it_is(rank, monkeypatch):
    """A cluster may set it for each machine; a command with a rank above 0 does nothing but train."""
    monkeypatch.setenv("RANK", rank)
    assert not pipeline.is_nonzero_rank()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a job")
    if rank == "1":
        assert pipeline.is_nonzero_rank()
    else:
        with pytest.raises(ConfigError, match="RANK is 'abc' in the environment"):
            pipeline.is_nonzero_rank()


def manifest_of(folder: Path, **sections: object) -> manifests.Manifest:
    """What the verb leaves for the pictures in ``data`` with the table ``labels.csv`` beside that folder."""
    data = {"source": "folder", "root": folder / "data", "table": "../labels.csv"}
    config = Config.model_validate({"name": "own", "data": data, "tracking": {"enabled": False}, **sections})
    return manifests.read(pipeline.run_verb("manifest", config, folder / "runs").folder)[0]


def test_a_label_is_noticed_whose_table_lies_elsewhere_and_has_its_old_size_and_time(tmp_path):
    drawn, table = synthetic.draw(4, 0.5, 0, tmp_path / "data"), tmp_path / "labels.csv"
    table.write_text(drawn.read_text().replace(",true,", ",1,").replace(",false,", ",0,"))
    assert {record.needs_in_person for record in manifest_of(tmp_path).records} == {True, False}
    before = table.stat()
    table.write_text(table.read_text().replace(",0,", ",1,"))
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert table.stat().st_size == before.st_size
    assert {record.needs_in_person for record in manifest_of(tmp_path).records} == {True}


def test_a_picture_that_a_limit_refused_is_there_when_the_limit_is_raised(tmp_path):
    drawn = synthetic.draw(12, 0.5, 0, tmp_path / "data")
    drawn.rename(tmp_path / "labels.csv")
    first = next((tmp_path / "data" / "images").iterdir())
    with first.open("ab") as stream:
        stream.write(bytes(200_000))  # what follows a JPEG is ignored
    assert manifest_of(tmp_path, pixels={"size_px": 64, "max_bytes": 200_000}).dropped == {
        "image_too_large": (f"images/{first.name}",)
    }
    assert manifest_of(tmp_path, pixels={"size_px": 64}).dropped == {}


def test_resume_refuses_to_begin_from_nothing(load, home, tmp_path):
    shutil.copytree(home / "cache", tmp_path / "cache")
    with pytest.raises(RunError, match=r"no interrupted training .* omit --resume"):
        pipeline.run_verb("run", load(), tmp_path / "runs", resume=True)


def test_fresh_begins_anew_beside_an_interrupted_training(load, home, tmp_path, capsys):
    shutil.copytree(home / "cache", tmp_path / "cache")
    stopped(load, tmp_path)
    capsys.readouterr()
    pipeline.run_verb("manifest", load(), tmp_path / "runs", fresh=True)
    pipeline.run_verb("split", load(), tmp_path / "runs")
    newest = runs.find_or_make(load(), tmp_path / "runs")
    assert not (newest.folder / "train_state").exists()


def working_at(stage: str, home: Path, work: str) -> subprocess.Popen[str]:
    """A process of its own that does a stage in the run of ``home``, with other work in the stage's place."""
    code = (
        "import dataclasses, sys, time\n"
        "from pathlib import Path\n"
        "from lesion_triage import config_file, pipeline, runs\n"
        "folder = Path(sys.argv[1])\n"
        "run = runs.find_or_make(config_file.load(folder / 'small.yaml'), folder / 'runs')\n"
        f"def work(run, tracker):\n    {work}\n"
        f"stage = dataclasses.replace(pipeline.STAGES[{stage!r}], work=work)\n"
        "pipeline.ensure_stage(stage, run, pipeline.open_tracker(run))\n"
    )
    command = [sys.executable, "-c", code, str(home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("format_before", [None, 1])
def test_results_of_an_older_way_to_measure_are_measured_again(
    run, load, home, tmp_path, capsys, format_before
):
    """Before the results had a number, the settings alone decided."""
    for name in ("cache", "runs"):
        shutil.copytree(home / name, tmp_path / name)
    old = runs.Run(load(), tmp_path / "runs" / run.folder.name)
    settings = old.config.evaluate.model_dump()
    decides = settings if format_before is None else (format_before, settings)
    record = old.record("evaluate")
    bundle = old.record("export")
    assert record is not None
    assert bundle is not None
    inputs = runs.inputs_sha256(stage="evaluate", decides=decides, needs={"export": bundle.sha256()})
    files = sorted(record.outputs)
    old.record_stage("evaluate", inputs, files, 1.0)
    again = pipeline.run_verb("evaluate", load(), tmp_path / "runs")
    out = capsys.readouterr().out
    assert "evaluate: unchanged" not in out
    assert "export: reused from" in out
    assert again.folder != old.folder
    assert (again.folder / "report" / "results.json").read_bytes() == (
        run.folder / "report" / "results.json"
    ).read_bytes()


@pytest.fixture
def dealt(home, load, tmp_path) -> Path:
    """Experiments in which small.yaml has manifest and split, and no more."""
    if (home / "cache").exists():
        shutil.copytree(home / "cache", tmp_path / "cache")
    shutil.copy(home / "small.yaml", tmp_path)
    pipeline.run_verb("split", load(), tmp_path / "runs")
    return tmp_path


def at_it(home: Path) -> subprocess.Popen[str]:
    """A process that trains until there is a file called go."""
    wait = "print('at it', flush=True)\n    while not (folder / 'go').exists(): time.sleep(0.05)"
    process = working_at(
        "train", home, f"{wait}\n    [(run.folder / n).write_text('1') for n in stage.outputs]"
    )
    assert process.stdout is not None
    while process.stdout.readline() != "at it\n":
        assert process.poll() is None
    return process


def test_a_second_process_waits_for_the_first_and_finds_its_work_done(dealt, load):
    run = runs.find_or_make(load(), dealt / "runs")
    first = at_it(dealt)
    second = working_at("train", dealt, "print('trained twice')")
    assert second.stdout is not None
    waiting = f"train: another process is running it in {run.folder}; waiting for it to finish\n"
    assert second.stdout.readline() == waiting
    (dealt / "go").touch()
    first.communicate(timeout=60)
    assert second.communicate(timeout=60) == ("train: unchanged\n", None)
    assert (first.returncode, second.returncode) == (0, 0)
    assert (run.folder / "checkpoint.safetensors").read_text() == "1"


def test_who_waits_goes_on_when_the_first_is_killed(dealt, load):
    first = at_it(dealt)
    second = working_at("train", dealt, "[(run.folder / n).write_text('2') for n in stage.outputs]")
    assert second.stdout is not None
    assert "another process is running it" in second.stdout.readline()
    first.kill()
    first.communicate()
    assert second.communicate(timeout=60) == ("train\n", None)
    run = runs.find_or_make(load(), dealt / "runs")
    assert (run.folder / "checkpoint.safetensors").read_text() == "2"


def test_who_waited_does_not_work_with_what_has_changed_meanwhile(dealt, load, capsys):
    weights = dealt / "first.safetensors"
    weights.write_bytes(b"before")
    run = pipeline.run_verb("split", load(f"model.weights={weights}"), dealt / "runs")
    worked = []
    stage = dataclasses.replace(pipeline.STAGES["train"], work=lambda run, tracker: worked.append(run))
    with ThreadPoolExecutor(1) as beside:
        with locks.hold_lock(run.folder / "stages" / "train.lock"):
            waits = beside.submit(pipeline.ensure_stage, stage, run, pipeline.open_tracker(run))
            while "another process is running it" not in capsys.readouterr().out:
                time.sleep(0.01)
            weights.write_bytes(b"after")
        with pytest.raises(RunError, match=r"changed while .* waited for another .*; run the command again"):
            waits.result(timeout=60)
    assert not worked
    assert run.record("train") is None


def test_an_audit_takes_no_training_over_that_another_process_is_at(run, load, home, tmp_path):
    for name in ("cache", "runs"):
        shutil.copytree(home / name, tmp_path / name)
    asked = load("calibrate.confidence=0.7")
    other = pipeline.run_verb("split", asked, tmp_path / "runs")
    with locks.hold_lock(other.folder / "stages" / "train.lock"):
        pipeline.run_verb("audit", asked, tmp_path / "runs")
        assert other.record("train") is None
    pipeline.run_verb("audit", asked, tmp_path / "runs")
    assert other.record("train") == run.record("train")


def test_what_a_record_names_is_not_removed_by_another_process_that_gives_up(run, load, home, tmp_path):
    """As on a disk whose locks fail: the record of the first comes while the second is at work."""
    shutil.copytree(run.folder, tmp_path / "runs" / run.folder.name)
    late = runs.find_or_make(load(), tmp_path / "runs")
    record = late.folder / "stages" / "train.json"
    said = record.read_bytes()
    record.unlink()
    checkpoint = (late.folder / "checkpoint.safetensors").read_bytes()
    curve = (late.folder / pipeline.CURVE).read_bytes()

    def work(run, tracker):
        (run.folder / "checkpoint.safetensors").write_bytes(checkpoint)
        (run.folder / pipeline.CURVE).write_bytes(curve)
        record.write_bytes(said)
        raise KeyboardInterrupt

    stage = dataclasses.replace(pipeline.STAGES["train"], work=work)
    with pytest.raises(KeyboardInterrupt):
        pipeline.ensure_stage(stage, late, pipeline.open_tracker(late))
    assert (late.folder / "checkpoint.safetensors").read_bytes() == checkpoint


def test_a_backbone_that_cannot_see_the_pictures_is_refused_before_any_is_decoded(dealt, load):
    before = {path for path in (dealt / "cache").rglob("*") if path.stat().st_size}
    asked = load("model.backbone=test_vit3", "pixels.size_px=96", "train.small_first=0.5")
    with pytest.raises(TrainingError, match="'test_vit3', built for 96 px, takes no pictures of 64 px"):
        pipeline.run_verb("train", asked, dealt / "runs")
    assert before == {path for path in (dealt / "cache").rglob("*") if path.stat().st_size}


def test_the_demonstration_refuses_to_be_done_by_several_processes(home, tmp_path, monkeypatch):
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({**SMALL, "train": {**SMALL["train"], "devices": 2}}))
    with pytest.raises(ConfigError, match=r"trains in one process; set train\.devices to 1"):
        demo.demo(tmp_path / "two.yaml", tmp_path / "runs")
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun says it
    with pytest.raises(ConfigError, match="trains in one process"):
        demo.demo(home / "small.yaml", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
