"""Answers of a run to checklist items on the people in its data. Imports the population."""

from __future__ import annotations

from lesion_triage.cards.answers_data import format_counts, require_splits, split_method
from lesion_triage.cards.checklist import Answer
from lesion_triage.cards.dossier import CONFIG, MANIFEST, RESULTS, SPLITS, TABLE, Dossier, Pointer, Unknown
from lesion_triage.cards.population import UNKNOWN, Count, count, population_of
from lesion_triage.data.records import HISTOPATHOLOGY


def histology(dossier: Dossier) -> Answer:
    """How many cases have a label confirmed by histopathology."""
    people = population_of(dossier)
    found = people.by("diagnosis_confirm_type")
    confirmed = found.get(HISTOPATHOLOGY, Count(0, 0, 0, 0))
    results = Pointer(RESULTS, "slices[name=histology_confirmed].metrics")
    measured = bool(dossier.get(results.file, results.place))
    return Answer(
        f"{confirmed.positives:,} of {people.total.positives:,} positive cases have a label confirmed by "
        f"histopathology, and {confirmed.negatives:,} of {people.total.negatives:,} others."
        + (" Results on the confirmed ones alone are reported." if measured else ""),
        (Pointer(TABLE, "diagnosis_confirm_type"), *((results,) if measured else ())),
        "who read the slides.",
    )


def characteristics(dossier: Dossier) -> Answer:
    """Who is in the data: the dataset card has the tables."""
    people = population_of(dossier)
    require_splits(people)
    return Answer(
        f"{people.total.photographs:,} photographs of {people.total.cases:,} cases, "
        f"{people.total.positives:,} positive. cards/dataset-card.md has tables by class, site, sex, age, "
        f"skin type, kind of picture, source and split. Sex (cases): {format_counts(people.by('sex'))}. Age: "
        f"{format_counts(people.by('age_approx'))}.",
        (Pointer(TABLE, "sex"), Pointer(TABLE, "age_approx"), Pointer(SPLITS, "image_ids")),
        "dates, treatments and other features of the persons.",
    )


def compared_with_training(dossier: Dossier) -> Answer:
    """Distribution of the test split compared with that of training."""
    people = population_of(dossier)
    require_splits(people)
    shares = []
    for name in ("train", "test"):
        found = count(people.splits[name])
        shares.append(f"{name} {found.positives / max(found.cases, 1):.1%}")
    return Answer(
        f"Both come from one collection, by {split_method(dossier)}. Share of positive cases: "
        f"{', '.join(shares)}. cards/dataset-card.md compares the splits by sex, age and site.",
        (Pointer(SPLITS, "image_ids"), Pointer(CONFIG, "split.official"), Pointer(TABLE, "needs_in_person")),
    )


def image_types(dossier: Dossier) -> Answer:
    """Kinds of photograph."""
    people = population_of(dossier)
    if not people.stated("image_type"):
        raise Unknown("image_type")
    return Answer(
        f"Photographs by kind: {format_counts(people.by('image_type'), 'photographs')}.",
        (Pointer(TABLE, "image_type"),),
    )


def metadata(dossier: Dossier) -> Answer:
    """Distribution of sex, age and site, as far as stated."""
    people = population_of(dossier)
    known = [name for name in ("sex", "age_approx", "anatom_site_general") if people.stated(name)]
    text = " ".join(f"{name} (cases): {format_counts(people.by(name))}." for name in known)
    if not known:
        raise Unknown("metadata")
    return Answer(text, tuple(Pointer(TABLE, name) for name in known), "ethnicity and geography.")


def skin_tone(dossier: Dossier) -> Answer:
    """Skin types, as far as stated."""
    people = population_of(dossier)
    text = "The dataset states no skin type."
    if people.stated("fitzpatrick_skin_type"):
        text = f"Fitzpatrick skin type (cases): {format_counts(people.by('fitzpatrick_skin_type'))}."
    return Answer(text, (Pointer(TABLE, "fitzpatrick_skin_type"),), "how the skin type was determined.")


def balance(dossier: Dossier) -> Answer:
    """Classes and their sizes."""
    people = population_of(dossier)
    unlabelled = people.total.cases - people.total.positives - people.total.negatives
    rest = f", {unlabelled:,} of unknown label" if unlabelled else ""
    return Answer(
        f"Cases: {people.total.positives:,} positive, {people.total.negatives:,} negative{rest}. By class "
        f"(cases): {format_counts(people.by('diagnosis'))}.",
        (Pointer(MANIFEST, "counts.needs_in_person"), Pointer(MANIFEST, "counts.diagnosis")),
    )


def alternatives(dossier: Dossier) -> Answer:
    """Classes among the negative cases."""
    groups = population_of(dossier).by("diagnosis")
    text = ", ".join(f"{name} {one.negatives:,}" for name, one in groups.items() if one.negatives)
    return Answer(f"By class of the dataset (cases): {text}.", (Pointer(TABLE, "diagnosis"),))


def severity(dossier: Dossier) -> Answer:
    """Classes among the positive cases."""
    groups = population_of(dossier).by("diagnosis")
    text = ", ".join(f"{name} {one.positives:,}" for name, one in groups.items() if one.positives)
    return Answer(
        f"By class of the dataset (cases): {text}.", (Pointer(TABLE, "diagnosis"),), "stage or thickness."
    )


def sites(dossier: Dossier) -> Answer:
    """Hospitals, cameras or collections."""
    groups = population_of(dossier).by("source")
    if set(groups) == {UNKNOWN}:
        raise Unknown("source")
    return Answer(
        f"Photographs by source: {format_counts(groups, 'photographs')}.",
        (Pointer(TABLE, "source"),),
        "makers and models of the cameras.",
    )
