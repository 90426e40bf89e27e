from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion_triage.bundle.document import sha256_of
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real datasets, for tests marked ``data``."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("LESION_TRIAGE_TEST_DATA") or beside)
    if not root.is_dir():
        pytest.skip(f"NO REAL PICTURES at {root}: set LESION_TRIAGE_TEST_DATA; this promise was not tested")
    return root


@pytest.fixture
def picture() -> Callable[..., None]:
    """Write one small picture; other seeds give other bytes."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (24, 16)) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    return write


@pytest.fixture
def dataset(tmp_path: Path, picture: Callable[..., None]) -> Callable[..., Path]:
    """A folder in the plain layout: rows of the table, and a picture for each unless told otherwise."""

    def make(rows: Sequence[Mapping[str, str]], *, without: Sequence[str] = ()) -> Path:
        root = tmp_path / "dataset"
        root.mkdir(exist_ok=True)
        for seed, row in enumerate(rows):
            if row["image"] not in without and not (root / row["image"]).exists():
                picture(root / row["image"], seed)
        with (root / "cases.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return root

    return make


@pytest.fixture
def record() -> Callable[..., Record]:
    """A record with as much of it stated as a test cares about."""

    def make(image_id: str, **stated: object) -> Record:
        facts: dict[str, object] = {
            "path": f"images/{image_id}.png",
            "lesion_id": f"lesion-{image_id}",
            "needs_in_person": False,
            "source": "clinic",
            "sha256": sha256_of(image_id.encode()),
            "width_px": 24,
            "height_px": 16,
        }
        return Record(image_id=image_id, **{**facts, **stated})  # type: ignore[arg-type]

    return make


@pytest.fixture
def manifest_of() -> Callable[[Sequence[Record]], Manifest]:
    def make(records: Sequence[Record]) -> Manifest:
        return Manifest(records=tuple(records), source="folder", synthetic=False)

    return make
