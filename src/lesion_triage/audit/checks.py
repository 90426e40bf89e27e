"""All checks of a dataset, and those added by a trained model. Imports data, predictions and this package."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lesion_triage.audit import balance, leakage, occlusion, picture_checks, raw_tables, shortcuts
from lesion_triage.audit.association import Association
from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Report, Table, apply_acceptances
from lesion_triage.bundle.schema import PixelSpec
from lesion_triage.config import Audit, Roots
from lesion_triage.console import ProgressCallback
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.split import Splits
from lesion_triage.predictions import Predictions


@dataclass(frozen=True)
class AuditInput:
    """What is audited."""

    manifest: Manifest
    splits: Splits
    root: Roots
    """Folder of the pictures and of the dataset's own tables, or of each part of a mixture."""
    limits: PixelSpec
    """Limits of the pixel path; its side length does not matter here."""


def audit_data(
    data: AuditInput, config: Audit, progress: ProgressCallback | None = None
) -> tuple[Report, picture_checks.OpenedPictures | None]:
    """Audit manifest, splits and, unless ``config.pictures`` is 0, a sample of the pictures.

    Returns:
        The report, and what the pictures showed; None if none was opened.

    Raises:
        ManifestError: a picture changed since the manifest was made.
    """
    columns = Columns.from_manifest(data.manifest, data.splits)
    sampled = shortcuts.RowSample.draw(columns, config)
    split_balance, splits_table = balance.split_balance(columns, config)
    groups, groups_table = balance.balance(columns)
    source, sources_table = shortcuts.source_shortcut(sampled)
    gaps, by_gap = shortcuts.missingness(sampled, raw_tables.empty_cells(data.root, columns.records))
    findings = [
        leakage.leakage(columns),
        leakage.duplicate_files(columns),
        leakage.contradictory_labels(columns),
        leakage.dropped_pictures(data.manifest),
        leakage.unknown_labels(columns),
        split_balance,
        groups,
        balance.skin_type_balance(columns),
        source,
        shortcuts.size_shortcut(sampled),
        shortcuts.metadata_baseline(sampled),
        gaps,
    ]
    tables = [splits_table, groups_table, sources_table, _shares("gaps", "Empty cells", by_gap)]
    rows = picture_checks.draw_balanced(sampled, config.pictures)
    seen = None
    if rows.size:
        seen = picture_checks.open_pictures(rows, columns.records, data.root, data.limits, progress)
        extra_findings, by_artefact, extra_tables = picture_checks.check(sampled, seen)
        findings += extra_findings
        tables += [*extra_tables, _shares("artefacts", "Artefacts", by_artefact)]
    facts = {
        "photographs": len(columns.records),
        "rows_compared": int(sampled.rows.size),
        "positive_rows_compared": int(sampled.positive.sum()),
        "pictures_opened": int(rows.size),
        "manifest_sha256": data.splits.manifest_sha256,
        "synthetic": data.manifest.synthetic,
        "citation": list(data.manifest.citation),
        "audit": config.model_dump(mode="json"),
        "with_model": False,
    }
    return Report(apply_acceptances(findings, config), tuple(tables), facts), seen


def add_model(
    report: Report,
    data: AuditInput,
    config: Audit,
    graph: bytes,
    table: Predictions,
    progress: ProgressCallback | None = None,
) -> Report:
    """The report on the data, extended by the checks of a trained model. Opens only the validation split.

    Args:
        report: from ``audit_data`` on the same data.
        data: what was audited; ``limits`` has the graph's input size.
        config: limits.
        graph: the ONNX file.
        table: its logits on the validation split.
        progress: called with (done, total).

    Raises:
        ManifestError: a picture changed since the manifest was made.
    """
    columns = Columns.from_manifest(data.manifest, data.splits)
    sampled = shortcuts.RowSample.draw(columns, config)
    covered, occlusion_table = occlusion.measure_occlusion(
        graph, data.limits, table, columns, data.root, config, progress
    )
    added = [
        occlusion.model_and_metadata(table, sampled),
        occlusion.model_within_source(table, sampled),
        covered,
    ]
    return replace(
        report,
        findings=(*report.findings, *apply_acceptances(added, config)),
        tables=(*report.tables, occlusion_table),
        facts={**report.facts, "with_model": True, "model_sha256": table.model_sha256},
    )


def local_names(report: Report) -> list[tuple[str, str]]:
    """Code and name of everything that findings concern but the report must not name."""
    return [(finding.code, name) for finding in report.findings for name in finding.local]


def _shares(name: str, what: str, found: tuple[Association, ...]) -> Table:
    rows = tuple(
        (
            ", ".join(one.names),
            one.share_positive,
            one.share_negative,
            *one.odds_ratio(),
            one.p_value,
        )
        for one in found
    )
    return Table(
        name,
        f"{what} against the label: share among positives and among negatives, odds ratio with 95 % "
        "interval, Fisher's exact p-value corrected by Holm for all rows of the table.",
        ("property", "positives", "negatives", "odds ratio", "from", "to", "corrected p"),
        rows,
    )
