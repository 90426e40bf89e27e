"""The model card of a run, longer than the bundle's: Mitchell et al. 2019, doi:10.1145/3287560.3287596.

Imports the dossier. The bundle's own card is sealed with it and says what it is; this card has the results.
"""

from __future__ import annotations

from typing import Any

from lesion_triage.bundle.messages import english_catalogue
from lesion_triage.cards import answers_model, answers_policy
from lesion_triage.cards.answers_data import split_method
from lesion_triage.cards.answers_results import INTERVALS, interval
from lesion_triage.cards.checklist import BLANK
from lesion_triage.cards.dossier import (
    AUDIT,
    AUDIT_MODEL,
    CERTIFICATE,
    CONFIG,
    HEADER,
    MANIFEST,
    OPENINGS,
    RESULTS,
    Dossier,
    Unknown,
)
from lesion_triage.cards.markdown_tables import stage_times, table
from lesion_triage.cards.population import population_of
from lesion_triage.evaluate.intervals import interval_of

_COLUMNS = (
    ("auroc", "AUROC"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
    ("referral_rate", "referral rate"),
    ("calibration_slope", "calibration slope"),
)
_SYNTHETIC = "**Made from drawn pictures. Its numbers say nothing about people. Never use it on patients.**"


def model_card(dossier: Dossier) -> str:
    """The card as Markdown.

    Raises:
        Unknown: a file of the run that every card needs is missing.
    """
    parts = (
        _head(dossier),
        ["## Model details", "", *_details(dossier)],
        ["## Intended use", "", *_use(dossier)],
        ["## Factors", "", *_factors(dossier)],
        ["## Metrics", "", *_metrics(dossier)],
        ["## Evaluation data", "", *_evaluation(dossier)],
        ["## Training data", "", *_training(dossier)],
        ["## Quantitative analyses", "", *_results(dossier)],
        ["## Ethical considerations", "", *_ethics(dossier)],
        ["## Caveats and recommendations", "", *_caveats(dossier)],
        ["## Time and energy", "", *_costs(dossier)],
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _head(dossier: Dossier) -> list[str]:
    lines = [f"# Model card: {dossier.at(HEADER, 'name')}", ""]
    if dossier.at(HEADER, "synthetic"):
        lines += [_SYNTHETIC, ""]
    return [*lines, english_catalogue().notice]


def _details(dossier: Dossier) -> list[str]:
    facts, answered = dossier.at(HEADER, "model"), answers_model.training
    rows = [
        ("bundle", f"sealed {dossier.at(HEADER, 'created_at')} by {dossier.at(HEADER, 'made_with')}"),
        (
            "network",
            f"{facts['backbone']}, {facts['parameters']:,} parameters, {answers_model.views(dossier)}",
        ),
        ("input", f"photographs of one lesion, {dossier.at(HEADER, 'pixels.size_px')} px, RGB"),
        ("output", "score, disposition, priority band, reasons; it names no condition"),
        ("first weights", answers_model.weights(dossier).text),
        ("recipe", _or_blank(dossier, answered)),
        ("ensemble", answers_model.ensemble(dossier).text),
        ("model", f"`{dossier.at(CERTIFICATE, 'model_sha256')[:16]}`"),
        (
            "certificate",
            f"issued {dossier.at(CERTIFICATE, 'issued_at')}, purpose: {dossier.at(CERTIFICATE, 'purpose')}",
        ),
        ("licence of the code", "Apache-2.0"),
        ("contact, citation of this model", BLANK),
    ]
    return table(("", ""), rows)


def _or_blank(dossier: Dossier, answer: Any) -> str:
    try:
        return str(answer(dossier).text)
    except Unknown:
        return BLANK


def _use(dossier: Dossier) -> list[str]:
    return [
        answers_model.purpose(dossier).text,
        "",
        answers_model.use_cases(dossier).text,
        "",
        f"Poor input: {answers_policy.poor_input(dossier).text}",
    ]


def _factors(dossier: Dossier) -> list[str]:
    rows = dossier.at(CERTIFICATE, "groups")
    lines = [
        "Groups that the certificate was asked for. Of a group that is not certifiable nothing is "
        "promised by itself.",
        "",
    ]
    lines += table(
        ("by", "group", "status", "positives", "missed", "allowed"),
        (
            (
                row["by"],
                row["group"],
                "certified" if row["status"] == "certified" else "NOT CERTIFIABLE",
                row["positives"],
                row["misses_seen"],
                "-" if row["misses_allowed"] is None else row["misses_allowed"],
            )
            for row in rows
        ),
    )
    return [*lines, "", "Camera, light and kind of photograph: those of the data only, see the dataset card."]


def _metrics(dossier: Dossier) -> list[str]:
    return [
        answers_policy.threshold(dossier).text,
        "",
        f"{INTERVALS} An abstention counts as referred.",
    ]


def _evaluation(dossier: Dossier) -> list[str]:
    if dossier.get(RESULTS) is None:
        return [f"No evaluation. {BLANK}"]
    openings = dossier.get(OPENINGS)
    opened = (
        f"opened {len(openings)} time(s)" if openings else "the record of how often it was opened is missing"
    )
    return [
        f"The {dossier.at(RESULTS, 'split')} split: {dossier.at(RESULTS, 'photographs'):,} photographs of "
        f"{dossier.at(RESULTS, 'cases'):,} cases, {dossier.at(RESULTS, 'positives'):,} positive; "
        f"{opened}, on the sealed bundle. It is {split_method(dossier)} "
        "from the collection that the training data come from; it is no external evaluation.",
    ]


def _training(dossier: Dossier) -> list[str]:
    people = population_of(dossier).total
    return [
        f"{dossier.at(MANIFEST, 'source')}: {people.photographs:,} photographs of {people.cases:,} cases, "
        f"{people.positives:,} positive, over all splits. Manifest "
        f"`{dossier.at(MANIFEST, 'sha256')[:16]}`. Who is in them, and who is not: [dataset "
        "card](dataset-card.md).",
    ]


def _results(dossier: Dossier) -> list[str]:
    if dossier.get(RESULTS) is None:
        return [BLANK]
    rows = []
    for part in dossier.at(RESULTS, "slices"):
        cells = [interval(interval_of(part, name)) for name, _ in _COLUMNS]
        rows.append((part["title"], part["cases"], part["positives"], *cells))
    columns = ("slice", "cases", "positive", *(word for _, word in _COLUMNS))
    lines = table(columns, rows)
    missed, positives = dossier.at(RESULTS, "missed"), dossier.at(RESULTS, "positives")
    return [
        *lines,
        "",
        f"{missed} of {positives} positive cases fell below the threshold. A dash: too few cases, or not "
        "measured. Read the worst of the slices. Crossings of groups (intersections) were not measured.",
    ]


def _ethics(dossier: Dossier) -> list[str]:
    return [
        "- Every case is read by a clinician; the model orders the queue. A place in it is no discharge.",
        "- Licence and citation of the data stand in the dataset card. Whether those photographed agreed "
        f"to this use is for the authors to say. {BLANK}",
        f"- Groups that are rare in the data may fare worse. {answers_policy.fairness(dossier).text}",
        f"- Approval, consent, and who was heard in the design: {BLANK}",
    ]


def _caveats(dossier: Dossier) -> list[str]:
    lines = [f"- {assumption}" for assumption in dossier.at(CERTIFICATE, "assumptions")]
    audited = next((file for file in (AUDIT_MODEL, AUDIT) if dossier.get(file) is not None), None)
    if audited is None:
        return [*lines, f"- No audit of data or model. {BLANK}"]
    lines.append(f"- The audit says {dossier.at(audited, 'verdict')}.")
    found = (one for one in dossier.at(audited, "findings") if one["verdict"] != "pass")
    for one in found:
        accepted = f" Accepted: {one['accepted']}" if one["accepted"] else ""
        lines.append(f"- {one['verdict']}: {one['title']}. {one['summary']}{accepted}")
    return lines


def _costs(dossier: Dossier) -> list[str]:
    taken = stage_times(dossier)
    if not taken:
        return [BLANK]
    rows = [(name, f"{seconds:,.1f} s") for name, seconds in taken]
    rows.append(("together", f"{sum(seconds for _, seconds in taken):,.1f} s"))
    return [
        *table(("stage", "time by the clock"), rows),
        "",
        f"Accelerator as configured: {dossier.get(CONFIG, 'train.accelerator', 'unknown')}. Energy: {BLANK}",
    ]
