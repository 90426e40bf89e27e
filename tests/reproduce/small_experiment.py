"""A small experiment on drawn pictures, and how it is written to a folder."""

from __future__ import annotations

from pathlib import Path

import yaml

CONFIG = {
    "name": "small",
    "data": {"source": "synthetic", "synthetic": {"lesions": 240, "positive_share": 0.4}},
    "split": {"fractions": {"train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2}},
    "pixels": {"size_px": 64},
    "model": {"backbone": "test_efficientnet", "weights": "none"},
    "train": {"epochs": 3, "batch_size": 16, "learning_rate": 5e-3, "ema_decay": 0.8},
    "calibrate": {"target_sensitivity": 0.8, "confidence": 0.8},
    "evaluate": {"bootstrap_draws": 100},
    "audit": {"pictures": 0},
}
QUEUE = [
    "--drawn-auroc",
    "0.9",
    "--prevalence",
    "0.1",
    "--sensitivity",
    "0.9",
    "--deadline-hours",
    "4",
    "--cases",
    "2000",
]
VERSION = {
    "takes": "Seconds on any processor.",
    "shows": "Agreement shows that this test can be passed.",
    "steps": [
        {"kind": "train", "name": "seed-{seed}", "config": "small.yaml"},
        {"kind": "queue", "name": "waits", "arguments": QUEUE},
    ],
    "table": [
        {"cells": "*.bundle_content", "on_same_machine": 0, "because": "the same seed, the same machine"},
        {"cells": "seed-0.all.auroc", "within": 0.1, "on_same_machine": 0, "because": "rounding, elsewhere"},
        {"cells": "seed-?.cases", "within": 0, "because": "dealing is exact everywhere"},
        {"cells": "waits.*.mean.relative", "within": 1e-6, "because": "a function of the seed"},
    ],
}
EXPERIMENT = {"asks": "Does the same come out twice?", "full": VERSION, "quick": VERSION}


def write(folder: Path, experiment: dict = EXPERIMENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    return folder
