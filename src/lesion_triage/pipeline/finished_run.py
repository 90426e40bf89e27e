"""An evaluated run, read back from its folder: the basis of a report or a comparison."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_triage import config_file
from lesion_triage.errors import ReportError, RunError
from lesion_triage.pipeline.pictures import records
from lesion_triage.runs import FROZEN_CONFIG, Run

if TYPE_CHECKING:
    from lesion_triage.bundle.store import Bundle
    from lesion_triage.data.manifest import Manifest
    from lesion_triage.data.records import Record
    from lesion_triage.evaluate.results import Results
    from lesion_triage.predictions import Predictions

BUNDLE, REPORT = "bundle", "report"


@dataclass(frozen=True)
class FinishedRun:
    """The sealed bundle of a run and its results on the test split, which is not opened again."""

    run: Run
    bundle: Bundle
    table: Predictions
    manifest: Manifest
    training: list[Record]
    parity: dict[str, str | int | float]

    def compute_results(self) -> Results:
        """The numbers, computed again from the table that ``evaluate`` left; no picture is scored."""
        from lesion_triage.evaluate.report import evaluate

        return evaluate(self.table, self.bundle, self.run.config.evaluate, self.parity, self.training)


def load_finished_run(folder: Path, data_root: Path | None = None) -> FinishedRun:
    """Read a run folder, or the folder of its bundle or report.

    Args:
        folder: of a run that was evaluated.
        data_root: where its data are now; None: where its configuration says.

    Raises:
        RunError: not an evaluated run.
        LesionTriageError: a part of it is damaged.
    """
    from lesion_triage.bundle.store import open_bundle
    from lesion_triage.data import manifest
    from lesion_triage.predictions import read

    whole = (folder / FROZEN_CONFIG).is_file()
    home = folder if whole else folder.resolve().parent
    results_path = home / REPORT / "results.json"
    # A bundle that a site certified may be kept in the run folder: it is not the one that was evaluated.
    known_part = whole or folder.resolve().name in (BUNDLE, REPORT)
    if not known_part or not (home / FROZEN_CONFIG).is_file() or not results_path.is_file():
        raise RunError(
            f"{folder}: expected the folder of an evaluated run, such as experiments/runs/NAME-TIME, or its "
            "bundle or report; `lesion-triage evaluate` makes one."
        )
    run = Run(config_file.load(home / FROZEN_CONFIG, (), data_root, frozen=True), home)
    try:
        parity = json.loads(results_path.read_text(encoding="utf-8"))["parity"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RunError(f"{results_path}: cannot be read as results ({error}); evaluate again.") from None
    known, _ = manifest.read(home)
    return FinishedRun(
        run=run,
        bundle=open_bundle(home / BUNDLE),
        table=read(home / "predictions", "test")[0],
        manifest=known,
        training=[record for record in records(run, "train") if record.needs_in_person is not None],
        parity=parity,
    )


def make_output_folder(out: Path) -> None:
    """Make the folder of ``--out``, before minutes of work.

    Raises:
        ReportError: it is in what a run has made: its bundle is sealed, and its report belongs to an opening.
        RunError: it cannot be made.
    """
    target = out.resolve()
    for folder in (target, *target.parents):
        if folder.name in (BUNDLE, REPORT) and (folder.parent / FROZEN_CONFIG).is_file():
            raise ReportError(
                f"{out}: a run's own {folder.name} is never overwritten; choose a folder outside it."
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: cannot be made a folder ({error.strerror}); choose another.") from None
