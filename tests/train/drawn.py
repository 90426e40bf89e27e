"""Small trainings on drawn pictures, and a program that does one so that it can be killed.

python drawn.py FOLDER KEY=VALUE ...     (keys of the train section, backbone, drop_rate; with members=N it
trains so many, in FOLDER/0 and so on, and then their student in FOLDER)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import yaml
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file

from lesion_triage import pipeline
from lesion_triage.config import Config, Ensemble
from lesion_triage.data.records import Record
from lesion_triage.errors import LesionTriageError
from lesion_triage.train import checkpoint, loop
from lesion_triage.train.interruption import Interrupted
from lesion_triage.train.loop import Listener, Pictures


def config(backbone: str = "test_efficientnet", drop_rate: float = 0.2, **train_section) -> Config:
    learning = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "workers": 0,
        "ema_decay": 0.5,
        "accelerator": "cpu",
        **train_section,
    }
    return Config.model_validate(
        {
            "name": "try",
            "data": {"source": "synthetic"},
            "pixels": {"size_px": 32},
            "model": {
                "backbone": backbone,
                "weights": "none",
                "drop_rate": drop_rate,
                "drop_path_rate": drop_rate / 2,
            },
            "train": learning,
        }
    )


def ensemble(members: int, teacher_share: float = 0.5) -> Ensemble:
    return Ensemble(members=members, combine="distil", teacher_share=teacher_share)


def half_precision() -> Fabric:
    """Fabric offers losses that are scaled on GPUs alone; the scaler itself runs anywhere."""
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu")])
    fabric.launch()
    return fabric


def pictures(cases: int, seed: int) -> Pictures:
    """Positive cases are red, negative ones green; one photograph each."""
    random = np.random.default_rng(seed)
    needs = np.arange(cases) % 2 == 1
    pixels = random.integers(0, 80, (cases, 32, 32, 3)).astype(np.uint8)
    pixels[needs, :, :, 0] += 120
    pixels[~needs, :, :, 1] += 120
    records = [
        Record(
            image_id=f"{seed}-{number}",
            path=f"{number}.png",
            lesion_id=f"{seed}-{number}",
            patient_id=None,
            diagnosis="irregular" if need else "regular",
            diagnosis_confirm_type="",
            needs_in_person=bool(need),
            source="synthetic",
            sha256=f"{number:064x}",
            width_px=32,
            height_px=32,
        )
        for number, need in enumerate(needs)
    ]
    return Pictures(records, pixels)


TRAINING, VALIDATION = pictures(48, 1), pictures(24, 2)


def weights(folder: Path) -> dict:
    return load_file(folder / checkpoint.CHECKPOINT)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def main(folder: str, *settings: str) -> int:
    """Train, and print a line for each batch and for each note."""
    section = {key: yaml.safe_load(value) for key, _, value in (each.partition("=") for each in settings)}
    listener = Listener(
        on_batch=lambda epoch, done, _: print("batch", epoch, done, flush=True),
        on_note=lambda sentence: print("note", sentence, flush=True),
    )
    members = section.pop("members", 1)
    whole = config(**section)
    if members > 1:
        whole = whole.model_copy(update={"ensemble": ensemble(members)})
    teachers = [Path(folder) / str(number) for number, _ in enumerate(whole.members())]
    try:
        if pipeline.is_nonzero_rank():
            loop.join_training(whole)
            return 0
        for member, home in zip(whole.members(), teachers, strict=True):
            home.mkdir(exist_ok=True)
            loop.train(member, TRAINING, VALIDATION, home, "key", listener)
        curve = loop.train(whole, TRAINING, VALIDATION, Path(folder), "key", listener, teachers)
    except Interrupted as stopped:
        return stopped.status
    except LesionTriageError as error:
        print("error", error, flush=True)
        return 2
    print("losses", json.dumps([line.loss for line in curve]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
