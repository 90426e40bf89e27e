"""Answers of a run to checklist items on its data. Imports calibrate, the dossier and the population."""

from __future__ import annotations

from lesion_triage.calibrate.certificate import minimum_positives
from lesion_triage.calibrate.wording import format_percent
from lesion_triage.cards.checklist import Answer
from lesion_triage.cards.dossier import (
    AUDIT,
    CERTIFICATE,
    CONFIG,
    HEADER,
    MANIFEST,
    RESULTS,
    SPLITS,
    TABLE,
    Dossier,
    Pointer,
    Unknown,
)
from lesion_triage.cards.population import Count, Population, count, population_of


def _finding(dossier: Dossier, code: str) -> tuple[str, Pointer]:
    """The summary of one check of the audit, and a pointer to it."""
    place = f"findings[code={code}].summary"
    return str(dossier.at(AUDIT, place)), Pointer(AUDIT, place)


def format_counts(groups: dict[str, Count], of: str = "cases") -> str:
    """``a 12, b 3``."""
    return ", ".join(f"{name} {getattr(one, of):,}" for name, one in groups.items())


def _citations(dossier: Dossier) -> str:
    return " ".join(str(one).rstrip(".") + "." for one in dossier.at(MANIFEST, "citation"))


def source(dossier: Dossier) -> Answer:
    """Which data, with their citation."""
    kind = (
        "drawn by a program, of no person"
        if dossier.at(MANIFEST, "synthetic")
        else "a collection that was there"
    )
    return Answer(
        f"{dossier.at(MANIFEST, 'source')}: {kind}. {_citations(dossier) or 'No citation is stated.'}",
        (Pointer(MANIFEST, "source"), Pointer(MANIFEST, "citation")),
        "how well the data represent those on whom the model will be used, and why these data were chosen.",
    )


def references(dossier: Dossier) -> Answer:
    """Citation of the public data."""
    citations = _citations(dossier)
    if not citations:
        raise Unknown("citation")
    return Answer(citations, (Pointer(MANIFEST, "citation"), Pointer(HEADER, "data_citation")))


def synthetic_data(dossier: Dossier) -> Answer:
    """Whether pictures were drawn by a program."""
    synthetic = bool(dossier.at(MANIFEST, "synthetic"))
    text = (
        "Drawn pictures were used; configuration and seed draw the same ones again."
        if synthetic
        else "No drawn or generated picture was used."
    )
    return Answer(text, (Pointer(MANIFEST, "synthetic"), Pointer(CONFIG, "data.source")))


def exclusions(dossier: Dossier) -> Answer:
    """What was dropped, and why; how persons were selected is not known to the manifest."""
    return Answer(
        _dropped(dossier),
        (Pointer(MANIFEST, "dropped"), Pointer(CONFIG, "pixels")),
        "the criteria by which persons came into the dataset, other than those of its publication.",
    )


def _dropped(dossier: Dossier) -> str:
    dropped = dossier.at(MANIFEST, "dropped")
    reasons = "; ".join(f"{len(names)}: {reason}" for reason, names in dropped.items())
    kept = f"{dossier.at(MANIFEST, 'records'):,} photographs were kept"
    left_out = dossier.get(SPLITS, "left_out", 0)
    unlabelled = f" {left_out} without a label are in no split." if left_out else ""
    return f"{kept}; dropped: {reasons or 'none'}.{unlabelled}"


def preprocessing(dossier: Dossier) -> Answer:
    """From file to pixels."""
    size = dossier.at(CONFIG, "pixels.size_px")
    return Answer(
        f"Decoded to 8-bit RGB in the EXIF orientation, the whole picture resized to {size} x {size} px; "
        "normalisation is inside the graph. In training: augmentation "
        f"'{dossier.at(CONFIG, 'train.augmentation')}'. The same code prepares pictures in training, "
        "evaluation and service, for everyone alike. Quality limits refuse what cannot be scored.",
        (
            Pointer(CONFIG, "pixels"),
            Pointer(CONFIG, "train.augmentation"),
            Pointer(HEADER, "pixels"),
            Pointer(CONFIG, "calibrate.quality"),
        ),
    )


