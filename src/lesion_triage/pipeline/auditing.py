"""What predicts the label besides the lesion, in data and model: the stages of the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lesion_triage.config import Audit
from lesion_triage.console import echo, progress_bar
from lesion_triage.pipeline.pictures import data_root, dataset_folders
from lesion_triage.runs import Run
from lesion_triage.tracking import Tracker

if TYPE_CHECKING:
    from lesion_triage.audit.checks import AuditInput

AUDIT, AUDIT_MODEL = "audit", "audit_with_model"
AUDIT_TABLES = "audit_tables"
"""An audit that opens no picture. It has its own folder, so that it does not overwrite the full one."""


def audit_inputs(run: Run) -> object:
    """Everything that decides the audit: its settings, the pixel limits, the dataset's own tables."""
    return _inputs(run, run.config.audit)


def audit_tables_inputs(run: Run) -> object:
    """The same without pictures."""
    return _inputs(run, _tables_only(run))


def _tables_only(run: Run) -> Audit:
    return run.config.audit.model_copy(update={"pictures": 0})


def _inputs(run: Run, settings: Audit) -> object:
    from lesion_triage.audit import findings

    # The dataset's own tables are there, and the manifest does not keep all of their columns.
    there = [folder for folder in dataset_folders(run).values() if folder.is_dir()]
    files = [path for folder in there for path in sorted(folder.iterdir()) if path.is_file()]
    seen = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    limits = run.config.pixels.model_dump(exclude={"size_px"})
    return findings.FORMAT, settings.model_dump(mode="json"), limits, seen


def load_audit_data(run: Run) -> AuditInput:
    """What an audit of this run examines: manifest, splits, root and pixel limits."""
    from lesion_triage.audit import checks
    from lesion_triage.data import manifest, split

    known, digest = manifest.read(run.folder)
    return checks.AuditInput(known, split.read(run.folder, digest)[0], data_root(run), run.config.pixels)


def audit_data(run: Run, tracker: Tracker) -> None:
    """Stage 'audit'."""
    _audit(run, tracker, run.config.audit, AUDIT)


def audit_tables(run: Run, tracker: Tracker) -> None:
    """Stage 'audit_tables': the audit without its pictures, in seconds."""
    _audit(run, tracker, _tables_only(run), AUDIT_TABLES)


def _audit(run: Run, tracker: Tracker, settings: Audit, where: str) -> None:
    from lesion_triage.audit import checks, report

    data = load_audit_data(run)
    with progress_bar("looking for artefacts") as tick:
        found, seen = checks.audit_data(data, settings, tick)
    report.write(run.folder / where, found, settings, seen, data.manifest)
    report_audit(run, tracker, where)


def audit_model(run: Run, tracker: Tracker) -> None:
    """Stage 'audit_model': the audit again, with what the model still sees when lesions are covered."""
    from lesion_triage import predictions
    from lesion_triage.audit import checks, report

    data = load_audit_data(run)
    table, _ = predictions.read(run.folder / "predictions", "validation")
    graph = (run.folder / "model.onnx").read_bytes()
    with progress_bar("covering lesions") as tick:
        found = checks.add_model(report.read(run.folder / AUDIT), data, run.config.audit, graph, table, tick)
    report.write(run.folder / AUDIT_MODEL, found, run.config.audit, None, data.manifest)
    report_audit(run, tracker, AUDIT_MODEL)


def report_audit(run: Run, tracker: Tracker, where: str = AUDIT) -> None:
    """Print the findings; the tracker keeps verdict and page."""
    from lesion_triage.audit import report
    from lesion_triage.audit.findings import Verdict

    found = report.read(run.folder / where)
    for one in found.findings:
        if one.verdict is not Verdict.PASS:
            accepted = ", accepted" if one.accepted else ""
            echo(f"  {one.verdict.value}{accepted}: {one.code}: {one.summary}")
    if where == AUDIT_MODEL:
        echo(f"  verdict {found.verdict.value}: {run.folder / where / report.PAGE}")
    tracker.tags({f"{where}.verdict": found.verdict.value})
    tracker.artifact(run.folder / where / report.PAGE, where)


def write_picture_page(run: Run) -> None:
    """Write the audit's page with photographs, for this machine only."""
    from lesion_triage.audit import report

    page = run.folder / "audit_pictures.html"
    report.write_with_pictures(page, run.folder / AUDIT, load_audit_data(run), run.config.audit)
    echo(f"  with photographs, for reading on this machine only: {page}")


def refuse_failed_audit(run: Run, where: str = AUDIT) -> None:
    """Raise AuditError if the audit of this run's data says fail and the configuration does not accept it."""
    from lesion_triage.audit import findings, report

    found = report.read(run.folder / where)
    echo(f"  verdict {found.verdict.value}: {run.folder / where / report.PAGE}")
    findings.refuse_failures(found, run.config.audit, str(run.folder / where / report.PAGE))
