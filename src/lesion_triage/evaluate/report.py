"""The report: one self-contained page, its numbers as JSON, its figures as files.

Imports jinja2, bundle, data and the rest of this room. The page loads nothing from anywhere.
"""

from __future__ import annotations

import base64
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lesion_triage.bundle.guidance import Limit
from lesion_triage.bundle.messages import english
from lesion_triage.bundle.store import Bundle, write_atomically
from lesion_triage.calibrate.metrics import Estimate, Proportion
from lesion_triage.config import Roots
from lesion_triage.data.manifest import Manifest
from lesion_triage.evaluate import figures
from lesion_triage.evaluate.pictures import Group, choose
from lesion_triage.evaluate.results import Decided, Results, evaluate
from lesion_triage.evaluate.subgroups import SliceResult
from lesion_triage.predictions import Predictions

__all__ = ["Results", "evaluate", "write_report"]

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
_LIMITS = (Limit.photographs_only, Limit.other_skin_not_examined, Limit.excludes_nothing)
_REPORT_LIMITS = (
    "The numbers hold for cases like these. Another camera, site or population needs its own evaluation, and "
    "a certificate issued again there.",
    "Intervals resample the cases of this split; they cover neither the choice of split nor the luck of "
    "training.",
    "The expected calibration error is biased upwards in small samples.",
    "A slice with fewer than ten cases of a class is counted and not measured.",
)


@dataclass(frozen=True, slots=True)
class _Picture:
    """An image inlined in the page."""

    uri: str
    caption: str
    alt: str
    note: str = ""


def write_report(
    folder: Path, results: Results, table: Predictions, bundle: Bundle, manifest: Manifest, root: Roots
) -> Path:
    """Write ``figures/*.png``, ``results.json``, ``case_scores.csv`` and, last, ``index.html``.

    Args:
        folder: made if missing.
        results: what ``evaluate`` returned for the same table and bundle.
        table: the bundle's logits on the split.
        bundle: policy, certificate and header.
        manifest: for photographs, citation and what was dropped.
        root: folder of the photographs.

    Returns:
        The page.

    Raises:
        ManifestError: a photograph is gone or has changed.
        PredictionsError: the table does not belong to the bundle.
    """
    decided = Decided.by(bundle, table)
    drawn = _draw(results, decided, bundle)
    # A report travels, to MLflow too: only drawn pictures may go with it.
    groups = (
        choose(decided, results.threshold, manifest, root, bundle.header.pixels)
        if bundle.header.synthetic
        else ()
    )
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, (png, _, _) in drawn.items():
        write_atomically(folder / "figures" / f"{name}.png", png)
    write_atomically(folder / "results.json", results.to_json().encode())
    write_atomically(folder / "case_scores.csv", _case_scores(decided).encode())
    page = _page(results, bundle, manifest, drawn, groups)
    write_atomically(folder / "index.html", page.encode())
    return folder / "index.html"


def _draw(results: Results, decided: Decided, bundle: Bundle) -> dict[str, tuple[bytes, str, str]]:
    """PNG, caption and alternative text by file name."""
    sample = decided.sample(results.threshold)
    everything = results.slices[0]
    drawn: dict[str, tuple[bytes, str, str]] = {}
    sensitivity, specificity = everything.sensitivity_exact, everything.specificity_exact
    if sensitivity is not None and specificity is not None:
        drawn["roc"] = (
            figures.roc(
                sample,
                everything.metrics.get("auroc"),
                sensitivity,
                specificity,
                bundle.certificate.target_sensitivity,
            ),
            "Receiver operating characteristic with the certified operating point. Abstentions count as "
            "referred; the AUROC is over the cases with a score.",
            f"ROC curve; at the certified threshold sensitivity is {sensitivity.value:.3f} and specificity "
            f"{specificity.value:.3f}",
        )
    if results.reliability:
        drawn["reliability"] = (
            figures.reliability_diagram(results.reliability),
            "Reliability: share of positive cases against the mean score, in bins of equal mass. The number "
            "above a point counts the bin's cases. Both axes have a square-root scale.",
            f"Reliability diagram with {len(results.reliability)} bins of equal mass; its numbers are in the "
            "table below",
        )
        drawn["scores"] = (
            figures.histogram(sample, results.threshold, bundle.policy.band_limits),
            "Scores by reference standard, with the certified threshold and the limits of the bands.",
            f"Histogram of scores by reference standard; the threshold is {results.threshold:.4f}, "
            f"{results.missed} of {results.positives} positive cases lie below it",
        )
    return drawn


def _case_scores(decided: Decided) -> str:
    """For `lesion-triage queue` and `plan`, by falling score; without any name, for a report travels."""
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


def _page(
    results: Results,
    bundle: Bundle,
    manifest: Manifest,
    drawn: dict[str, tuple[bytes, str, str]],
    groups: tuple[Group, ...],
) -> str:
    environment = Environment(
        loader=PackageLoader("lesion_triage.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": _interval, "share": _share, "percent": _percent}
    return environment.get_template("report.html").render(
        results=results,
        certificate=bundle.certificate,
        policy=bundle.policy,
        header=bundle.header,
        manifest=manifest,
        columns=_COLUMNS,
        calibration_columns=_CALIBRATION_COLUMNS,
        measured=[part for part in results.slices if not part.note],
        figures={name: _Picture(_uri(png), caption, alt) for name, (png, caption, alt) in drawn.items()},
        groups=[
            (group.title, [_Picture(_uri(e.png), e.caption, e.alt, e.attribution) for e in group.exhibits])
            for group in groups
        ],
        reasons={code: _reason(code) for code in results.photographs_refused},
        citations=list(dict.fromkeys((*bundle.header.data_citation, *manifest.citation))),
        limits=(*(english().limits[limit] for limit in _LIMITS), *_REPORT_LIMITS),
        notice=english().notice,
    )


def _reason(code: str) -> str:
    known = english().reasons.get(code)
    return known.text if known else "No reason was recorded."


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _interval(part: SliceResult, name: str) -> str:
    """A metric of a slice with its interval; the exact one for sensitivity and specificity."""
    exact = {"sensitivity": part.sensitivity_exact, "specificity": part.specificity_exact}.get(name)
    if exact is not None:
        return _share(exact)
    estimate: Estimate | None = part.metrics.get(name)
    if estimate is None:
        return "not estimable"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _share(found: Proportion) -> str:
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _percent(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "none"
