"""Answers of a run to checklist items on its results. Imports the dossier."""

from __future__ import annotations

from typing import Any

from lesion_triage.cards.checklist import Answer
from lesion_triage.cards.dossier import (
    AUDIT_MODEL,
    CASE_SCORES,
    OPENINGS,
    RESULTS,
    Dossier,
    Pointer,
    Unknown,
)
from lesion_triage.evaluate.intervals import interval_of

_ALL = "slices[name=all]"
_SHOWN = (
    ("auroc", "AUROC"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("referral_rate", "referral rate"),
)
_PEOPLE = {"sex": "Sex", "age_band": "Age", "fitzpatrick_skin_type": "Skin type"}
"""Dimensions of ``groups`` in the results that are about people, with their titles."""

INTERVALS = (
    "Sensitivity, specificity, referral rate and predictive values carry exact intervals (Clopper-Pearson), "
    "by the effective number of cases where a patient has several; the rest, those of a bootstrap over "
    "cases, or over patients where one has several."
)
"""True of results of this version; all but sensitivity and specificity had the bootstrap's in older files."""


def interval(estimate: dict[str, Any] | None) -> str:
    """``0.948 (0.883 to 0.983)``, or a dash."""
    if not estimate:
        return "-"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} to {estimate['high']:.3f})"


def _numbers(part: dict[str, Any]) -> str:
    if not part["metrics"]:
        return str(part["note"])
    return ", ".join(f"{word} {interval(interval_of(part, name))}" for name, word in _SHOWN)


def performance(dossier: Dossier) -> Answer:
    """Estimates with intervals, for all cases and by slice."""
    parts = dossier.at(RESULTS, "slices")
    text = " ".join(
        f"{part['title']} ({part['cases']} cases, {part['positives']} positive): {_numbers(part)}."
        for part in parts
    )
    return Answer(
        f"On the {dossier.at(RESULTS, 'split')} split, 95 % intervals. {text}",
        (Pointer(RESULTS, f"{_ALL}.metrics"),),
    )


def by_group(dossier: Dossier) -> Answer:
    """As ``performance``, and by groups of people; dimensions that were not measured are named as missing."""
    known = performance(dossier)
    rows = [
        row
        for row in dossier.get(RESULTS, "groups", ())
        if row["by"] in _PEOPLE and (row["sensitivity"] or row["specificity"])
    ]
    text = "".join(
        f" {_PEOPLE[row['by']]} {row['group']} ({row['cases']} cases, {row['positives']} positive): "
        f"sensitivity {interval(row['sensitivity'])}, specificity {interval(row['specificity'])}."
        for row in rows
    )
    absent = [word for by, word in _PEOPLE.items() if by not in {row["by"] for row in rows}]
    return Answer(
        f"{known.text}{text}",
        (*known.evidence, *((Pointer(RESULTS, "groups"),) if rows else ())),
        f"results by {', '.join(absent).lower()}." if absent else "",
    )


def heterogeneity(dossier: Dossier) -> Answer:
    """By source of the pictures; unknown if none has enough cases."""
    parts = [part for part in dossier.at(RESULTS, "slices") if part["name"].startswith("source_")]
    measured = [part for part in parts if part["metrics"]]
    if not measured:
        raise Unknown("source")
    rest = len(parts) - len(measured)
    too_small = f" In {rest} there are too few cases of a class." if rest else ""
    values = [part["metrics"]["auroc"]["value"] for part in measured if part["metrics"].get("auroc")]
    spread = f" AUROC from {min(values):.3f} to {max(values):.3f}." if values else ""
    return Answer(
        f"Measured in {len(measured)} of {len(parts)} sources by itself.{too_small}{spread}",
        (Pointer(RESULTS, f"slices[name={measured[0]['name']}].metrics"),),
    )


def measures(dossier: Dossier) -> Answer:
    """Which measures and plots."""
    names = ", ".join(sorted(dossier.at(RESULTS, f"{_ALL}.metrics")))
    return Answer(
        f"{names}; ROC with the certified operating point, reliability diagram, scores by outcome. "
        f"{INTERVALS} Draws: {dossier.at(RESULTS, 'bootstrap_draws')}, seed "
        f"{dossier.at(RESULTS, 'bootstrap_seed')}.",
        (Pointer(RESULTS, f"{_ALL}.metrics"), Pointer(RESULTS, "bootstrap_draws")),
    )


def indeterminate(dossier: Dossier) -> Answer:
    """What could not be scored."""
    return Answer(
        f"A case without a gradable photograph counts as referred: {dossier.at(RESULTS, 'abstained')} test "
        f"cases, {dossier.at(RESULTS, 'positives_abstained')} of them positive. A case whose truth is "
        "unknown is in no split.",
        (Pointer(RESULTS, "abstained"), Pointer(RESULTS, "positives_abstained")),
    )


def cross_table(dossier: Dossier) -> Answer:
    """The two-by-two table."""
    sensitivity = dossier.at(RESULTS, f"{_ALL}.sensitivity_exact")
    specificity = dossier.at(RESULTS, f"{_ALL}.specificity_exact")
    return Answer(
        f"Positive: {sensitivity['successes']} referred, "
        f"{sensitivity['trials'] - sensitivity['successes']} below the threshold. Negative: "
        f"{specificity['trials'] - specificity['successes']} referred, {specificity['successes']} below. "
        "Abstentions count as referred.",
        (Pointer(RESULTS, f"{_ALL}.sensitivity_exact"), Pointer(RESULTS, f"{_ALL}.specificity_exact")),
    )


def failures(dossier: Dossier) -> Answer:
    """The errors, and where every score is kept."""
    known = cross_table(dossier)
    return Answer(
        known.text, (*known.evidence, Pointer(CASE_SCORES)), "what the missed cases have in common."
    )


def internal(dossier: Dossier) -> Answer:
    """Internal testing, and how often the test split was opened."""
    openings = dossier.at(OPENINGS)
    return Answer(
        f"{dossier.at(RESULTS, 'cases')} test cases of the same collection, that had no part in training, "
        f"calibrator or threshold; openings recorded: {len(openings)}. Decisions on them in which torch and "
        f"onnxruntime differ: {dossier.at(RESULTS, 'parity.decision_flips')}.",
        (Pointer(OPENINGS), Pointer(RESULTS, "parity.decision_flips")),
    )


def robustness(dossier: Dossier) -> Answer:
    """Slices by source and by confirmed label, and ranking within sources."""
    place = "findings[code=model_within_source].summary"
    return Answer(
        f"Slices by source and by confirmed label; within sources: {dossier.at(AUDIT_MODEL, place)}",
        (Pointer(RESULTS, "slices"), Pointer(AUDIT_MODEL, place)),
        "spoilt photographs, unless `lesion-triage robustness` was run.",
    )


def bias_assessment(dossier: Dossier) -> Answer:
    """The audit of data and model."""
    codes = ("model_and_metadata", "model_within_source", "lesion_covered")
    found = [dossier.at(AUDIT_MODEL, f"findings[code={code}].summary") for code in codes]
    return Answer(
        f"The audit of data and model says {dossier.at(AUDIT_MODEL, 'verdict')}. {' '.join(found)}",
        (
            Pointer(AUDIT_MODEL, "verdict"),
            *(Pointer(AUDIT_MODEL, f"findings[code={code}].summary") for code in codes),
        ),
        "bias at the place of use.",
    )
