"""The same twice: another process and another folder, and another number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from small_experiment import write

import tiny_bundle
from lesion_triage import predictions
from lesion_triage.bundle.content import content_sha256
from lesion_triage.bundle.store import Bundle, seal
from lesion_triage.calibrate.cases import cases_of

ROOT = Path(__file__).resolve().parents[2]
EPOCH = "1700000000"


def travel(folder: Path, *more: str) -> Path:
    """The whole road in a process of its own; the run's folder."""
    config = write(folder) / "small.yaml"
    words = ["run", str(config), "--runs", str(folder / "runs"), "--set", "tracking.enabled=false"]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "serve")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "SOURCE_DATE_EPOCH": EPOCH}
    command = [sys.executable, "-m", "lesion_triage", *words, *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    return run


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Path:
    return travel(tmp_path_factory.mktemp("once"))


@pytest.fixture(scope="module")
def again(tmp_path_factory) -> Path:
    return travel(tmp_path_factory.mktemp("again"))


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
def test_the_same_seed_makes_the_same_file_in_another_process_and_folder(once, again, file):
    assert (once / file).read_bytes() == (again / file).read_bytes()


def test_content_is_what_a_bundle_does_and_promises_and_not_when_that_was(tmp_path):
    def sealed(name: str, **changes) -> Bundle:
        return seal(tmp_path / name, **{**parts, **changes})

    parts = tiny_bundle.parts()
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


def auroc(run: Path) -> float:
    return json.loads((run / "report" / "results.json").read_text())["slices"][0]["metrics"]["auroc"]["value"]


def scores(run: Path) -> np.ndarray:
    table, _ = predictions.read(run / "predictions", "test")
    return np.array([max(case.logits) for case in cases_of(table) if None not in case.logits])


@pytest.mark.slow
def test_two_processes_that_see_the_parts_of_one_agree_within_the_stated_tolerance(tmp_path):
    """docs/reproducing.md states both; without batch statistics the parts of a batch do not matter."""
    common = [
        "--set",
        "model.backbone=test_vit",
        "--set",
        "model.drop_path_rate=0.0",
        "--set",
        "pixels.size_px=160",
    ]
    one = travel(tmp_path / "one", *common, "--set", "train.accumulate=2")
    two = travel(tmp_path / "two", *common, "--set", "train.devices=2", "--set", "train.accelerator=cpu")
    assert np.abs(scores(one) - scores(two)).max() < 1e-3
    assert auroc(one) == pytest.approx(auroc(two), abs=0.005)
