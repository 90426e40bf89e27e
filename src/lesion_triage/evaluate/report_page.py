"""From numbers and figures to one self-contained page. Imports jinja2, bundle, calibrate and this package.

The page loads nothing, and its content security policy enforces that in the browser.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lesion_triage.bundle.guidance import Limit
from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.bootstrap import Estimate
from lesion_triage.calibrate.metrics import Proportion
from lesion_triage.calibrate.queue_pool import Group as QueueGroup
from lesion_triage.calibrate.queue_report import Study, discipline_name, heading
from lesion_triage.calibrate.queueing import Statistic
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.data.manifest import Manifest
from lesion_triage.evaluate.example_photographs import ExampleGroup
from lesion_triage.evaluate.groups import GroupResult
from lesion_triage.evaluate.report_figures import DIMENSIONS, ReportFigure
from lesion_triage.evaluate.results import Results
from lesion_triage.evaluate.slices import SliceResult

_COLUMNS = (
    ("auroc", "AUROC"),
    ("auprc", "AUPRC"),
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
    ("referral_rate", "Referral rate"),
)
_CALIBRATION_COLUMNS = (
    ("brier", "Brier score"),
    ("log_loss", "Log loss"),
    ("calibration_slope", "Calibration slope"),
    ("calibration_intercept", "Calibration intercept"),
    ("calibration_error", "Expected calibration error"),
)
_LIMIT_CODES = (Limit.photographs_only, Limit.other_skin_not_examined, Limit.excludes_nothing)
_REPORT_LIMITS = (
    "The numbers hold for cases like these. Another camera, site or population needs its own evaluation and "
    "its own certificate.",
    "Intervals resample the cases of this split; they cover neither the choice of split nor the randomness "
    "of training.",
    "The expected calibration error is biased upwards in small samples.",
    "A slice or subgroup with fewer than ten cases of a class is counted, but the measures that need that "
    "class are not given.",
    "Many subgroups are shown; some differ by chance alone.",
)
_TABLE_PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_TABLE_PREVALENCES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_QUEUE_STATISTICS: tuple[Statistic, ...] = ("mean", "p99")
_QUEUE_GROUPS: tuple[tuple[QueueGroup, str], ...] = (
    ("referred_positives", "Positive, referred"),
    ("missed_positives", "Positive, missed"),
    ("negatives", "Negative"),
    ("all", "All"),
)


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image inlined in the page."""

    uri: str
    caption: str
    alt: str
    note: str = ""


def render_report(
    results: Results,
    bundle: Bundle,
    manifest: Manifest,
    drawn: Sequence[ReportFigure],
    groups: Sequence[ExampleGroup],
    study: Study | None,
    comparison: str = "",
) -> str:
    """The page as HTML.

    Args:
        results: every number.
        bundle: policy, certificate and header.
        manifest: citation, and what was dropped.
        drawn: the figures.
        groups: photographs that may be shown.
        study: of the reading queue, the one behind ``results.queue``; None: no section on it.
        comparison: HTML of the section that compares with another bundle; empty: none.
    """
    policy_benefit = {round(row.threshold_probability, 4): row for row in results.policy_decision_curve}
    return (
        jinja_environment()
        .get_template("report.html")
        .render(
            results=results,
            certificate=bundle.certificate,
            policy=bundle.policy,
            header=bundle.header,
            manifest=manifest,
            columns=_COLUMNS,
            calibration_columns=_CALIBRATION_COLUMNS,
            measured=[slice_result for slice_result in results.slices if not slice_result.note],
            figures={one.name: _Picture(data_uri(one.png), one.caption, one.alt) for one in drawn},
            dimensions=DIMENSIONS,
            decisions=[
                (row, policy_benefit[round(row.threshold_probability, 4)])
                for row in results.decision_curve
                if row.threshold_probability in _TABLE_PROBABILITIES
            ],
            predictive=[row for row in results.predictive_values if row.prevalence in _TABLE_PREVALENCES],
            queue=_queue_table(study),
            groups=[
                (
                    group.title,
                    [
                        _Picture(data_uri(example.png), example.caption, example.alt, example.attribution)
                        for example in group.photographs
                    ],
                )
                for group in groups
            ],
            reasons={code: _reason_text(code) for code in results.photographs_refused},
            citations=list(dict.fromkeys((*bundle.header.data_citation, *manifest.citation))),
            limits=(*(english_catalogue().limits[limit] for limit in _LIMIT_CODES), *_REPORT_LIMITS),
            notice=english_catalogue().notice,
            comparison=comparison,
        )
    )


def jinja_environment() -> Environment:
    """Jinja environment of this package's templates, with autoescape and filters for numbers."""
    jinja = Environment(
        loader=PackageLoader("lesion_triage.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {
        "interval": _metric_with_interval,
        "share": with_interval,
        "percent": _percent_text,
        "status": _status_text,
        "signed": signed_with_interval,
        "format_percent": format_percent,
    }
    return jinja


def data_uri(png: bytes) -> str:
    """An image as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def with_interval(found: Proportion | Estimate | None, digits: int = 3) -> str:
    """A number with its interval."""
    if found is None:
        return "not estimable"
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def signed_with_interval(found: Estimate | None) -> str:
    """A difference with its interval."""
    if found is None:
        return "not estimable"
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def p_value(value: float) -> str:
    """A p-value as it is usually printed."""
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def _queue_table(study: Study | None) -> dict[str, Any] | None:
    """Mean and p99 of the wait in hours, with the ratio to first come."""
    if study is None:
        return None
    rows = []
    for discipline, waits in study.outcomes.items():
        cells = []
        for group, _ in _QUEUE_GROUPS:
            found = [wait for key in _QUEUE_STATISTICS if (wait := waits.get((group, key))) is not None]
            cells.append(
                "-"
                if len(found) < len(_QUEUE_STATISTICS)
                else "\n".join(
                    f"{one.minutes.value / 60:.1f}"
                    + (f" ({one.relative.value:.2f}x)" if one.relative is not None else "")
                    for one in found
                )
            )
        rows.append((discipline_name(discipline), cells))
    return {
        "heading": heading(study),
        "cases": study.cases,
        "seed": study.seed,
        "columns": [title for _, title in _QUEUE_GROUPS],
        "rows": rows,
        "group_thresholds": study.group_thresholds,
        "missed": int(study.pool.group_masks()["missed_positives"].sum()),
    }


def _reason_text(code: str) -> str:
    known = english_catalogue().reasons.get(code)
    return known.text if known else "No reason was recorded."


def _metric_with_interval(part: SliceResult, name: str) -> str:
    return with_interval(part.interval(name))


def _status_text(row: GroupResult) -> str:
    if row.status == "not_asked":
        return "not asked"
    if row.status == "certified":
        return f"certified on {row.certificate_positives}"
    return f"NOT CERTIFIABLE: {row.certificate_positives} of {row.minimum_positives}"


def _percent_text(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "none"