def acquisition(dossier: Dossier) -> Answer:
    """How pictures were taken: the run knows only how they were prepared."""
    known = preprocessing(dossier)
    return Answer(known.text, known.evidence, "cameras, lenses, lights and who took the photographs.")


def label_origin(dossier: Dossier) -> str:
    """What decides which case is positive: the label table, the owner's column, or the drawing program."""
    source = dossier.get(CONFIG, "data.source")
    parts = dossier.get(CONFIG, "data.mixture", [])
    sources = {part["source"] for part in parts} if source == "mixture" else {source}
    own = "the column needs_in_person of the owner's own table says it"
    public = "one table of classes (docs/labels.md), or the dataset's own statement, says it"
    if sources == {None}:
        return "The run does not say who decided it."
    if sources == {"synthetic"}:
        return "It was drawn together with the pictures."
    if sources == {"folder"}:
        return f"{own[0].upper()}{own[1:]}."
    if "folder" in sources:
        return f"Of the public datasets {public}; of the others {own}."
    return f"{public[0].upper()}{public[1:]}."


def _reference(dossier: Dossier) -> tuple[str, tuple[Pointer, ...]]:
    people = population_of(dossier)
    confirmed = people.by("diagnosis_confirm_type")
    return (
        f"The outcome is that an in-person visit is needed. {label_origin(dossier)} Where photographs of a "
        f"lesion disagree, it needs one. Labels were confirmed by (cases): {format_counts(confirmed)}.",
        (
            Pointer(CONFIG, "data.source"),
            Pointer(MANIFEST, "counts.needs_in_person"),
            Pointer(TABLE, "diagnosis_confirm_type"),
        ),
    )


def outcome(dossier: Dossier) -> Answer:
    """What is predicted."""
    text, evidence = _reference(dossier)
    return Answer(text, evidence, "when the outcome was assessed, and whether alike across groups of people.")


def reference_standard(dossier: Dossier) -> Answer:
    """How the reference standard was obtained."""
    text, evidence = _reference(dossier)
    return Answer(text, evidence, "who labelled, by which procedure, with which training.")


def sample_size(dossier: Dossier) -> Answer:
    """How many cases there are, and how many a certificate takes."""
    people = population_of(dossier)
    require_splits(people)
    target, confidence = (dossier.at(CERTIFICATE, name) for name in ("target_sensitivity", "confidence"))
    needed = minimum_positives(target, confidence)  # the certificate's row may be at the level of a group
    return Answer(
        f"{_by_split(people)}. All usable cases with a label were used. To certify a sensitivity of "
        f"{format_percent(target)}% at {format_percent(confidence)}% confidence takes at least {needed} "
        f"positive {dossier.at(CERTIFICATE, 'unit')}s; {dossier.at(CERTIFICATE, 'positives')} were there.",
        (
            Pointer(SPLITS, "fractions"),
            Pointer(CERTIFICATE, "target_sensitivity"),
            Pointer(CERTIFICATE, "confidence"),
            Pointer(CERTIFICATE, "positives"),
        ),
        "a calculation made before the data were seen for training and test.",
    )


def require_splits(people: Population) -> None:
    """Raise Unknown if the data have not been split."""
    if not people.splits:
        raise Unknown(SPLITS)


def _by_split(people: Population) -> str:
    parts = []
    for name, records in people.splits.items():
        found = count(records)
        parts.append(
            f"{name}: {found.photographs:,} photographs of {found.cases:,} cases, {found.positives:,} "
            "positive"
        )
    return "; ".join(parts)


def sizes(dossier: Dossier) -> Answer:
    """Cases and events by split."""
    people = population_of(dossier)
    require_splits(people)
    return Answer(f"{_by_split(people)}.", (Pointer(SPLITS, "image_ids"), Pointer(TABLE, "needs_in_person")))


