from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lesion_triage.bundle.document import sha256_of
from lesion_triage.config import Data, Fractions, Split, Synthetic
from lesion_triage.data import manifest as manifests
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import Splits, split

FRACTIONS = Fractions(train=0.6, validation=0.2, calibration=0.1, test=0.1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real datasets, for tests marked ``data``."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("LESION_TRIAGE_TEST_DATA") or beside)
    if not root.is_dir():
        pytest.skip(f"NO REAL PICTURES at {root}: set LESION_TRIAGE_TEST_DATA; this promise was not tested")
    return root


def made_records(
    count: int, seed: int = 0, per_lesion: int = 1, **columns: Callable[..., object]
) -> list[Record]:
    """Records in which nothing goes with the label, but for what ``columns`` plants: f(random, positive)."""
    random = np.random.default_rng(seed)
    labels = np.random.default_rng([seed, 1]).random(count) < 0.3
    pick = {
        "source": random.choice(["north", "south", "west"], count),
        "sex": random.choice(["female", "male", ""], count, p=[0.45, 0.45, 0.1]),
        "anatom_site_general": random.choice(["head/neck", "torso", "limb", ""], count),
        "fitzpatrick_skin_type": random.choice(["I", "II", "III", "IV", "V", "VI"], count),
        "age_approx": np.where(
            random.random(count) < 0.1, None, random.integers(20, 90, count).astype(float)
        ),
        "width_px": random.choice([600, 640, 1024], count),
        "height_px": random.choice([450, 480], count),
    }
    chosen = {name: values.tolist() for name, values in pick.items()}
    records = []
    for number in range(count):
        lesion = number // per_lesion
        positive = bool(labels[lesion])
        facts: dict[str, object] = {
            "path": f"images/{number:06d}.jpg",
            "lesion_id": f"lesion-{lesion:06d}",
            "patient_id": None,
            "needs_in_person": positive,
            "diagnosis": "a" if positive else "b",
            "image_type": "clinical",
            "sha256": sha256_of(f"{seed} {number}".encode()),
            **{name: values[number] for name, values in chosen.items()},
        }
        facts |= {name: make(random, positive) for name, make in columns.items()}
        records.append(Record(image_id=f"image-{number:06d}", **facts))  # type: ignore[arg-type]
    return records


@pytest.fixture
def made() -> Callable[..., tuple[Manifest, Splits]]:
    """Manifest and splits of ``made_records``, without a picture."""

    def make(count: int = 2000, seed: int = 0, per_lesion: int = 1, **columns: Callable[..., object]):
        known = Manifest(tuple(made_records(count, seed, per_lesion, **columns)), "folder", synthetic=False)
        return known, split(known, "0" * 64, Split(seed=seed, fractions=FRACTIONS))

    return make


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Splits, Path]:
    """A clean control: drawn lesions, in which nothing but the drawing tells the label."""
    root = tmp_path_factory.mktemp("drawn")
    config = Data(source="synthetic", synthetic=Synthetic(lesions=300, positive_share=0.4, seed=1))
    known = manifests.build(config, root)
    return known, split(known, "0" * 64, Split(fractions=FRACTIONS)), root
