"""What occurs in two splits or twice, and what was lost on the way. Imports data and this package.

It looks at the test split only by hashes and names, and does not rely on how the splits were made.
"""

from __future__ import annotations

import numpy as np

from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Finding, Measurement, Verdict, verdict_for, worst
from lesion_triage.data.categorical import Bools, Categorical, Codes
from lesion_triage.data.manifest import Manifest
from lesion_triage.data.sources.folder import EMPTY_ROW
from lesion_triage.data.split import SPLITS

GROUPINGS = (
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
    measured: list[Measurement] = []
    offenders: list[str] = []
    compared: list[str] = []
    assigned = columns.split >= 0
    for word, plural, name in GROUPINGS:
        column = columns.categorical(name)
        known = assigned & ~column.is_missing()
        if not known.any():
            continue
        crossing = _codes_in_several_splits(column.codes[known], columns.split[known], len(column.levels))
        measured.append(
            Measurement(f"{plural} in more than one split", float(crossing.size), limit="fail above 0")
        )
        compared.append(word)
        offenders += [f"{word} {column.levels[code]}" for code in crossing]
    all_rows, unnamed = (
        int(assigned.sum()),
        int((assigned & columns.categorical("patient_id").is_missing()).sum()),
    )
    blind = (
        f" {unnamed:,} of {all_rows:,} pictures name no patient, so it is unknown whether theirs are."
        if unnamed
        else ""
    )
    crossed = [f"{one.value:.0f} {one.what}" for one in measured if one.value]
    if not crossed:
        words = f"{', '.join(compared[:-1])} or {compared[-1]}" if compared else "picture"
        summary = f"No {words} of {all_rows:,} pictures is in two splits."
        return Finding("leakage", Verdict.PASS, summary + blind, tuple(measured))
    summary = f"There are {', '.join(crossed)}; names.csv has the names.{blind}"
    return Finding("leakage", Verdict.FAIL, summary, tuple(measured), local=tuple(offenders))


def duplicate_files(columns: Columns) -> Finding:
    """Files that occur under several image ids. Warns if lesions differ too, or if many pictures repeat."""
    file = columns.categorical("sha256")
    rows, group = _repeated_values(file)
    across = _groups_that_differ(group, columns.case[rows])
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
        Measurement("files under more than one image id", float(groups.size)),
        Measurement("files under more than one lesion", float(across.size), limit="warn above 0"),
        Measurement("share of pictures that are repeated", share, limit=f"warn above {_REPEATED_SHARE:g}"),
    )
    return Finding("duplicate_files", verdict, summary, measured, local=tuple(named))


def contradictory_labels(columns: Columns) -> Finding:
    """One picture with two labels. The same file may fail; copies that only look alike warn."""
    files, copies = (
        _rows_with_other_label(columns, "sha256"),
        _rows_with_other_label(columns, "duplicate_group"),
    )
    all_rows = sorted(files | copies)
    in_files, in_all = (len(rows) / max(len(columns.records), 1) for rows in (files, all_rows))
    numbers = (
        Measurement("share of pictures", in_all, limit="warn above 0"),
        Measurement("share in the same file", in_files, limit=f"fail above {_CONTRADICTED_SHARE:g}"),
    )
    return Finding(
        "contradictory_labels",
        worst([verdict_for(in_all, 0.0, 1.0), verdict_for(in_files, 0.0, _CONTRADICTED_SHARE)]),
        f"{len(all_rows)} pictures have a copy with another label, {len(files)} of them in the same file.",
        numbers,
        local=tuple(columns.records[row].image_id for row in all_rows),
    )


def dropped_pictures(manifest: Manifest) -> Finding:
    """What the manifest could not use; an empty row of a table names no picture."""
    dropped = {reason: names for reason, names in manifest.dropped.items() if reason != EMPTY_ROW}
    lost = sum(len(names) for names in dropped.values())
    share = lost / max(lost + len(manifest.records), 1)
    reasons = ", ".join(f"{reason} {len(names)}" for reason, names in sorted(dropped.items()))
    return Finding(
        "dropped_pictures",
        verdict_for(share, _DROPPED_SHARE, 1.0),
        f"{lost} pictures of the table could not be used{': ' + reasons if reasons else ''}.",
        (Measurement("share of pictures", share, limit=f"warn above {_DROPPED_SHARE:g}"),),
    )


def unknown_labels(columns: Columns) -> Finding:
    """Pictures without a label."""
    share = float((columns.positive < 0).mean())
    return Finding(
        "unknown_labels",
        verdict_for(share, _UNKNOWN_SHARE, 1.0),
        f"{int((columns.positive < 0).sum())} of {len(columns.records)} pictures have no label.",
        (Measurement("share of pictures", share, limit=f"warn above {_UNKNOWN_SHARE:g}"),),
    )


def _rows_with_other_label(columns: Columns, name: str) -> set[int]:
    """Labelled rows that share a field with a row of another label."""
    rows, group = _repeated_values(columns.categorical(name))
    labelled = columns.positive[rows] >= 0
    rows, group = rows[labelled], group[labelled]
    return set(rows[np.isin(group, _groups_that_differ(group, columns.positive[rows]))].tolist())


def _codes_in_several_splits(
    codes: Codes, split: np.ndarray[tuple[int], np.dtype[np.int8]], level_count: int
) -> Codes:
    """Codes that occur in more than one split."""
    seen: Bools = np.zeros((level_count, len(SPLITS)), dtype=np.bool_)
    seen[codes, split] = True
    return np.flatnonzero(seen.sum(axis=1) > 1)


def _repeated_values(column: Categorical) -> tuple[Codes, Codes]:
    """Rows whose word occurs more than once, and their code, ordered by code."""
    often = np.bincount(column.codes, minlength=len(column.levels)) > 1
    rows = np.flatnonzero(often[column.codes] & ~column.is_missing())
    rows = rows[np.argsort(column.codes[rows], kind="stable")]
    return rows, column.codes[rows]


def _groups_that_differ(group: Codes, value: np.ndarray[tuple[int], np.dtype[np.integer]]) -> Codes:
    """Groups, sorted by code, in which the value varies."""
    if not group.size:
        return group
    first = value[np.searchsorted(group, group)]
    return np.unique(group[value != first])
