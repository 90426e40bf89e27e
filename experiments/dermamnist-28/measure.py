"""DermaMNIST beside the published table: AUC and ACC of the seven classes, AUROC of needs_in_person.

The classes come from the second head of a run's checkpoint, which training alone has: it is never exported.
Prints a table; ``--json`` keeps it. Needs the training environment:
``python experiments/dermamnist-28/measure.py --help``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.stats import rankdata
from torch import Tensor

from lesion_triage import config_file, pipeline
from lesion_triage.bundle.files import write_atomically
from lesion_triage.console import progress_bar
from lesion_triage.data import pixel_cache
from lesion_triage.data.records import Record
from lesion_triage.runs import FROZEN_CONFIG, Run, file_sha256, record_test_opening
from lesion_triage.train.checkpoint import CHECKPOINT, load_checkpoint
from lesion_triage.train.network import TriageNetwork

BLOCK = 64
DRAWS = 1000
PUBLISHED = (  # Yang et al. 2023, doi:10.1038/s41597-022-01721-8, table 3, 28 pixels: AUC, ACC
    ("ResNet-18", (0.917, 0.735)),
    ("ResNet-50", (0.913, 0.735)),
    ("auto-sklearn", (0.902, 0.719)),
    ("Google AutoML Vision", (0.914, 0.768)),
)
METRICS = ("auc", "acc", "needs_in_person_auroc")

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """What one run said of n pictures, and what is true."""

    run: str
    checkpoint_sha256: str
    seed: int
    probabilities: Floats
    """Shape (n, classes): softmax of the second head, its mean over the views."""
    logits: Floats
    """Shape (n,): of the head that triage uses, its mean over the views."""
    classes: NDArray[np.intp]
    needs_in_person: NDArray[np.bool_]
    units: NDArray[np.intp]
    """Copies of a picture are one unit, shape (n,)."""


def main() -> None:
    """Measure each run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="trained run folders, one a seed")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of dermamnist.npz")
    parser.add_argument(
        "--split",
        choices=("validation", "test"),
        default="validation",
        help="official part; test is opened when all is chosen, and the run writes it down (%(default)s)",
    )
    parser.add_argument(
        "--views", type=int, choices=(1, 8), default=8, help="symmetries averaged (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="the result, for programs")
    arguments = parser.parse_args()
    found = [score(path, arguments.data_root, arguments.split, arguments.views) for path in arguments.runs]
    if any(not np.array_equal(each.classes, found[0].classes) for each in found):
        raise SystemExit("these runs were made from different pictures; a mean over them would mix them.")
    rows = summarise_runs(found)
    print(table(rows, arguments.split, len(found)))
    if arguments.json:
        document = {
            "split": arguments.split,
            "views": arguments.views,
            "pictures": len(found[0].classes),
            "positives": int(found[0].needs_in_person.sum()),
            "bootstrap_draws": DRAWS,
            "runs": [
                {"seed": each.seed, "checkpoint_sha256": each.checkpoint_sha256, **metrics_of(each)}
                for each in found
            ],
            "mean": rows,
        }
        write_atomically(arguments.json, (json.dumps(document, indent=2) + "\n").encode())


def score(folder: Path, data_root: Path | None, split: str, views: int) -> ScoredRun:
    """Both heads on one official part.

    Only pictures of the dataset's own part count: a copy that our split moved there is left out.
    """
    run = Run(config_file.load(folder / FROZEN_CONFIG, (), data_root, frozen=True), folder)
    network = load_checkpoint(folder)
    if not isinstance(network, TriageNetwork):
        raise SystemExit(f"{folder}: expected one network, found an ensemble, which has no second head.")
    if split == "test":
        record_test_opening(run.folder, by="dermamnist-28/measure.py")
    records: list[Record] = [each for each in pipeline.records(run, split) if each.official_split == split]
    pixels = pixel_cache.load_pixels(records, pipeline.data_root(run), run.config.pixels, run.cache)
    with safe_open(folder / CHECKPOINT, framework="pt") as stream:
        names: list[str] = json.loads((stream.metadata() or {})["diagnoses"])
    probabilities, logits = [], []
    with progress_bar(folder.name) as tick, torch.inference_mode():
        for start in range(0, len(records), BLOCK):
            block = torch.from_numpy(np.array(pixels[start : start + BLOCK]))
            heads = [network.heads(network.embed(view)) for view in symmetries(block, views)]
            probabilities.append(torch.stack([head.diagnosis.softmax(1) for head in heads]).mean(0))
            logits.append(torch.stack([head.logit for head in heads]).mean(0))
            tick(min(start + BLOCK, len(records)), len(records))
    return ScoredRun(
        run=folder.name,
        checkpoint_sha256=file_sha256(folder / CHECKPOINT),
        seed=run.config.seed,
        probabilities=torch.cat(probabilities).double().numpy(),
        logits=torch.cat(logits).double().numpy(),
        classes=np.array([names.index(record.diagnosis) for record in records]),
        needs_in_person=np.array([bool(record.needs_in_person) for record in records]),
        units=np.unique([record.unit_id for record in records], return_inverse=True)[1],
    )


def symmetries(pixels: Tensor, views: int) -> Iterator[Tensor]:
    """Pixels [N, size, size, 3] as they are; with 8 views also turned and mirrored."""
    if views == 1:
        yield pixels
        return
    for turns in range(4):
        turned = torch.rot90(pixels, turns, (1, 2))
        yield turned.contiguous()
        yield turned.flip(2).contiguous()


def metrics_of(scored: ScoredRun, indices: NDArray[np.intp] | None = None) -> dict[str, float]:
    """MedMNIST's AUC and ACC, and the AUROC of needs_in_person, of some of the pictures.

    AUC is the mean over the classes of the AUROC of each against the rest, ACC the share of pictures whose
    likeliest class is theirs (``medmnist.evaluator.getAUC``, ``getACC``).
    """
    chosen = slice(None) if indices is None else indices
    classes, probabilities = scored.classes[chosen], scored.probabilities[chosen]
    each = classes[:, np.newaxis] == np.arange(probabilities.shape[1])
    needs = scored.needs_in_person[chosen, np.newaxis]
    return {
        "auc": float(_aurocs(probabilities, each).mean()),
        "acc": float((probabilities.argmax(axis=1) == classes).mean()),
        "needs_in_person_auroc": float(_aurocs(scored.logits[chosen, np.newaxis], needs)[0]),
    }


def _aurocs(scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """AUROC of each column, ties counting half: the Mann-Whitney statistic over the number of pairs."""
    positives = positive.sum(axis=0)
    ranks = (rankdata(scores, axis=0) * positive).sum(axis=0)
    found: Floats = (ranks - positives * (positives + 1) / 2) / (positives * (len(scores) - positives))
    return found


def summarise_runs(found: Sequence[ScoredRun]) -> dict[str, dict[str, float]]:
    """Mean over the runs, lowest and highest run, and a 95 % bootstrap interval of the mean, by units."""
    points = [metrics_of(each) for each in found]
    rng = np.random.default_rng(0)
    units = found[0].units
    members = [np.flatnonzero(units == unit) for unit in range(units.max() + 1)]
    draws: dict[str, list[float]] = {name: [] for name in METRICS}
    for _ in range(DRAWS):
        indices = np.concatenate([members[unit] for unit in rng.integers(0, len(members), len(members))])
        drawn = [metrics_of(each, indices) for each in found]
        for name in METRICS:
            draws[name].append(float(np.mean([each[name] for each in drawn])))
    rows = {}
    for name in METRICS:
        runs = [each[name] for each in points]
        low, high = np.quantile(draws[name], (0.025, 0.975))
        rows[name] = {
            "mean": float(np.mean(runs)),
            "lowest_run": min(runs),
            "highest_run": max(runs),
            "low": float(low),
            "high": float(high),
        }
    return rows


def table(rows: dict[str, dict[str, float]], split: str, runs: int) -> str:
    """Ours in the first lines, the published figures below."""

    def cell(name: str) -> str:
        row = rows[name]
        return f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})"

    def spread(name: str) -> str:
        return f"{rows[name]['lowest_run']:.3f} to {rows[name]['highest_run']:.3f}"

    lines = [
        "| | AUC | ACC | AUROC of needs_in_person |",
        "|---|---|---|---|",
        f"| this, official {split} part, mean of {runs} seeds | {' | '.join(map(cell, METRICS))} |",
        f"| lowest to highest seed | {' | '.join(map(spread, METRICS))} |",
    ]
    if split == "test":
        lines += [f"| {name}, published | {auc:.3f} | {acc:.3f} | |" for name, (auc, acc) in PUBLISHED]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