def missing(dossier: Dossier) -> Answer:
    """What is not stated, and how that is handled."""
    people = population_of(dossier)
    absent = {name: number for name, number in people.missing().items() if number}
    gaps = ", ".join(f"{name} of {number:,}" for name, number in absent.items()) or "none"
    return Answer(
        "Unknown stays unknown: nothing is imputed, and no label is taken for negative. Photographs with "
        f"a gap: {gaps}. A case without a gradable photograph counts as referred.",
        (Pointer(TABLE, "needs_in_person"), Pointer(SPLITS, "left_out")),
    )


def split_method(dossier: Dossier) -> str:
    """How cases were assigned to splits, as part of a sentence."""
    if dossier.at(CONFIG, "split.official"):
        return "the dataset's own test and validation cases, and a random draw among the rest"
    return "a random draw"


def partition(dossier: Dossier) -> Answer:
    """How the data were split."""
    fractions = dossier.at(SPLITS, "fractions")
    order = ("train", "validation", "calibration", "test")
    shares = ", ".join(f"{name} {format_percent(fractions[name])}%" for name in order if name in fractions)
    leak, where = _finding(dossier, "leakage")
    return Answer(
        f"Whole groups were assigned by {split_method(dossier)} (seed {dossier.at(SPLITS, 'seed')}): all "
        "photographs of a patient where known, of a lesion, and copies of one picture stay together. Asked "
        f"for: {shares}. Train fits the network, validation the calibrator, calibration the threshold; test "
        f"is opened on the sealed bundle only. {leak}",
        (Pointer(SPLITS, "fractions"), Pointer(SPLITS, "seed"), Pointer(CONFIG, "split.official"), where),
    )


def same_source(dossier: Dossier) -> Answer:
    """Differences between development and evaluation data: none, by design."""
    return Answer(
        f"None by design: development and test cases are {split_method(dossier)}, all from the same "
        "collection, so nothing is said of another site.",
        (Pointer(SPLITS, "fractions"), Pointer(CONFIG, "split.official"), Pointer(MANIFEST, "source")),
    )


def no_external(dossier: Dossier) -> Answer:
    """External data: none, as a run tests on its own collection."""
    if dossier.at(RESULTS, "split") != "test":
        raise Unknown("split")
    return Answer(
        "None in this run: the test cases are of the collection that the model was trained on. "
        "`lesion-triage transfer` measures another dataset.",
        (Pointer(RESULTS, "split"),),
    )


def artefacts(dossier: Dossier) -> Answer:
    """Hair, ink, rulers, dark corners: what the audit's detectors found."""
    found = [_finding(dossier, code) for code in ("dark_corners", "hair", "ink", "ruler", "patches")]
    return Answer(
        " ".join(text for text, _ in found),
        tuple(where for _, where in found),
        "artefacts that no detector looks for, such as gel, bubbles and plasters.",
    )


def biases(dossier: Dossier) -> Answer:
    """Shortcuts: what besides the lesion predicts the label."""
    codes = ("source_shortcut", "size_shortcut", "metadata_baseline", "missingness", "frame_shortcut")
    found = [_finding(dossier, code) for code in codes]
    verdict = dossier.at(AUDIT, "verdict")
    return Answer(
        f"The audit says {verdict}. " + " ".join(text for text, _ in found),
        (Pointer(AUDIT, "verdict"), *(where for _, where in found)),
    )


def flow(dossier: Dossier) -> Answer:
    """From the dataset's table to the test result."""
    people = population_of(dossier)
    require_splits(people)
    return Answer(
        f"{_dropped(dossier)} Splits: {_by_split(people)}. Of the test cases "
        f"{dossier.at(RESULTS, 'abstained')} had no gradable photograph and counted as referred, "
        f"{dossier.at(RESULTS, 'missed')} positive ones fell below the threshold.",
        (Pointer(MANIFEST, "dropped"), Pointer(SPLITS, "image_ids"), Pointer(RESULTS, "abstained")),
    )
