"""The same twice: another process and another folder, and another number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from small_experiment import write

import tiny_bundle
from lesion_triage import cli, predictions
from lesion_triage.bundle.content_hash import content_sha256
from lesion_triage.bundle.store import Bundle, seal

ROOT = Path(__file__).resolve().parents[2]
EPOCH = "1700000000"


def argv_for(folder: Path, verb: str, *more: str) -> list[str]:
    """Of a command of the pipeline on the small configuration, which is written to ``folder``."""
    config = write(folder) / "small.yaml"
    place = ["--runs", str(folder / "runs"), "--set", "tracking.enabled=false"]
    return [verb, str(config), *place, *more]


def run_in(folder: Path) -> Path:
    """The newest run."""
    return max((folder / "runs").iterdir())


def run_stage(folder: Path, verb: str, *more: str) -> Path:
    """The pipeline in a process of its own; the run's folder."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "serve")])
    environment = {**os.environ, "PYTHONPATH": paths, "SOURCE_DATE_EPOCH": EPOCH}
    command = [sys.executable, "-m", "lesion_triage", *argv_for(folder, verb, *more)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return run_in(folder)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory) -> Path:
    """In this process, in which other tests may have run."""
    folder = tmp_path_factory.mktemp("once")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SOURCE_DATE_EPOCH", EPOCH)
        assert cli.main(argv_for(folder, "run")) == 0
    return run_in(folder)


@pytest.fixture(scope="module")
def second_run(tmp_path_factory) -> Path:
    return run_stage(tmp_path_factory.mktemp("again"), "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        "manifest.csv",
        "splits.json",
        "checkpoint.safetensors",
        "model.onnx",
        "predictions/test.csv",
        "certificate.json",
        "policy.json",
        "bundle/bundle.json",
        "report/results.json",
    ],
)
def test_the_same_seed_makes_the_same_file_in_another_process_and_folder(first_run, second_run, file):
    assert (first_run / file).read_bytes() == (second_run / file).read_bytes()


def test_content_is_what_a_bundle_does_and_promises_and_not_when_that_was(tmp_path):
    def sealed(name: str, **changes) -> Bundle:
        return seal(tmp_path / name, **{**parts, **changes})

    parts = tiny_bundle.seal_arguments()
    look = {"issued_at": "2031-01-01T00:00:00Z", "purpose": "once more", "confidence_if_selected": 0.9}
    later = parts["certificate"].model_copy(update=look)
    first, second = (
        sealed("one"),
        sealed(
            "two", certificate=later, created_at=datetime(2031, 1, 1, tzinfo=UTC), model_card="# Another\n"
        ),
    )
    assert second.sha256 != first.sha256
    assert content_sha256(second) == content_sha256(first)
    weaker = parts["certificate"].model_copy(update={"target_sensitivity": 0.5})
    assert content_sha256(sealed("three", certificate=weaker)) != content_sha256(first)
    assert content_sha256(tiny_bundle.make(tmp_path / "four", deadline_hours=8.0)) != content_sha256(first)


def calibration(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the calibration photographs by the exported graph, and what is true of them."""
    table, _ = predictions.read(run / "predictions", "calibration")
    rows = [row for row in table.rows if row.logit is not None]
    return np.array([row.logit for row in rows]), np.array([row.needs_in_person for row in rows])


def auroc(logits: np.ndarray, positive: np.ndarray) -> float:
    """Mann-Whitney: the share of pairs in which the positive one has the higher logit."""
    return float((logits[positive][:, np.newaxis] > logits[~positive]).mean())


@pytest.mark.slow
def test_two_processes_agree_with_one_that_sees_their_parts_within_what_the_page_states(tmp_path):
    """No batch statistics in this backbone and no dropout, so nothing but the order of sums differs."""
    common = [
        *("--set", "model.backbone=test_vit", "--set", "pixels.size_px=160", "--set", "train.epochs=2"),
        *("--set", "model.drop_rate=0", "--set", "model.drop_path_rate=0", "--set", "train.accelerator=cpu"),
    ]
    assert cli.main(argv_for(tmp_path / "one", "train", *common)) == 0
    one = run_in(tmp_path / "one")
    two = run_stage(tmp_path / "two", "train", *common, "--set", "train.devices=2")
    (ours, positive), (theirs, _) = calibration(one), calibration(two)
    print(f"largest logit difference {np.abs(ours - theirs).max():.2g}, standard deviation {ours.std():.2g}")
    print(f"AUROC {auroc(ours, positive):.4f} and {auroc(theirs, positive):.4f}")
    assert np.abs(ours - theirs).max() < 1e-3 * ours.std()
    assert auroc(ours, positive) == pytest.approx(auroc(theirs, positive), abs=0.001)
