"""A folder of pictures that are learnt in a few steps, and a configuration small enough to search."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

CASES = 80

SMALL = {
    "name": "small",
    "data": {"source": "folder"},
    "split": {"fractions": {"train": 0.4, "validation": 0.3, "calibration": 0.2, "test": 0.1}},
    "pixels": {"size_px": 32},
    "model": {"backbone": "test_efficientnet", "weights": "none", "drop_path_rate": 0.0},
    "train": {
        "epochs": 3,
        "batch_size": 8,
        "ema_decay": 0.5,
        "augmentation": "none",
        "workers": 0,
        "accelerator": "cpu",
        "checkpoint_minutes": 0,
    },
    "calibrate": {"target_sensitivity": 0.6, "confidence": 0.8},
}


def pictures(root: Path) -> Path:
    """Positive cases are reddish, the others greenish; coarse noise keeps them from looking alike."""
    root.mkdir(parents=True)
    random = np.random.default_rng(0)
    with (root / "cases.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "needs_in_person", "lesion_id"])
        for number in range(CASES):
            coarse = random.integers(0, 110, (6, 6, 3)).astype(np.uint8)
            coarse[:, :, number % 2] += 90
            picture = Image.fromarray(coarse).resize((48, 48), Image.Resampling.BICUBIC)
            picture.save(root / f"{number}.png")
            table.writerow([f"{number}.png", "no" if number % 2 else "yes", str(number)])
    return root


def write(folder: Path, space: dict, **sections: dict) -> list[str]:
    """Configuration and space as files. Returns the arguments of the command but --trials."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**SMALL, **{name: {**SMALL.get(name, {}), **section} for name, section in sections.items()}}
    (folder / "small.yaml").write_text(yaml.safe_dump(config))
    (folder / "space.yaml").write_text(yaml.safe_dump(space))
    home = folder / "experiments"
    return [
        "sweep",
        str(folder / "small.yaml"),
        "--space",
        str(folder / "space.yaml"),
        "--runs",
        str(home / "runs"),
    ]
