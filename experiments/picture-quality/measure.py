"""Measure the quality gate once on pictures that chose none of its limits; prints what the page prints.

    python experiments/picture-quality/measure.py --ham10000 DIR --pad-ufes-20 DIR

HAM10000: split `test` of configs/ham10000.yaml. PAD-UFES-20: half of the patients, by the same function.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lesion_triage.bundle.document import canonical_json, sha256_of
from lesion_triage.bundle.schema import PixelSpec, QualityLimits
from lesion_triage.config import Data, Fractions, Split
from lesion_triage.data import manifest as manifests
from lesion_triage.data.corruptions import CORRUPTIONS
from lesion_triage.data.records import Record
from lesion_triage.data.split import split
from lesion_triage.evaluate.corruption_figure import figure
from lesion_triage.evaluate.corruptions import Row, files_of, markdown, measure, side_by_side

HERE = Path(__file__).resolve().parent
PAGES = HERE.parents[1] / "docs"
SPEC, LIMITS = PixelSpec(size_px=160), QualityLimits()
CORRUPTED_PICTURES = 200
"""So many of each data set are spoilt, drawn by a fixed seed; all are looked at as they are."""


def ham10000(root: Path) -> list[Record]:
    """The split that no limit was chosen on."""
    manifest = manifests.build(Data(source="ham10000"), root)
    wanted = set(split(manifest, "", Split(seed=0)).image_ids("test"))
    return [record for record in manifest.records if record.image_id in wanted]


def pad_ufes_20(root: Path) -> list[Record]:
    """Half of the patients, stratified by the dataset's own code; nothing but the split uses the label."""
    records = []
    with (root / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            stem = Path(row["img_id"]).stem
            path = next(root.glob(f"images/{stem}.*"), None)
            if path is None:
                continue
            records.append(
                Record(
                    image_id=stem,
                    path=path.relative_to(root).as_posix(),
                    lesion_id=f"{row['patient_id']}-{row['lesion_id']}",
                    patient_id=row["patient_id"],
                    diagnosis=row["diagnostic"],
                    needs_in_person=row["diagnostic"] in ("BCC", "MEL", "SCC", "ACK"),
                    source="pad_ufes_20",
                    sha256=sha256_of(path.read_bytes()),
                    width_px=1,
                    height_px=1,
                )
            )
    manifest = manifests.Manifest(
        records=tuple(sorted(records, key=lambda record: record.image_id)), source="folder", synthetic=False
    )
    halves = Split(seed=0, fractions=Fractions(train=0.3, validation=0.1, calibration=0.1, test=0.5))
    wanted = set(split(manifest, "", halves).image_ids("test"))
    return [record for record in manifest.records if record.image_id in wanted]


def measure_dataset(records: Sequence[Record], root: Path) -> tuple[Row, ...]:
    """All as they are, and some of them spoilt."""
    some = random.Random(0).sample(records, min(CORRUPTED_PICTURES, len(records)))
    (unmodified,) = _measure_records(records, root, ())
    return unmodified, *_measure_records(some, root, tuple(CORRUPTIONS))[1:]


def _measure_records(records: Sequence[Record], root: Path, corruptions: Sequence[str]) -> tuple[Row, ...]:
    units = [record.unit_id for record in records]
    return measure(files_of(records, root), SPEC, LIMITS, units=units, corruptions=corruptions)


def measure_folder(root: Path) -> tuple[Row, ...]:
    """Every picture of a folder as it is."""
    return measure([path.read_bytes for path in sorted(root.glob("*.*"))], SPEC, LIMITS, corruptions=())


def main() -> None:
    """Print the tables, write results and figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("ham10000", "pad-ufes-20", "lesion-free", "other"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    by_dataset, found = {}, {}
    if options.ham10000:
        by_dataset["HAM10000"] = measure_dataset(ham10000(options.ham10000), options.ham10000)
    if options.pad_ufes_20:
        by_dataset["PAD-UFES-20"] = measure_dataset(pad_ufes_20(options.pad_ufes_20), options.pad_ufes_20)
    if options.lesion_free:
        found["skin without a lesion"] = measure_folder(options.lesion_free)
    if options.other:
        found["no skin"] = measure_folder(options.other)
    found = by_dataset | found
    for name, rows in found.items():
        first = rows[0]
        print(f"\n{name}: {first.refused.trials} pictures\n\n{markdown(rows)}\n")
        print(f"unmodified: refused {dict(first.refusals)}; advised {dict(first.advice)}", flush=True)
    print(f"\n{side_by_side(by_dataset)}")
    (HERE / "results.json").write_text(
        canonical_json(
            {
                "size_px": SPEC.size_px,
                "limits": LIMITS.model_dump(mode="json"),
                "rows": {name: [asdict(row) for row in rows] for name, rows in found.items()},
            }
        ),
        encoding="utf-8",
    )
    (PAGES / "picture-quality.png").write_bytes(figure(by_dataset))


if __name__ == "__main__":
    main()
