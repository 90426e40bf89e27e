"""Choose members of an ensemble on folds of the splits train and validation; calibration and test stay shut.

    python experiments/ham10000-best/folds.py train FOLDER NAME --data-root DIR [--fold 0] [--set K=V ...]
    python experiments/ham10000-best/folds.py judge FOLDER NAME NAME+NAME ... --data-root DIR [--fold 0]

``train`` teaches one network on three of four folds of the lesions and writes what it says of the fourth;
``judge`` prints AUROC over all lesions, those confirmed by histopathology and those not of vidir_molemax, and
which share of the negative ones lies below the lowest, and below the fifth lowest, score of a positive one:
a threshold is certified at the low end, and AUROC hardly shows it. Of several names: of their mean, in which
none is lower than an ensemble holds it.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from lesion_triage import config_file, pipeline
from lesion_triage.bundle.policy import aggregate_logits
from lesion_triage.console import echo
from lesion_triage.data import pixel_cache
from lesion_triage.data.records import HISTOPATHOLOGY, Record
from lesion_triage.export.onnx_graph import Views
from lesion_triage.runs import Run
from lesion_triage.train import checkpoint, loop
from lesion_triage.train.losses import lowest_logit

Floats = NDArray[np.float64]
FOLDS = 4
CONFIG = Path(__file__).parents[2] / "configs" / "ham10000.best.yaml"


def main() -> None:
    """Train one network, or judge means of several."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("train", "judge"))
    parser.add_argument("folder", type=Path, help="what is trained lies below it")
    parser.add_argument("names", nargs="+", help="train: one, free to choose; judge: several, or sums")
    parser.add_argument("--data-root", type=Path, help="folder of HAM10000")
    parser.add_argument("--fold", type=int, default=0, choices=range(FOLDS), help="that judges (0)")
    parser.add_argument("--set", action="append", default=[], help=f"setting over {CONFIG.name}")
    parser.add_argument("--config", type=Path, default=CONFIG)
    arguments = parser.parse_args()
    settings = ["ensemble.backbones=[]", "tracking.enabled=false", *arguments.set]
    config = config_file.load(arguments.config, settings, arguments.data_root)
    base_config = config_file.load(arguments.config, settings[:2], arguments.data_root)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    split_run = Run(base_config, pipeline.run_verb("split", base_config, arguments.folder / "runs").folder)
    train_records, held_out_records = split_fold(split_run, arguments.fold)
    if arguments.verb == "train":
        if len(arguments.names) != 1 or "+" in arguments.names[0]:
            parser.error("train takes one name, without a '+'.")
        (name,) = arguments.names
        train(
            Run(config, split_run.folder),
            train_records,
            held_out_records,
            arguments.folder / f"{name}-{arguments.fold}",
        )
        return
    for name in {name for names in arguments.names for name in names.split("+")}:
        if not (arguments.folder / f"{name}-{arguments.fold}" / "logits.json").is_file():
            parser.error(
                f"{name}: nothing of this name was trained below {arguments.folder}; train it first."
            )
    for names in arguments.names:
        evaluate_means(names, lowest_logit(config.train), held_out_records, arguments.folder, arguments.fold)


def split_fold(run: Run, fold: int) -> tuple[list[Record], list[Record]]:
    """Photographs to learn from and to judge by: units dealt at random, positive and negative ones apart."""
    records = [*pipeline.records(run, "train"), *pipeline.records(run, "validation")]
    needs_visit: dict[str, bool] = {}
    for record in records:
        needs_visit[record.unit_id] = needs_visit.get(record.unit_id, False) or bool(record.needs_in_person)
    units = sorted(needs_visit)
    random.Random(7).shuffle(units)
    held_out = {
        unit
        for each in (True, False)
        for unit in [unit for unit in units if needs_visit[unit] is each][fold::FOLDS]
    }
    return (
        [record for record in records if record.unit_id not in held_out],
        [record for record in records if record.unit_id in held_out],
    )


def train(run: Run, train_records: list[Record], held_out_records: list[Record], folder: Path) -> None:
    """Leave checkpoint and logits in a folder; one that was interrupted goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    train_pictures, held_out_pictures = (
        loop.Pictures(
            records, pixel_cache.load_pixels(records, pipeline.data_root(run), run.config.pixels, run.cache)
        )
        for records in (train_records, held_out_records)
    )
    listener = loop.Listener(on_epoch=lambda line: echo(f"epoch {line.epoch}: {line.validation_auroc:.4f}"))
    loop.train(run.config, train_pictures, held_out_pictures, folder, run.config.identity_sha256(), listener)
    export = run.config.export
    network = Views(checkpoint.load_checkpoint(folder), export.views, export.center_crop).eval()
    with torch.inference_mode():
        logits = [
            float(logit)
            for start in range(0, len(held_out_records), 8)
            for logit in network(torch.from_numpy(np.array(held_out_pictures.pixels[start : start + 8])))[0]
        ]
    logit_by_image = {record.image_id: logit for record, logit in zip(held_out_records, logits, strict=True)}
    (folder / "logits.json").write_text(json.dumps(logit_by_image))


def evaluate_means(
    names: str, min_logit: float, held_out_records: list[Record], folder: Path, fold: int
) -> None:
    """Print a line for the mean of some networks."""
    members = [
        json.loads((folder / f"{name}-{fold}" / "logits.json").read_text()) for name in names.split("+")
    ]
    floor_logit = min_logit if len(members) > 1 else -np.inf
    cases: dict[str, list[Record]] = {}
    for record in held_out_records:
        cases.setdefault(record.case_id, []).append(record)

    def logit(record: Record) -> float:
        return float(np.mean([max(member[record.image_id], floor_logit) for member in members]))

    scores = np.array(
        [aggregate_logits([logit(record) for record in case], "max") for case in cases.values()]
    )
    positive = np.array([any(record.needs_in_person for record in case) for case in cases.values()])
    slices = (
        np.ones(len(cases), dtype=bool),
        np.array([is_histology_confirmed(case) for case in cases.values()]),
        np.array([all(record.source != "vidir_molemax" for record in case) for case in cases.values()]),
    )
    ranks = " ".join(f"{roc_auc_score(positive[part], scores[part]):.4f}" for part in slices)
    sorted_positive = np.sort(scores[positive])
    specificities = " ".join(f"{(scores[~positive] < sorted_positive[place]).mean():.3f}" for place in (0, 4))
    echo(f"{names}: {ranks}; below the positives {specificities}; lowest {scores.min():.2f}")


def is_histology_confirmed(case: list[Record]) -> bool:
    """A positive lesion by one photograph that says so, a negative one by all of them."""
    known = [record.diagnosis_confirm_type == HISTOPATHOLOGY for record in case]
    if any(record.needs_in_person for record in case):
        return any(found and record.needs_in_person for found, record in zip(known, case, strict=True))
    return all(known)


if __name__ == "__main__":
    main()
