"""The folder in which pages are tried: pictures, a finished run, bundles, tables, by the names of the pages.

Needs the training libraries only for what the tutorial has made before.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import yaml

import synthetic_clinic
import tiny_bundle
from lesion_triage.clinic import follow_up

_SMALL_SETTINGS = {
    "pixels": {"size_px": 64},
    "model": {"backbone": "test_resnet", "weights": "none", "drop_path_rate": 0.0},
    "train": {
        "epochs": 4,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "ema_decay": 0.8,
        "frozen_stages": 0,
        "small_first": 0.0,
        "augmentation": "flips",
        "precision": "32-true",
        "workers": 0,
        "accelerator": "cpu",
    },
    "audit": {"pictures": 50},
    "calibrate": {"target_sensitivity": 0.8, "confidence": 0.8, "groups": []},
    "export": {"views": 1},
    "evaluate": {"bootstrap_draws": 100},
    "tracking": {"enabled": False},
}
"""What turns a configuration of the repository into one that takes seconds."""
_EXPERIMENTS = ("ham10000-baseline", "ham10000-best", "queue")


def configurations(root: Path, folder: Path) -> None:
    """The repository's configurations: the demonstration as it is, the others made small."""
    shutil.copytree(root / "configs", folder)
    for path in folder.glob("*.yaml"):
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(settings, dict) and "data" in settings and path.name != "demo.yaml":
            path.write_text(yaml.safe_dump(_deep_merge(settings, _SMALL_SETTINGS)), encoding="utf-8")


def _deep_merge(base: dict, overrides: dict) -> dict:
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = _deep_merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def make(root: Path, tutorial: Path, folder: Path) -> Path:
    """Everything that several pages name.

    Args:
        root: the repository.
        tutorial: the folder in which the tutorial was followed to its end.
        folder: will be made.
    """
    (folder / "experiments" / "runs").mkdir(parents=True)
    (folder / "experiments" / "cache").symlink_to(tutorial / "experiments" / "cache")
    configurations(root, folder / "configs")
    run = next((tutorial / "experiments" / "runs").glob("[!.]*"))
    shutil.copytree(run, folder / "experiments" / "runs" / run.name)
    for name in ("RUN", "NAME"):
        (folder / "experiments" / "runs" / name).symlink_to(run.name)
    for name in _EXPERIMENTS:
        shutil.copytree(root / "experiments" / name, folder / "experiments" / name)
    shutil.copyfile(folder / "configs" / "ham10000.yaml", folder / "CONFIG")
    shutil.copyfile(folder / "configs" / "red_flags.yaml", folder / "red_flags.yaml")
    shutil.copytree(run / "bundle", folder / "BUNDLE")
    answered_by = tiny_bundle.make(folder / "bundle")
    _write_follow_up(folder / "follow-up.csv", answered_by.certificate.certificate_id())
    site = tutorial / "clinic" / "site"
    (folder / "images").symlink_to(site / "images")
    _write_tables(site, folder)
    _write_clinics(folder)
    _copy_photographs(site, folder)
    _link_as_ham10000(site, folder / "DIR")
    for place in ("var/lib/triage/bundles", "etc/triage"):
        (folder / place).mkdir(parents=True)
    return folder


def _copy_photographs(site: Path, folder: Path) -> None:
    shown = sorted((site / "images").iterdir())
    for name, picture in zip(("photo.jpg", "photo1.jpg", "photo2.jpg", "PHOTO.jpg"), shown, strict=False):
        shutil.copyfile(picture, folder / name)


def _link_as_ham10000(site: Path, folder: Path) -> None:
    """The drawn pictures in the official layout of HAM10000, so that its configuration runs."""
    (folder / "HAM10000_images_part_1").mkdir(parents=True)
    rows = []
    with (site / "cases.csv").open(encoding="utf-8", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream)):
            image = f"ISIC_{number:07d}"
            (folder / "HAM10000_images_part_1" / f"{image}.jpg").symlink_to(site / row["image"])
            rows.append(
                {
                    "lesion_id": f"HAM_{row['lesion_id'][1:]}",
                    "image_id": image,
                    "dx": "mel" if row["needs_in_person"] == "true" else "nv",
                    "dx_type": "histo",
                    "age": row["age_approx"],
                    "sex": row["sex"],
                    "localization": "back",
                    "dataset": "rosendahl",
                }
            )
    with (folder / "HAM10000_metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_tables(site: Path, folder: Path) -> None:
    """``local.csv`` of one clinic, ``other.csv`` of another, ``backlog.csv`` of cases without an outcome."""
    lines = (site / "cases.csv").read_text(encoding="utf-8").splitlines()
    (folder / "local.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "other.csv").write_text("\n".join(lines[:1] + lines[300:]) + "\n", encoding="utf-8")
    images = [line.split(",")[0] for line in lines[1:41]]
    rows = [f"{Path(image).stem},{image}" for image in images]
    (folder / "backlog.csv").write_text("\n".join(["case_id,image", *rows]) + "\n", encoding="utf-8")


def _write_follow_up(path: Path, certificate_id: str) -> None:
    """Ten cases a day for 300 days, half of those below the threshold drawn; the last 100 days are bad."""
    random, rows = Random(7), []
    for number in range(3000):
        positive = random.random() < 0.08
        below = random.random() < (0.7 if not positive else 0.3 if number >= 2000 else 0.02)
        drawn = random.random() < 0.5
        known = (drawn or not below) and random.random() < 0.99
        arrived = datetime(2026, 1, 5, 8, tzinfo=UTC) + timedelta(days=number // 10, minutes=number % 10)
        disposition = "below_threshold" if below else "needs_in_person"
        outcome = str(positive).lower() if known else ""
        moment, by_chance = arrived.isoformat(), str(drawn).lower()
        cells = (f"{number:04}", moment, certificate_id, disposition, "0.5", by_chance, outcome)
        rows.append(",".join(cells))
    path.write_text("\n".join([",".join(follow_up.COLUMNS), *rows]) + "\n", encoding="utf-8")


def _write_clinics(folder: Path) -> None:
    """Four clinics with as many misses as docs/recertifying.md and docs/certificate.md tell of."""

    def cases(logits: Iterable[float], needs: bool) -> list[tuple[float, object, dict[str, object]]]:
        return [(logit, needs, {"lesion_id": f"{needs}{number}"}) for number, logit in enumerate(logits)]

    def spread(low: float, high: float, number: int) -> list[float]:
        return [low + (high - low) * place / max(number - 1, 1) for place in range(number)]

    synthetic_clinic.write(
        folder / "early", cases(spread(0.3, 3, 41), True) + cases(spread(-4, 1, 50), False)
    )
    positive = [-1.5, -1.0, *spread(-0.5, -0.1, 6), *spread(0.3, 4, 132)]
    other = [*spread(-4.5, -0.9, 131), *spread(-0.4, -0.1, 14), *spread(0.2, 2, 15)]
    synthetic_clinic.write(folder / "site", cases(positive, True) + cases(other, False))
    synthetic_clinic.write(folder / "north", cases(spread(0.1, 3, 70), True))
    synthetic_clinic.write(folder / "south", cases(spread(0.1, 3, 45), True))
