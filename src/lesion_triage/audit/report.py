"""The audit as one self-contained page, as JSON and as figures. Imports jinja2, bundle and this package.

The page loads nothing, has no script, and by default shows no picture of a person and no name of one.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from lesion_triage.audit import figures
from lesion_triage.audit.artefacts import ARTEFACTS
from lesion_triage.audit.checks import AuditInput, local_names
from lesion_triage.audit.findings import Finding, Measurement, Report, Table, Verdict
from lesion_triage.audit.picture_checks import OpenedPictures
from lesion_triage.audit.wording import WORDS
from lesion_triage.bundle.files import write_atomically
from lesion_triage.bundle.pixels import decode
from lesion_triage.config import Audit
from lesion_triage.data.manifest import Manifest, read_picture
from lesion_triage.errors import ManifestError

JSON, PAGE, NAMES, PICTURES = "audit.json", "audit.html", "names.csv", "pictures.csv"

LIMITS = (
    "An audit finds only what it looks for. A pass means that this check, on this number of rows, found "
    "nothing beyond its limit; the interval shows what it could have missed.",
    "Associations are tested on train and validation, with one photograph for each unit and label. From "
    "calibration and test only hashes, names and counts are read.",
    "An association does not prove a shortcut: a true risk factor predicts the label as well. A shortcut "
    "is something that a network could use; only the checks of the model show whether this one does.",
    "The artefact detectors are simple. They miss faint ink and rulers at an angle, and mistake some "
    "vessels and shadows for ink and some creases for hair. Errors that are equally common in both "
    "classes only hide a difference.",
    "The angle that estimates skin tone depends on light, camera and white balance. It must not be used "
    "on a person.",
    "A picture with a covered lesion is one that no camera takes; a model may respond to it "
    "unpredictably. The outline of the covered area still shows the size of what is under it.",
)
_MARKS = {Verdict.PASS: "✓", Verdict.WARN: "▲", Verdict.FAIL: "✕"}
_EXAMPLES = 6


@dataclass(frozen=True, slots=True)
class _Figure:
    uri: str
    caption: str
    alt: str


def write(
    folder: Path, report: Report, config: Audit, seen: OpenedPictures | None, manifest: Manifest
) -> Path:
    """Write figures, tables for local use, ``audit.json`` and, last, ``audit.html``.

    Args:
        folder: made if missing.
        report: the findings.
        config: limits.
        seen: what the pictures showed; None if none was opened, or if it was written before.
        manifest: names the pictures.

    Returns:
        The page.
    """
    drawn = _draw(report, config)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, (png, _, _) in drawn.items():
        write_atomically(folder / "figures" / f"{name}.png", png)
    if seen is not None:
        write_atomically(folder / PICTURES, seen.to_csv(manifest.records).encode())
    if not report.facts["with_model"]:  # otherwise they are beside the audit of the data, read back here
        write_atomically(folder / NAMES, _names(report).encode())
    write_atomically(folder / JSON, report.to_json().encode())
    inlined = {name: _Figure(_uri(png), caption, alt) for name, (png, caption, alt) in drawn.items()}
    write_atomically(folder / PAGE, _page(report, inlined, ()).encode())
    return folder / PAGE


def read(folder: Path) -> Report:
    """Read ``audit.json`` back.

    Raises:
        ManifestError: missing or of another version.
    """
    try:
        content = json.loads((folder / JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"{folder / JSON}: no complete report ({error}); audit again.") from None
    return Report.from_content(content)


def write_with_pictures(target: Path, folder: Path, data: AuditInput, config: Audit) -> Path:
    """Write an audit's page again, with examples of what the detectors saw. For local reading only.

    Args:
        target: the page to write.
        folder: output of ``write`` from the audit of the data.
        data: root, manifest and pixel limits.
        config: limits.

    Raises:
        ManifestError: no pictures were opened, or one has changed since.
    """
    report = read(folder)
    shown_by = _pictures_by_artefact(folder / PICTURES)
    records = {record.image_id: record for record in data.manifest.records}
    spec = data.limits.model_copy(update={"size_px": 192})
    groups = []
    for artefact in ARTEFACTS:
        exhibits = []
        for name in shown_by[artefact][:_EXAMPLES]:
            if name not in records:
                raise ManifestError(f"{folder / PICTURES}: belongs to another manifest; audit again.")
            stream = io.BytesIO()
            Image.fromarray(decode(read_picture(data.root, records[name]), spec).pixels).save(stream, "PNG")
            label = "positive" if records[name].needs_in_person else "negative"
            exhibits.append(_Figure(_uri(stream.getvalue()), label, f"Picture {name}, {label}"))
        if exhibits:
            groups.append((WORDS[artefact].title, exhibits))
    drawn = {name: _Figure(_uri(png), *words) for name, (png, *words) in _draw(report, config).items()}
    write_atomically(target, _page(report, drawn, tuple(groups)).encode())
    return target


def _pictures_by_artefact(table: Path) -> dict[str, list[str]]:
    """Names of the pictures that show each artefact, as ``OpenedPictures.to_csv`` wrote them."""
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
        if not rows:
            raise csv.Error("no row")
        return {name: [row["image_id"] for row in rows if row[name] == "True"] for name in ARTEFACTS}
    except FileNotFoundError:
        raise ManifestError(
            f"{table.parent}: no picture was opened; audit with audit.pictures above 0."
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise ManifestError(f"{table}: was not written by an audit ({error}); audit again.") from None


def _draw(report: Report, config: Audit) -> dict[str, tuple[bytes, str, str]]:
    """PNG, caption and alternative text by name."""
    tables = {table.name: table for table in report.tables}
    empty = Table("", "", (), ())
    wanted = {
        "aurocs": (
            figures.aurocs(report.findings, config),
            "How well anything but the lesion predicts the label. The numbers are with each finding.",
            "Chart of AUROCs with intervals beside the limits for warning and failure",
        ),
        "sources": (
            figures.shares_by_source(tables.get("sources", empty)),
            "Share of positives by source. Sources far from the others predict the label.",
            "Chart of the share of positives by source; its numbers are in table 'sources'",
        ),
        "gaps": (
            figures.shares_by_label(tables.get("gaps", empty), "share of rows in which the column is empty"),
            "Empty cells among positives and negatives. A long line means that the gap predicts the label.",
            "Chart of empty cells by label; its numbers are in table 'gaps'",
        ),
        "artefacts": (
            figures.shares_by_label(
                tables.get("artefacts", empty), "share of pictures in which the detector sees it"
            ),
            "Artefacts among positives and negatives.",
            "Chart of artefacts by label; its numbers are in table 'artefacts'",
        ),
        "skin_tone": (
            figures.skin_tones(tables.get("skin_tone", empty)),
            "Estimated skin tone. A hint at who is missing, not a measurement.",
            "Bar chart of pictures by estimated skin tone; its numbers are in table 'skin_tone'",
        ),
        "occlusion": (
            figures.occlusion(tables.get("occlusion", empty), config),
            "How well the model ranks with parts of the picture covered.",
            "Chart of AUROCs on whole and covered pictures; its numbers are in table 'occlusion'",
        ),
    }
    return {name: (png, caption, alt) for name, (png, caption, alt) in wanted.items() if png is not None}


def _page(report: Report, drawn: dict[str, _Figure], groups: tuple[tuple[str, list[_Figure]], ...]) -> str:
    environment = Environment(
        loader=PackageLoader("lesion_triage.audit"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "cell": _cell}
    order = (Verdict.FAIL, Verdict.WARN, Verdict.PASS)
    ordered: list[Finding] = sorted(report.findings, key=lambda one: order.index(one.counts_as))
    return environment.get_template("audit.html").render(
        report=report,
        findings=ordered,
        counts={verdict: sum(one.counts_as is verdict for one in report.findings) for verdict in order},
        words=WORDS,
        marks=_MARKS,
        figures=drawn,
        groups=groups,
        limits=LIMITS,
    )


def _names(report: Report) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["code", "name"])
    writer.writerows(local_names(report))
    return buffer.getvalue()


def _number(found: Measurement) -> str:
    """A value with its interval."""
    if found.value is None:
        return "not estimable"
    value = _cell(found.value)
    if found.low is None or found.high is None:
        return value
    return f"{value} ({_cell(found.low)} to {_cell(found.high)})"


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "not estimable"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.2g}"


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
