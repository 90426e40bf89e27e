"""``make bench``: what the audit of tables costs at scale, on a made-up manifest; growth is the proof."""

from __future__ import annotations

import csv
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from lesion_triage.audit import checks
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Audit, Split
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.records import Record
from lesion_triage.data.split import split

SITES = ("head/neck", "anterior torso", "posterior torso", "upper extremity", "lower extremity", "")


def generate_dataset(size: int, root: Path) -> checks.AuditInput:
    """Patients of eight photographs on average, forty sources, a table of twelve columns with gaps."""
    random = np.random.default_rng(0)
    patient = random.integers(0, size // 8, size).tolist()
    positive = (random.random(size) < 0.05).tolist()
    source = random.integers(0, 40, size).tolist()
    site = random.integers(0, len(SITES), size).tolist()
    age = random.integers(18, 90, size).tolist()
    width = random.choice([600, 1024, 1872, 3000, 6000], size).tolist()
    records = tuple(
        Record(
            image_id=f"ISIC_{row:07d}",
            path=f"images/ISIC_{row:07d}.jpg",
            lesion_id=f"IL_{row:07d}",
            patient_id=f"IP_{patient[row]:07d}",
            needs_in_person=positive[row],
            diagnosis="mel" if positive[row] else "nv",
            source=f"clinic-{source[row]}",
            sex="female" if row % 2 else "male",
            age_approx=float(age[row]),
            anatom_site_general=SITES[site[row]],
            sha256=f"{row:064x}",
            width_px=width[row],
            height_px=width[row] * 3 // 4,
        )
        for row in range(size)
    )
    gaps = random.random((size, 12)) < 0.2
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["isic_id", *(f"column_{number}" for number in range(12))])
        for record, row in zip(records, gaps.tolist(), strict=True):
            writer.writerow([record.image_id, *("" if gap else "said" for gap in row)])
    known = Manifest(records, "folder", synthetic=False)
    return checks.AuditInput(known, split(known, "0" * 64, Split()), root, PixelSpec(size_px=160))


def main() -> None:
    """Print the table."""
    print(f"{os.cpu_count()} processors; the audit of tables at default limits\n")
    before = None
    for size in (10_000, 50_000, 100_000, 200_000, 400_000):
        with tempfile.TemporaryDirectory() as folder:
            data = generate_dataset(size, Path(folder))
            began, wall = time.process_time(), time.monotonic()
            report, _ = checks.audit_data(data, Audit(pictures=0))
            seconds, wall = time.process_time() - began, time.monotonic() - wall
        per_thousand = 1000 * seconds / (size / 1000)
        growth = f", {seconds / before[1] / (size / before[0]):.2f} times linear" if before else ""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{size:>9,} records: {seconds:.1f} CPU s ({wall:.1f} s), {per_thousand:.0f} ms per "
            f"thousand{growth}; "
            f"peak {peak:,.0f} MiB, the records among it; verdict {report.verdict}"
        )
        before = (size, seconds)


if __name__ == "__main__":
    main()
