"""Who is in the data: counts by split, class, sex, age, site and skin type. Imports data and this package.

From test and calibration only counts are taken, which `split` prints as well.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.stats import chi2_contingency

from lesion_triage.audit.columns import Columns
from lesion_triage.audit.findings import Finding, Measurement, Table, Verdict
from lesion_triage.config import Audit
from lesion_triage.data.categorical import Categorical, Codes
from lesion_triage.data.split import SPLITS

DARK_TYPES = ("V", "VI", "V-VI", "5", "6", "5.0", "6.0")
"""Fitzpatrick types V and VI as tables write them; DDI does not tell them apart."""

_MIN_POSITIVES = 10
"""As in the report: a slice with fewer cases of a class is counted and not measured."""
_MAX_GAP = 0.05
_AGE_EDGES = (30, 50, 70)
_MAX_LEVELS = 30


def split_balance(columns: Columns, config: Audit) -> tuple[Finding, Table]:
    """Positive units in each split; stratification should have equalised the shares."""
    rows, counts = [], []
    for number, name in enumerate(SPLITS):
        here = columns.split == number
        units, positives = _units(columns, here)
        counts.append((positives, units - positives))
        share = positives / units if units else 0.0
        rows.append((name, int(here.sum()), int(np.unique(columns.case[here]).size), units, positives, share))
    shares = [float(row[-1]) for row in rows if row[3]]
    tested = np.array([pair for pair in counts if sum(pair)])
    p_value = (
        float(chi2_contingency(tested).pvalue) if (tested.sum(axis=0) > 0).all() and len(tested) > 1 else 1.0
    )
    gap = max(shares, default=0.0) - min(shares, default=0.0)
    uneven = p_value < config.false_alarm and gap > _MAX_GAP
    numbers = (
        Measurement(
            "largest difference in the share of positive units",
            gap,
            limit=f"warn above {_MAX_GAP:g} where a chi-square test has p < {config.false_alarm:g}",
            note=f"p {p_value:.2g}",
        ),
    )
    summary = f"The share of positive units is {min(shares, default=0):.1%} to {max(shares, default=0):.1%}."
    table = Table(
        "splits",
        "What each split holds. Units are patients where known, else lesions.",
        ("split", "photographs", "cases", "units", "positive units", "share"),
        tuple(rows),
    )
    return Finding("split_balance", Verdict.WARN if uneven else Verdict.PASS, summary, numbers), table


def balance(columns: Columns) -> tuple[Finding, Table]:
    """Units and positive units by class, sex, age, site, skin type and source, all splits together."""
    labelled = columns.positive >= 0
    rows: list[tuple[str | int | float | None, ...]] = []
    sparse_groups = []
    for word, column in _dimensions(columns).items():
        common = column.merge_rare(_MAX_LEVELS)
        for code, level in enumerate(common.levels):
            here = labelled & (common.codes == code)
            if not here.any():
                continue
            units, positives = _units(columns, here)
            rows.append((f"{word}: {level or 'unknown'}", int(here.sum()), units, positives))
            if word != "class" and positives < _MIN_POSITIVES:
                sparse_groups.append(f"{word} {level or 'unknown'}")
    units, positives = _units(columns, labelled)
    known = (
        f" Groups with fewer than {_MIN_POSITIVES}: {', '.join(sparse_groups[:12])}." if sparse_groups else ""
    )
    if len(sparse_groups) > 12:
        known = f"{known[:-1]} and {len(sparse_groups) - 12} more."
    summary = f"{positives:,} of {units:,} units are positive.{known}"
    table = Table(
        "groups",
        "Photographs, units and positive units of every group, over all splits. A group with few "
        "positives is neither certified nor measured.",
        ("group", "photographs", "units", "positive units"),
        tuple(rows),
    )
    return Finding("balance", Verdict.PASS, summary), table


def skin_type_balance(columns: Columns) -> Finding:
    """Warn if dark skin is nearly absent, or if skin types are not recorded."""
    skin = columns.categorical("fitzpatrick_skin_type")
    labelled = columns.positive >= 0
    stated = labelled & ~skin.is_missing()
    dark_levels = np.array([level.upper() in DARK_TYPES for level in skin.levels], dtype=np.bool_)
    units, positives = _units(columns, stated & dark_levels[skin.codes])
    everyone, _ = _units(columns, labelled)
    of_known, _ = _units(columns, stated)
    numbers = (
        Measurement("share of units whose skin type is stated", of_known / max(everyone, 1)),
        Measurement(
            "positive units of Fitzpatrick type V or VI",
            float(positives),
            limit=f"warn below {_MIN_POSITIVES}",
        ),
    )
    if not of_known:
        summary = "No record states a skin type, so nothing is known about results by skin type."
    else:
        summary = (
            f"{units} of {of_known} units with a stated skin type are of type V or VI, "
            f"{positives} of them positive."
        )
    verdict = Verdict.PASS if positives >= _MIN_POSITIVES else Verdict.WARN
    return Finding("skin_type_balance", verdict, summary, numbers)


def _units(columns: Columns, here: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[int, int]:
    """Number of units among some rows, and how many of them have a positive row there."""
    return (
        int(np.unique(columns.unit[here]).size),
        int(np.unique(columns.unit[here & (columns.positive == 1)]).size),
    )


def _dimensions(columns: Columns) -> dict[str, Categorical]:
    return {
        "class": columns.categorical("diagnosis"),
        "sex": columns.categorical("sex"),
        "age": _age_bands(columns.numeric("age_approx")),
        "site": columns.categorical("anatom_site_general"),
        "skin type": columns.categorical("fitzpatrick_skin_type"),
        "source": columns.categorical("source"),
    }


def _age_bands(ages: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Categorical:
    edges = np.array(_AGE_EDGES)
    codes: Codes = np.where(np.isfinite(ages), np.searchsorted(edges, ages, side="right") + 1, 0)
    middle = [f"{low} to {high - 1}" for low, high in pairwise(_AGE_EDGES)]
    return Categorical(
        codes.astype(np.intp), ("", f"under {_AGE_EDGES[0]}", *middle, f"{_AGE_EDGES[-1]} and over")
    )
