"""Patient-grouped cross-validation of a recipe, beside logistic regression on frozen ImageNet features.

For a dataset whose test split is too small to say much. ``--part development`` keeps to the splits train
and validation, and is what a recipe may be chosen by; ``--part all`` uses every labelled picture, once, when
it is chosen. Needs the training environment: ``python experiments/pad-ufes-20/cross_validate.py --help``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lesion_triage import config_file, pipeline
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.policy import aggregate_logits
from lesion_triage.calibrate.metrics import Sample, auroc_difference, summarise
from lesion_triage.config import Config
from lesion_triage.console import echo
from lesion_triage.data import manifest, pixel_cache
from lesion_triage.data.grouping import connected_groups
from lesion_triage.data.pixel_cache import Pixels
from lesion_triage.data.records import Record
from lesion_triage.export.onnx_graph import Views
from lesion_triage.train import loop
from lesion_triage.train.checkpoint import load_checkpoint
from lesion_triage.train.data_loading import SCORING_BATCH_SIZE, Pictures, embeddings
from lesion_triage.train.network import TriageNetwork
from lesion_triage.train.weights import create_backbone

Floats = NDArray[np.float64]


def main() -> None:
    """Train once for each fold, print both AUROCs and their difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data-root", type=Path, metavar="DIR")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--runs", type=Path, default=Path("experiments/runs"), metavar="DIR")
    parser.add_argument("--part", choices=("development", "all"), default="development")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the result, for programs")
    arguments = parser.parse_args()
    loaded = config_file.load(arguments.config, arguments.overrides, arguments.data_root)
    for verb in ("manifest", "split"):
        run = pipeline.run_verb(verb, loaded, arguments.runs)
    dataset_manifest, digest = manifest.read(run.folder)
    records: list[Record] = [
        record for record in dataset_manifest.records if record.needs_in_person is not None
    ]
    if arguments.part == "development":
        records = [*pipeline.records(run, "train"), *pipeline.records(run, "validation")]
    pixels = pixel_cache.load_pixels(records, pipeline.data_root(run), loaded.pixels, run.cache)
    folds = assign_folds(records, arguments.folds)
    fine_tuned, frozen = np.zeros(len(records)), np.zeros(len(records))
    features = _frozen_features(loaded, Pictures(records, pixels))
    for fold in range(arguments.folds):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fine_tuned[outside] = _fine_tuned(loaded, records, pixels, inside, outside)
        truth = [bool(records[index].needs_in_person) for index in inside]
        regression = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        frozen[outside] = regression.fit(features[inside], truth).decision_function(features[outside])
        echo(f"  fold {fold + 1} of {arguments.folds}")
    found = compare(records, folds, fine_tuned, frozen, loaded)
    found |= {"part": arguments.part, "folds": arguments.folds, "manifest_sha256": digest}
    for name in ("recipe", "frozen_features", "difference"):
        row = found[name]
        echo(f"{name.replace('_', ' ')}: {row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})")
    if arguments.json:
        write_atomically(arguments.json, (json.dumps(found, indent=2) + "\n").encode())


def assign_folds(records: Sequence[Record], folds: int) -> NDArray[np.intp]:
    """The fold of each record: groups whole, positive ones first, by a hash of their first picture."""

    def order(group: Sequence[Record]) -> tuple[bool, str]:
        name = min(record.image_id for record in group)
        negative = not any(record.needs_in_person for record in group)
        return negative, hashlib.sha256(name.encode()).hexdigest()

    fold_of = {
        record.image_id: number % folds
        for number, group in enumerate(sorted(connected_groups(records), key=order))
        for record in group
    }
    return np.array([fold_of[record.image_id] for record in records])


def compare(
    records: Sequence[Record], folds: NDArray[np.intp], fine_tuned: Floats, frozen: Floats, loaded: Config
) -> dict[str, Any]:
    """Case-level AUROC of both, ranked within each fold, and their difference; 95 % intervals by patient.

    Logits of networks that were trained apart are on scales of their own, so each fold's are turned into
    ranks before the folds are pooled.
    """
    cases: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        cases.setdefault(record.case_id, []).append(index)
    members = list(cases.values())
    positive = np.array(
        [any(records[index].needs_in_person for index in members_of_case) for members_of_case in members]
    )
    patients = [records[members_of_case[0]].unit_id for members_of_case in members]
    units = np.unique(patients, return_inverse=True)[1]
    fold = np.array([folds[members_of_case[0]] for members_of_case in members])

    def rank_within_folds(logits: Floats) -> Floats:
        values = np.array(
            [
                aggregate_logits(logits[members_of_case].tolist(), loaded.calibrate.aggregation)
                for members_of_case in members
            ]
        )
        ranks = np.zeros(values.size)
        for one in range(int(fold.max()) + 1):
            inside = fold == one
            ranks[inside] = np.argsort(np.argsort(values[inside])) / max(1, inside.sum() - 1)
        return ranks

    first, second = rank_within_folds(fine_tuned), rank_within_folds(frozen)
    draws, seed = loaded.evaluate.bootstrap_draws, loaded.evaluate.seed
    rows = {
        "recipe": summarise(Sample.of(first, positive), draws, seed, units)["auroc"],
        "frozen_features": summarise(Sample.of(second, positive), draws, seed, units)["auroc"],
        "difference": auroc_difference(first, second, positive, draws, seed, units),
    }
    counted = {"cases": len(members), "positives": int(positive.sum()), "patients": int(units.max()) + 1}
    return {**{name: asdict(row) for name, row in rows.items() if row is not None}, **counted}


def _fine_tuned(
    loaded: Config,
    records: Sequence[Record],
    pixels: Pixels,
    inside: NDArray[np.intp],
    outside: NDArray[np.intp],
) -> Floats:
    """Logits of the fold's pictures by a network that was trained on the others, its mean over the views."""
    parts = [
        Pictures([records[p] for p in indices], np.stack([pixels[p] for p in indices.tolist()]))
        for indices in (inside, outside)
    ]
    with tempfile.TemporaryDirectory() as folder:
        loop.train(loaded, parts[0], parts[1], Path(folder), "cross-validation")
        network = Views(load_checkpoint(Path(folder)), loaded.export.views, loaded.export.center_crop).eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(outside), SCORING_BATCH_SIZE):
            block = torch.from_numpy(np.array(parts[1].pixels[start : start + SCORING_BATCH_SIZE]))
            found.append(network(block)[0])
    return torch.cat(found).double().numpy()


def _frozen_features(loaded: Config, pictures: Pictures) -> Floats:
    body = create_backbone(loaded.model.backbone, loaded.model.weights, loaded.pixels.size_px)
    return embeddings(TriageNetwork(body, 1).eval(), pictures).double().numpy()


if __name__ == "__main__":
    main()
