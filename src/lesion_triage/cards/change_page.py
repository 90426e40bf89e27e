"""The record of a change as Markdown. Imports the change.

Its three parts are those of a predetermined change control plan. A table says where each clause of IEC 62304
on changes finds its evidence. Both are working material: the record is no submission.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lesion_triage.cards.change import RULE, Change, Level
from lesion_triage.cards.checklist import BLANK
from lesion_triage.cards.markdown_tables import table

_HEAD = (
    "The three parts follow FDA, Marketing Submission Recommendations for a Predetermined Change Control "
    "Plan for Artificial Intelligence-Enabled Device Software Functions (final guidance, December 2024). "
    "This record is written by a program from two bundles; it is neither a submission nor a statement of "
    "conformity."
)
_CLAUSES = (
    ("8.2.1", "change requests are approved", "who and why, above; approval below"),
    ("8.2.2", "changes are implemented; activities that must be repeated are found", "1. Description"),
    ("8.2.3", "changes are verified", "3. Impact: results, parity, self-test"),
    ("8.2.4", "a change can be traced", "hashes of bundle, certificate, manifest and splits"),
    ("7.4.1", "changes are analysed with respect to safety", BLANK),
    ("7.4.2", "effect on existing risk control measures", BLANK),
)


def page(change: Change, accepted: str = "") -> str:
    """A record as Markdown.

    Args:
        change: from ``compare``.
        accepted: why a regression was accepted; empty: it was not.
    """
    parts = (
        [f"# Change record: {change.new.name}", "", _HEAD],
        ["## Who and why", "", *_who(change)],
        ["## Verdict", "", *_verdict(change, accepted)],
        ["## 1. Description of modifications", "", *_description(change)],
        ["## 2. Modification protocol", "", *_protocol(change)],
        ["## 3. Impact assessment", "", *_impact(change)],
        ["## Clauses of IEC 62304:2006+A1:2015", "", *table(("clause", "asks that", "here"), _CLAUSES)],
        ["## Approval", "", *table(("role", "name", "date", "signature"), [("", BLANK, "", "")])],
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _who(change: Change) -> list[str]:
    rows = [
        ("changed by", change.by or BLANK),
        ("reason", change.why or BLANK),
    ]
    lines = [*table(("", ""), rows), ""]
    facts = (
        ("name", "name"),
        ("bundle", "bundle_sha256"),
        ("certificate", "certificate_id"),
        ("sealed", "created_at"),
        ("made with", "made_with"),
        ("synthetic", "synthetic"),
    )
    pairs = ((word, getattr(change.old, name), getattr(change.new, name)) for word, name in facts)
    return lines + table(("", "old", "new"), pairs)


def _verdict(change: Change, accepted: str) -> list[str]:
    is_same = change.old.bundle_sha256 == change.new.bundle_sha256
    lines = ["The two are the same bundle.", ""] if is_same else []
    if not change.regressions:
        return [*lines, "**No regression by the rule.**", "", f"Rule: {RULE}"]
    lines += ["**Regression by the rule:**", ""]
    lines += [f"- {line.level.value}: {line.text}" for line in change.regressions]
    acceptance = f"Accepted nevertheless: {accepted}" if accepted else "Not accepted."
    return [*lines, "", acceptance, "", f"Rule: {RULE}"]


def _description(change: Change) -> list[str]:
    lines = ["Kind of change: " + ("; ".join(change.kinds) or "none") + "."]
    for section, differences in change.differences.items():
        lines += ["", f"### {section.capitalize()}", ""]
        rows = [(one.what, _cell(one.old), _cell(one.new)) for one in differences]
        lines += table(("", "old", "new"), rows) if rows else ["unchanged"]
    lines += ["", f"Certified groups gained: {', '.join(change.gained) or 'none'}."]
    return [*lines, f"Certified groups lost: {', '.join(change.lost) or 'none'}."]


def _protocol(change: Change) -> list[str]:
    cases = {
        True: "the same test cases",
        False: "different test cases",
        None: "no results for one of the two",
    }
    return [
        "- Data management: manifest, splits and the audit of both are named by hash; patients, lesions "
        "and copies never cross splits.",
        "- Re-training: the frozen configuration; the threshold is certified on cases that had no part in "
        "it.",
        f"- Performance evaluation: on the sealed bundle, {cases[change.same_cases]}, by the rule above.",
        "- Update procedure: promotion moves the alias in the model registry, and the way back is to "
        "promote the old version again.",
        f"- Whether this change lies within an authorised plan: {BLANK}",
    ]


def _impact(change: Change) -> list[str]:
    lines = table(
        ("assessment", "verdict", "found"),
        (
            (
                line.code,
                f"**{line.level.value}**" if line.level is not Level.FINE else line.level.value,
                line.text,
            )
            for line in change.lines
        ),
    )
    if change.measures:
        lines += ["", "Results by slice with 95 % intervals:", ""]
        lines += table(("slice", "measure", "old", "new", "difference"), _rows(change))
        lines += ["", "Differences are of point values. Read them with the intervals."]
    return [*lines, "", f"Benefits and risks of the change for patients and users: {BLANK}"]


def _rows(change: Change) -> Sequence[tuple[object, ...]]:
    return [
        (
            row.title,
            row.measure,
            _estimate(row.old),
            _estimate(row.new),
            "-" if row.change is None else f"{row.change:+.3f}",
        )
        for row in change.measures
    ]


def _estimate(found: dict[str, float] | None) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})" if found else "-"


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
