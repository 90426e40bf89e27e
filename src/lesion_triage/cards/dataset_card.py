"""The dataset card of a run: Datasheets for Datasets, Gebru et al. 2021, doi:10.1145/3458723.

Imports the dossier and the population. Counts only: it names no file, lesion or person.
"""

from __future__ import annotations

from lesion_triage.cards.answers_data import label_origin, split_method
from lesion_triage.cards.checklist import BLANK
from lesion_triage.cards.dossier import AUDIT, MANIFEST, SPLITS, Dossier
from lesion_triage.cards.markdown_tables import group_table, table
from lesion_triage.cards.population import GROUPS, UNKNOWN, Population, count, population_of

_TITLES = {
    "diagnosis": "class in the dataset's own code",
    "diagnosis_confirm_type": "how the label was confirmed",
    "sex": "sex",
    "age_approx": "age, years",
    "anatom_site_general": "site of the body",
    "fitzpatrick_skin_type": "Fitzpatrick skin type",
    "image_type": "kind of photograph",
    "source": "source",
    "copyright_license": "licence",
}
_COMPARED = ("sex", "age_approx", "anatom_site_general", "fitzpatrick_skin_type")


def dataset_card(dossier: Dossier) -> str:
    """The card as Markdown.

    Raises:
        Unknown: the run has no manifest.
        ManifestError, SplitError: manifest or splits were altered.
    """
    people = population_of(dossier)
    parts = (
        [f"# Dataset card: {dossier.at(MANIFEST, 'source')}", "", _who(dossier, people)],
        [
            "## Motivation",
            "",
            f"Why it was collected, by whom, and who paid: see the citation, else: {BLANK}",
        ],
        ["## Composition", "", *_composition(dossier, people)],
        ["## Collection process", "", *_collection(people)],
        ["## Preprocessing, cleaning, labelling", "", *_cleaning(dossier, people)],
        ["## Splits", "", *_splits(dossier, people)],
        ["## Audit", "", *_audit(dossier)],
        ["## Uses", "", *_uses()],
        ["## Distribution", "", *_distribution(dossier, people)],
        ["## Maintenance", "", f"Who maintains the data, and how errors are reported: {BLANK}"],
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _who(dossier: Dossier, people: Population) -> str:
    drawn = "**Drawn by a program: no photograph of a person.** " if dossier.at(MANIFEST, "synthetic") else ""
    patients = dossier.at(MANIFEST, "counts.patients")
    known = f"{patients:,} patients" if patients else "patients are not told apart"
    return (
        f"{drawn}{people.total.photographs:,} photographs of {people.total.cases:,} lesions ({known}), of "
        f"which {people.total.positives:,} need an in-person visit. Manifest SHA-256 "
        f"`{dossier.at(MANIFEST, 'sha256')}`."
    )


def _composition(dossier: Dossier, people: Population) -> list[str]:
    lines = [
        "One instance is one photograph; a case is all photographs of one lesion. A group's cases overlap "
        "where a lesion's photographs differ. Positive: an in-person visit is needed.",
    ]
    for column, title in _TITLES.items():
        lines += ["", *group_table(title, people.by(column))]
    unlabelled = sum(one.needs_in_person is None for one in people.records)
    return [
        *lines,
        "",
        f"Photographs whose label is unknown: {unlabelled:,}; they are in no split. Fields that are not "
        "stated stay unknown: "
        + (", ".join(f"{name} {number:,}" for name, number in people.missing().items() if number) or "none")
        + ".",
    ]


def _collection(people: Population) -> list[str]:
    confirmed = (
        ", ".join(name for name in people.by("diagnosis_confirm_type") if name != UNKNOWN) or "not stated"
    )
    return [
        f"Labels were confirmed by: {confirmed}. How persons were chosen, over which time, with whose "
        f"consent: {BLANK}",
    ]


def _cleaning(dossier: Dossier, people: Population) -> list[str]:
    dropped, findings = dossier.get(MANIFEST, "dropped", {}), dossier.get(MANIFEST, "findings", {})
    lines = ["Dropped, with the reason:", ""]
    lines += (
        table(("photographs", "reason"), ((len(names), reason) for reason, names in dropped.items()))
        if dropped
        else ["none"]
    )
    lines += ["", "Kept, with a remark:", ""]
    lines += (
        table(("number", "remark"), ((len(names), remark) for remark, names in findings.items()))
        if findings
        else ["none"]
    )
    copies = people.duplicates()
    return [
        *lines,
        "",
        f"Copies of one picture, by bytes, pixels or look: {len(copies):,} groups with "
        f"{sum(copies.values()):,} photographs; a group is in one split. Which case is positive: "
        f"{label_origin(dossier)} Pictures are not altered.",
    ]


def _splits(dossier: Dossier, people: Population) -> list[str]:
    if not people.splits:
        return [f"Not split yet. {BLANK}"]
    rows = []
    for name, records in people.splits.items():
        found = count(records)
        rows.append(
            (
                name,
                f"{found.photographs:,}",
                f"{found.cases:,}",
                f"{found.positives:,}",
                _share(found.positives, found.cases),
            )
        )
    lines = table(("split", "photographs", "cases", "positive", "share"), rows)
    for column in _COMPARED:
        if people.stated(column):
            lines += ["", *_compared(people, column)]
    seed = dossier.get(SPLITS, "seed")
    return [
        *lines,
        "",
        f"Assigned in whole groups by {split_method(dossier)}, seed {seed}; left out for want of a label: "
        f"{dossier.get(SPLITS, 'left_out', 0)}.",
    ]


def _compared(people: Population, column: str) -> list[str]:
    """Shares of a column's groups in each split, over cases."""
    names = list(people.by(column))
    rows = []
    for name in names:
        cells = []
        for records in people.splits.values():
            members = [one for one in records if (GROUPS[column](one) or UNKNOWN) == name]
            cells.append(_share(count(members).cases, count(records).cases))
        rows.append((name, *cells))
    return table((f"{_TITLES[column]}, share of cases", *people.splits), rows)


def _audit(dossier: Dossier) -> list[str]:
    if dossier.get(AUDIT) is None:
        return [f"Not audited. {BLANK}"]
    findings = dossier.at(AUDIT, "findings")
    lines = [f"Verdict: {dossier.at(AUDIT, 'verdict')}.", ""]
    rows = (
        (
            one["title"],
            one["verdict"],
            one["summary"] + (f" Accepted: {one['accepted']}" if one["accepted"] else ""),
        )
        for one in findings
    )
    return lines + table(("check", "verdict", "found"), rows)


def _uses() -> list[str]:
    return [
        "Here: to train, certify and test a model that orders a reading queue. Not: to recognise a "
        "person, to grade a clinician, or to claim anything of people unlike those above. Other uses so "
        "far: see the citation.",
    ]


def _distribution(dossier: Dossier, people: Population) -> list[str]:
    lines = [f"- {one}" for one in dossier.at(MANIFEST, "citation")] or ["- no citation stated"]
    licences = ", ".join(people.by("copyright_license"))
    return [
        *lines,
        "",
        f"Licences stated with the photographs: {licences}. This project does not pass the photographs on.",
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
