"""Folders of evaluated runs, made without a training: tiny bundle, drawn pictures, logits out of the air."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml

import tiny_bundle as tiny
from lesion_triage import config_file, pipeline
from lesion_triage.bundle.document import sha256_of
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import Splits
from lesion_triage.predictions import Predictions
from lesion_triage.runs import Run
from made_predictions import row

PICTURES = ("referred", "below", "black")


def make_run(
    folder: Path, *, seed: int = 0, cases: int = 120, skill: float = 2.0, photographs: int = 1
) -> Path:
    """An evaluated run on drawn data, all but its report's page.

    Args:
        folder: made.
        seed: of the logits; which cases there are and which are positive does not depend on it.
        cases: of the test split; as many again are for training.
        skill: how far apart the logits of both classes lie.
        photographs: of each case.
    """
    folder.mkdir(parents=True)
    bundle = tiny.make(folder / "bundle", threshold=0.3, band_limits=(0.8, 0.5, 0.2))
    content = {"name": "made", "data": {"source": "synthetic"}, "evaluate": {"bootstrap_draws": 200}}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    random = np.random.default_rng(seed)
    certificate = bundle.certificate
    rows = [
        row(
            f"test-{number}-{place}",
            f"test-{number}",
            float(random.normal() + (skill if number % 3 == 0 else -1.5)),
            number % 3 == 0,
            source=f"camera-{number % 2}",
            sex=("female", "male")[number % 4 // 2],
            age_approx=30.0 + 10 * (number % 5),
            diagnosis_confirm_type="histopathology" if number % 2 else "",
        )
        for number in range(cases)
        for place in range(photographs)
    ]
    hashes = certificate.manifest_sha256, certificate.splits_sha256, certificate.model_sha256
    Predictions("test", *hashes, tuple(rows)).write(folder / "predictions")
    records = [_record(f"train-{number}", number) for number in range(cases)]
    records += [_record(one.image_id, int(one.case_id.partition("-")[2])) for one in rows]
    digest = Manifest(tuple(records), "synthetic", True, {}, ("Drawn.",)).write(folder)
    assignment = {one.image_id: one.image_id.partition("-")[0] for one in records}
    Splits(digest, 0, {"train": 0.5, "validation": 0.0, "calibration": 0.0, "test": 0.5}, assignment).write(
        folder
    )
    pictures = pipeline.data_root(Run(config_file.load(folder / "config.yaml"), folder))
    pictures.mkdir(parents=True, exist_ok=True)
    for kind in PICTURES:
        (pictures / f"{kind}.png").write_bytes(tiny.picture_bytes(kind))
    (folder / "report").mkdir()
    (folder / "report" / "results.json").write_text(json.dumps({"parity": {"decision_flips": 0}}))
    return folder


def _record(image_id: str, number: int) -> Record:
    picture = PICTURES[number % 2]
    return Record(
        image_id=image_id,
        path=f"{picture}.png",
        lesion_id=image_id.rpartition("-")[0] if image_id.startswith("test") else image_id,
        needs_in_person=number % 3 == 0,
        source=f"camera-{number % 2}",
        sex=("female", "male")[number % 4 // 2],
        age_approx=30.0 + 10 * (number % 5),
        sha256=sha256_of(tiny.picture_bytes(picture)),
        width_px=160,
        height_px=120,
        attribution="A program",
        copyright_license="CC0-1.0",
    )
