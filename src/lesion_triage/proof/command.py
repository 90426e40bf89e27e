"""``lesion-triage proof``: run, print and save the proof. Imports config, tracking, console, this package."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.files import write_atomically
from lesion_triage.config import Config
from lesion_triage.console import echo, integer_from
from lesion_triage.errors import RunError
from lesion_triage.proof import figures, page
from lesion_triage.proof.findings import Findings, prove
from lesion_triage.proof.pool import read, record
from lesion_triage.runs import RUNS
from lesion_triage.tracking import Tracker

EXPERIMENT = Path("experiments/certificate-coverage")
PAGE = Path("docs/proof.md")

_NAME = "certificate-coverage"
_FEWEST_DRAWS = 100


class Recorder(Protocol):
    """What the proof needs of a tracker."""

    def params(self, values: Mapping[str, object], /) -> None:
        """Log parameters."""

    def metrics(self, values: Mapping[str, float], /) -> None:
        """Log numbers."""

    def artifact(self, path: Path, /) -> None:
        """Keep a file or a folder."""

    def finish(self, status: str, /) -> None:
        """Close the run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``lesion-triage proof``."""
    parser.add_argument(
        "--experiment",
        type=Path,
        default=EXPERIMENT,
        metavar="DIR",
        help="folder with scores.csv; results.json is written there (%(default)s)",
    )
    parser.add_argument(
        "--page",
        type=Path,
        default=PAGE,
        metavar="FILE",
        help="page whose marked part is rewritten; figures go beside it (%(default)s)",
    )
    parser.add_argument(
        "--draws",
        type=integer_from(_FEWEST_DRAWS),
        default=10_000,
        metavar="N",
        help="draws of each size (%(default)s)",
    )
    parser.add_argument("--seed", type=integer_from(0), default=0, help="seed of the draws (%(default)s)")
    parser.add_argument("--no-mapie", action="store_true", help="leave out the comparison with MAPIE")
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR", help="folder of all runs, for MLflow (%(default)s)"
    )
    parser.add_argument("--no-tracking", action="store_true", help="do not write to MLflow")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="RUN",
        help="only write scores.csv from the held-out predictions of a run; run no proof",
    )


def main(arguments: argparse.Namespace) -> int:
    """Record the table, or run the proof. Returns 1 as ``status`` says."""
    table = arguments.experiment / "scores.csv"
    if arguments.record is not None:
        pool = record(arguments.record, table)
        echo(
            f"  {table}: {pool.scores.size} positive and {pool.negatives.size} other cases, "
            f"SHA-256 {pool.sha256[:16]}"
        )
        return 0
    page.around(arguments.page)  # a bad page fails now, and not after minutes of draws
    if not arguments.page.suffix:
        raise RunError(
            f"{arguments.page}: expected a page with a suffix, such as .md; "
            "the folder of the figures is named without it."
        )
    found = prove(read(table), arguments.draws, arguments.seed, not arguments.no_mapie)
    echo(page.markdown(found))
    results = keep(found, arguments.experiment, arguments.page)
    if not arguments.no_tracking:
        track(found, results, arguments.page, tracker(arguments.runs))
    return status(found)


def status(found: Findings) -> int:
    """Exit status: 1 if a promise was broken, a negative control kept its promise, or numbers disagree."""
    return 1 if found.broken else 0


def keep(found: Findings, experiment: Path, kept_on: Path) -> Path:
    """Write the figures, then the page that shows them, then the numbers; returns the file of the numbers.

    Raises:
        RunError: the page has lost its markers.
    """
    folder = kept_on.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = figures.draw(found)
    for name, png in drawn.items():
        write_atomically(folder / name, png)
    page.refresh(kept_on, page.markdown(found))
    results = experiment / "results.json"
    write_atomically(results, canonical_json(found.document()).encode())
    return results


def tracker(runs: Path) -> Tracker:
    """An MLflow run of its own beside those of training."""
    folder = runs / f"{_NAME}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True, exist_ok=True)
    config = Config.model_validate({"name": _NAME, "data": {"source": "synthetic"}})
    return Tracker(config, folder, echo)


def track(found: Findings, results: Path, kept_on: Path, recorder: Recorder) -> None:
    """Send parameters, numbers and figures."""
    recorder.params({"draws": found.draws, "seed": found.seed, "scores_sha256": found.scores_sha256})
    recorder.metrics(found.numbers())
    recorder.artifact(results)
    recorder.artifact(kept_on.with_suffix(""))
    recorder.finish("FAILED" if found.broken else "FINISHED")
