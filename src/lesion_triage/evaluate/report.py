"""The report: one self-contained page, its numbers as JSON, its figures as files. Imports this package."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.queue_report import document
from lesion_triage.config import Roots
from lesion_triage.data.manifest import Manifest
from lesion_triage.evaluate import queue_simulation, report_page
from lesion_triage.evaluate.decided_cases import DecidedCases
from lesion_triage.evaluate.example_photographs import choose_examples
from lesion_triage.evaluate.report_figures import draw_figures
from lesion_triage.evaluate.results import Results, evaluate
from lesion_triage.predictions import Predictions

__all__ = ["PAGE", "Results", "evaluate", "write_report"]

PAGE = "index.html"


def write_report(
    folder: Path,
    results: Results,
    table: Predictions,
    bundle: Bundle,
    manifest: Manifest,
    root: Roots | None,
    *,
    licensed_pictures: bool = False,
    comparison: str = "",
) -> Path:
    """Write ``figures/*.png``, ``results.json``, ``case_scores.csv`` and, last, ``index.html``.

    Args:
        folder: made if missing.
        results: what ``evaluate`` returned for the same table and bundle.
        table: the bundle's logits on the split.
        bundle: policy, certificate and header.
        manifest: for photographs, citation and what was dropped.
        root: folder of the photographs; None: none is shown.
        licensed_pictures: show photographs of people too, if their record names a licence. Such a page must
            not be passed on.
        comparison: HTML of the section that compares with another bundle; empty: none.

    Returns:
        The page.

    Raises:
        ManifestError: a photograph is missing or has changed.
        PredictionsError: the table does not belong to the bundle.
    """
    decided = DecidedCases.from_predictions(bundle, table)
    study = queue_simulation.simulate_queue(decided, bundle.policy, results.bootstrap_seed)
    if study is not None:
        results = replace(results, queue=document(study))
    drawn = draw_figures(results, bundle, study)
    # A report is passed on, to MLflow too: it shows only synthetic pictures unless asked for more.
    shown = root is not None and (bundle.header.synthetic or licensed_pictures)
    groups = choose_examples(decided, manifest, root, bundle.header.pixels) if shown and root else ()
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for one in drawn:
        write_atomically(folder / "figures" / f"{one.name}.png", one.png)
    write_atomically(folder / "results.json", results.to_json().encode())
    write_atomically(folder / "case_scores.csv", _case_scores(decided).encode())
    text = report_page.render_report(results, bundle, manifest, drawn, groups, study, comparison)
    write_atomically(folder / PAGE, text.encode())
    return folder / PAGE


def _case_scores(decided: DecidedCases) -> str:
    """For `lesion-triage queue` and `plan`, by falling score; no identifiers, as a report is passed on."""
    rows = sorted(
        zip(decided.scores.tolist(), decided.positive.tolist(), decided.decisions, strict=True),
        key=lambda row: (-row[0], row[1]),
    )
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["score", "needs_in_person", "disposition", "priority_band"])
    for _, positive, decision in rows:
        score = "" if decision.score is None else repr(decision.score)
        writer.writerow([score, positive, decision.disposition.value, decision.priority_band])
    return buffer.getvalue()
