"""What occurs in two splits or twice, and what was lost on the way. Imports data and this room.

It looks at the test split only by hashes and names, and does not rely on how the splits were made.
"""

from __future__ import annotations

import numpy as np

from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Finding, Measured, Verdict, judge, worst
from lesion_triage.data.categorical import Bools, Coded, Codes
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.split import SPLITS

TIES = (
    ("patient", "patients", "patient_id"),
    ("lesion", "lesions", "lesion_id"),
    ("file", "files", "sha256"),
    ("group of near-duplicates", "groups of near-duplicates", "duplicate_group"),
)
"""What must not occur in two splits: singular, plural, and the record's field."""

_REPEATED_SHARE = 0.01
_CONTRADICTED_SHARE = 0.005
_DROPPED_SHARE = 0.05
_UNKNOWN_SHARE = 0.10


def leakage(columns: Columns) -> Finding:
    """Anything shared by two splits fails; this cannot be accepted."""
    measured: list[Measured] = []
    offenders: list[str] = []
    looked_at: list[str] = []
    dealt = columns.split >= 0
    for word, plural, name in TIES:
        tie = columns.coded(name)
        known = dealt & ~tie.missing()
        if not known.any():
            continue
        crossing = _crossing(tie.codes[known], columns.split[known], len(tie.levels))
        measured.append(
            Measured(f"{plural} in more than one split", float(crossing.size), limit="fail above 0")
        )
        looked_at.append(word)
        offenders += [f"{word} {tie.levels[code]}" for code in crossing]
    everyone, unnamed = int(dealt.sum()), int((dealt & columns.coded("patient_id").missing()).sum())
    blind = (
        f" {unnamed:,} of {everyone:,} pictures name no patient, so it is unknown whether theirs are."
        if unnamed
        else ""
    )
    crossed = [f"{one.value:.0f} {one.what}" for one in measured if one.value]
    if not crossed:
        words = f"{', '.join(looked_at[:-1])} or {looked_at[-1]}" if looked_at else "picture"
        summary = f"No {words} of {everyone:,} pictures is in two splits."
        return Finding("leakage", Verdict.PASS, summary + blind, tuple(measured))
    summary = f"There are {', '.join(crossed)}; names.csv has the names.{blind}"
    return Finding("leakage", Verdict.FAIL, summary, tuple(measured), local=tuple(offenders))


def duplicate_files(columns: Columns) -> Finding:
    """Files that occur under several image ids. Warns if lesions differ too, or if many pictures repeat."""
    file = columns.coded("sha256")
    rows, group = _repeated(file)
    across = _differ(group, columns.case[rows])
    groups = np.unique(group)
    share = rows.size / max(len(columns.records), 1)
    verdict = Verdict.WARN if across.size or share > _REPEATED_SHARE else Verdict.PASS
    if not rows.size:
        summary = "Every file has one image id."
    else:
        summary = (
            f"{groups.size} files have more than one image id ({rows.size} pictures); {across.size} of them "
            "have more than one lesion."
        )
    starts = np.searchsorted(group, groups)[1:]
    named = [
        " = ".join(columns.records[row].image_id for row in same)
        for same in np.split(rows, starts)
        if same.size
    ]
    measured = (
        Measured("files under more than one image id", float(groups.size)),
        Measured("files under more than one lesion", float(across.size), limit="warn above 0"),
        Measured("share of pictures that are repeated", share, limit=f"warn above {_REPEATED_SHARE:g}"),
    )
    return Finding("duplicate_files", verdict, summary, measured, local=tuple(named))


def contradictory_labels(columns: Columns) -> Finding:
    """One picture with two labels. The same file may fail; copies that only look alike warn."""
    files, copies = _contradicted(columns, "sha256"), _contradicted(columns, "duplicate_group")
    everyone = sorted(files | copies)
    in_files, in_all = (len(rows) / max(len(columns.records), 1) for rows in (files, everyone))
    numbers = (
        Measured("share of pictures", in_all, limit="warn above 0"),
        Measured("share in the same file", in_files, limit=f"fail above {_CONTRADICTED_SHARE:g}"),
    )
    return Finding(
        "contradictory_labels",
        worst([judge(in_all, 0.0, 1.0), judge(in_files, 0.0, _CONTRADICTED_SHARE)]),
        f"{len(everyone)} pictures have a copy with another label, {len(files)} of them in the same file.",
        numbers,
        local=tuple(columns.records[row].image_id for row in everyone),
    )


def dropped_pictures(manifest: Manifest) -> Finding:
    """What the manifest could not use."""
    lost = sum(len(names) for names in manifest.dropped.values())
    share = lost / max(lost + len(manifest.records), 1)
    reasons = ", ".join(f"{reason} {len(names)}" for reason, names in sorted(manifest.dropped.items()))
    return Finding(
        "dropped_pictures",
        judge(share, _DROPPED_SHARE, 1.0),
        f"{lost} pictures of the table could not be used{': ' + reasons if reasons else ''}.",
        (Measured("share of pictures", share, limit=f"warn above {_DROPPED_SHARE:g}"),),
    )


def unknown_labels(columns: Columns) -> Finding:
    """Pictures without a label."""
    share = float((columns.positive < 0).mean())
    return Finding(
        "unknown_labels",
        judge(share, _UNKNOWN_SHARE, 1.0),
        f"{int((columns.positive < 0).sum())} of {len(columns.records)} pictures have no label.",
        (Measured("share of pictures", share, limit=f"warn above {_UNKNOWN_SHARE:g}"),),
    )


def _contradicted(columns: Columns, name: str) -> set[int]:
    """Labelled rows that share a field with a row of another label."""
    rows, group = _repeated(columns.coded(name))
    labelled = columns.positive[rows] >= 0
    rows, group = rows[labelled], group[labelled]
    return set(rows[np.isin(group, _differ(group, columns.positive[rows]))].tolist())


def _crossing(tie: Codes, split: np.ndarray[tuple[int], np.dtype[np.int8]], ties: int) -> Codes:
    """Codes of the ties that occur in more than one split."""
    seen: Bools = np.zeros((ties, len(SPLITS)), dtype=np.bool_)
    seen[tie, split] = True
    return np.flatnonzero(seen.sum(axis=1) > 1)


def _repeated(column: Coded) -> tuple[Codes, Codes]:
    """Rows whose word occurs more than once, and their code, ordered by code."""
    often = np.bincount(column.codes, minlength=len(column.levels)) > 1
    rows = np.flatnonzero(often[column.codes] & ~column.missing())
    rows = rows[np.argsort(column.codes[rows], kind="stable")]
    return rows, column.codes[rows]


def _differ(group: Codes, value: np.ndarray[tuple[int], np.dtype[np.integer]]) -> Codes:
    """Groups, sorted by code, in which the value varies."""
    if not group.size:
        return group
    first = value[np.searchsorted(group, group)]
    return np.unique(group[value != first])
