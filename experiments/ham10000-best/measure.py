"""What several seeds gain together: AUROC of members, of their average and of their student, on validation.

Reads neither calibration nor test. ``python experiments/ham10000-best/measure.py --help``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lesion_triage import config_file, pipeline
from lesion_triage.bundle.policy import aggregate_logits
from lesion_triage.calibrate.bootstrap import draw_counts, percentile_interval
from lesion_triage.calibrate.cells import Cells, Sample
from lesion_triage.calibrate.metrics import auroc
from lesion_triage.config import Export
from lesion_triage.console import echo
from lesion_triage.data import pixel_cache
from lesion_triage.export.onnx_graph import Views
from lesion_triage.runs import Run
from lesion_triage.train import checkpoint
from lesion_triage.train.losses import lowest_logit

Floats = NDArray[np.float64]
DRAWS = 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("members", type=Path, nargs="+", help="run folders that differ in the seed alone")
    parser.add_argument("--student", type=Path, help="run folder of a student of theirs")
    parser.add_argument("--data-root", type=Path, help="folder of their dataset")
    arguments = parser.parse_args()

    run = Run(
        config_file.load(arguments.members[0] / "config.yaml", (), arguments.data_root, frozen=True),
        arguments.members[0],
    )
    records = pipeline.records(run, "validation")
    pictures = pixel_cache.load_pixels(records, pipeline.data_root(run), run.config.pixels, run.cache)
    cases: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        cases.setdefault(record.case_id, []).append(index)
    positive = np.array([any(records[i].needs_in_person for i in indices) for indices in cases.values()])
    units = np.unique([records[indices[0]].unit_id for indices in cases.values()], return_inverse=True)[1]

    def bootstrap_aurocs(logits: Floats) -> Floats:
        """AUROC over cases: of all of them, and in each draw."""
        case_logits = [
            aggregate_logits(logits[indices].tolist(), run.config.calibrate.aggregation)
            for indices in cases.values()
        ]
        ranks = np.unique(case_logits, return_inverse=True)[1] / len(case_logits)
        cells = Cells.exact(Sample.of(ranks, positive))
        draws = draw_counts(len(case_logits), DRAWS, 0, units)
        return np.concatenate(
            [auroc(cells, cells.sample_counts()), *(auroc(cells, cells.tally(counts)) for counts in draws)]
        )

    member_logits = [_logits(folder, pictures, run.config.export) for folder in arguments.members]
    floor_logit = lowest_logit(run.config.train)
    combined_logits = {
        "mean of the logits": np.mean(
            np.maximum(member_logits, floor_logit), axis=0
        ),  # as an ensemble holds them
        "mean of the probabilities": np.mean([1 / (1 + np.exp(-logits)) for logits in member_logits], axis=0),
    }
    if arguments.student:
        combined_logits["student"] = _logits(arguments.student, pictures, run.config.export)
    member_aurocs = np.stack([bootstrap_aurocs(logits) for logits in member_logits])
    echo(f"{len(positive)} cases, {int(positive.sum())} positive; 95 % intervals, {DRAWS} draws of units")
    for folder, values in zip(arguments.members, member_aurocs, strict=True):
        echo(f"{values[0]:.4f}  {folder.name}")
    echo(f"{member_aurocs[:, 0].mean():.4f}  mean of them")
    for name, logits in combined_logits.items():
        values = bootstrap_aurocs(logits)
        gain = values - member_aurocs.mean(0)
        estimate = percentile_interval(float(gain[0]), gain[1:])
        assert estimate is not None
        echo(f"{values[0]:.4f}  {name}: {gain[0]:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})")


@torch.inference_mode()
def _logits(folder: Path, pictures: pixel_cache.Pixels, export: Export) -> Floats:
    network = Views(checkpoint.load_checkpoint(folder), export.views, export.center_crop).eval()
    found = [
        network(torch.from_numpy(np.array(pictures[start : start + 8])))[0]
        for start in range(0, len(pictures), 8)
    ]
    logits: Floats = torch.cat(found).double().numpy()
    return logits


if __name__ == "__main__":
    main()
