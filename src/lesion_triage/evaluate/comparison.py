"""Two sealed bundles on the same test cases, case by case. Imports bundle, calibrate and this room.

Cases are paired by the hashes of their photographs' files, from the predictions tables of the two runs. A
report has no such key, because it may be passed on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lesion_triage.bundle.document import canonical_json
from lesion_triage.bundle.schema import Disposition
from lesion_triage.bundle.store import Bundle
from lesion_triage.calibrate.cases import Case, units_of
from lesion_triage.calibrate.paired_comparison import Compared, Said, compare
from lesion_triage.config import Evaluate
from lesion_triage.errors import ReportError
from lesion_triage.evaluate.decided import Decided
from lesion_triage.predictions import Predictions

_SHOWN = 200
"""How many of the cases that changed side a document lists; all are counted."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two bundles."""

    name: str
    bundle_sha256: str
    certificate_id: str
    model_sha256: str
    threshold: float
    cases: int
    """Of its own test split."""
    synthetic: bool


@dataclass(frozen=True, slots=True)
class Changed:
    """A case that one bundle refers (or abstains on) and the other does not; without any identifier."""

    needs_in_person: bool
    first_score: float | None
    second_score: float | None
    first_disposition: Disposition
    second_disposition: Disposition
    first_band: int
    second_band: int


@dataclass(frozen=True, slots=True)
class Crossing:
    """Number of cases of one class with a given disposition by either bundle."""

    needs_in_person: bool
    first_disposition: Disposition
    second_disposition: Disposition
    cases: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every number of the comparison; ``comparison.json``."""

    split: str
    first: Side
    second: Side
    cases: int
    """In both test splits, with the same photographs and the same reference standard."""
    positives: int
    only_first: int
    """Cases of the first's test split that are not in the second's."""
    only_second: int
    labels_differ: int
    """Cases left out because the two tables disagree on whether they need a visit."""
    units: int
    """Units that the bootstrap draws: patients where known, else lesions."""
    compared: Compared
    crossings: tuple[Crossing, ...]
    changed: tuple[Changed, ...]
    """Positive cases first, lost ones before gained ones, by falling score of the first; at most 200."""
    bootstrap_draws: int
    bootstrap_seed: int

    def to_json(self) -> str:
        """Canonical JSON text."""
        return canonical_json({"schema_version": 1, **asdict(self)})


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The cases that both bundles were tested on, in the order of the first's table."""

    first: Decided
    second: Decided
    only_first: int
    only_second: int
    labels_differ: int

    def said(self) -> tuple[Said, Said]:
        """The answers of both."""
        first, second = self.first, self.second
        return Said(first.scores, first.referred), Said(second.scores, second.referred)


def pair(first: tuple[Bundle, Predictions], second: tuple[Bundle, Predictions]) -> Pair:
    """Find the cases that are in both test splits.

    Args:
        first: a sealed bundle and its own logits on its test split.
        second: another.

    Raises:
        PredictionsError: a table does not belong to its bundle.
        ReportError: the shared cases lack a class, or there are none.
    """
    ours, theirs = Decided.by(*first), Decided.by(*second)
    our_keys, their_keys = ([_key(case) for case in side.cases] for side in (ours, theirs))
    # Lesions with the same files share a key. Each is paired once, with one of the same outcome if there is
    # one, in the order of the tables.
    waiting: dict[tuple[tuple[str, ...], bool], deque[int]] = {}
    for number, told in enumerate(zip(their_keys, theirs.positive.tolist(), strict=True)):
        waiting.setdefault(told, deque()).append(number)
    agreeing = [
        (number, places.popleft())
        for number, told in enumerate(zip(our_keys, ours.positive.tolist(), strict=True))
        if (places := waiting.get(told))
    ]
    in_both = (Counter(our_keys) & Counter(their_keys)).total()
    truth = ours.positive[[one for one, _ in agreeing]] if agreeing else np.zeros(0, dtype=np.bool_)
    if not truth.any() or truth.all():
        raise ReportError(
            f"bundles {first[0].header.name} and {second[0].header.name} share {truth.size} test cases, "
            f"{int(truth.sum())} of them positive; a comparison needs both classes. Cases match if all "
            "their photographs are the same files: compare runs on one dataset with one split.seed."
        )
    return Pair(
        first=_taken(ours, [one for one, _ in agreeing]),
        second=_taken(theirs, [other for _, other in agreeing]),
        only_first=len(ours.cases) - in_both,
        only_second=len(theirs.cases) - in_both,
        labels_differ=in_both - len(agreeing),
    )


def compare_bundles(
    first: tuple[Bundle, Predictions], second: tuple[Bundle, Predictions], config: Evaluate
) -> tuple[Comparison, Pair]:
    """Compare two bundles on the cases that both were tested on.

    Args:
        first: a sealed bundle and its own logits on its test split.
        second: another; differences are second minus first.
        config: bootstrap draws and seed.

    Raises:
        As ``pair``.
    """
    both = pair(first, second)
    known = changed_of(both)
    positive, units = both.first.positive, units_of(both.first.cases)
    drawn = both.first.drawn_units()
    same = first[0].sha256 == second[0].sha256
    found = compare(*both.said(), positive, config.bootstrap_draws, config.seed, drawn, same=same)
    return (
        Comparison(
            split=first[1].split,
            first=_side(*first),
            second=_side(*second),
            cases=positive.size,
            positives=int(positive.sum()),
            only_first=both.only_first,
            only_second=both.only_second,
            labels_differ=both.labels_differ,
            units=np.unique(units).size,
            compared=found,
            crossings=_crossings(both),
            changed=tuple(known[number] for number in _order(both)[:_SHOWN]),
            bootstrap_draws=config.bootstrap_draws,
            bootstrap_seed=config.seed,
        ),
        both,
    )


def changed_cases(both: Pair) -> list[tuple[str, Changed]]:
    """All cases that changed side with their identifiers: for the run's own folder, never for a report."""
    known = changed_of(both)
    return [(both.first.cases[number].case_id, known[number]) for number in _order(both)]


def changed_of(both: Pair) -> dict[int, Changed]:
    """Cases that changed side, by their index in the pair."""
    moved = np.flatnonzero(both.first.referred != both.second.referred)
    return {
        int(number): Changed(
            needs_in_person=bool(both.first.positive[number]),
            first_score=both.first.decisions[number].score,
            second_score=both.second.decisions[number].score,
            first_disposition=both.first.decisions[number].disposition,
            second_disposition=both.second.decisions[number].disposition,
            first_band=both.first.decisions[number].priority_band,
            second_band=both.second.decisions[number].priority_band,
        )
        for number in moved
    }


def _order(both: Pair) -> list[int]:
    """Positive cases first; then those that the second no longer refers; then by falling score."""
    moved = np.flatnonzero(both.first.referred != both.second.referred)
    score = both.first.scores[moved]
    order = np.lexsort((-score, both.second.referred[moved], ~both.first.positive[moved]))
    return [int(number) for number in moved[order]]


def _crossings(both: Pair) -> tuple[Crossing, ...]:
    counts = Counter(
        (bool(positive), one.disposition, other.disposition)
        for positive, one, other in zip(
            both.first.positive, both.first.decisions, both.second.decisions, strict=True
        )
    )
    return tuple(
        Crossing(positive, first, second, counts[positive, first, second])
        for positive in (True, False)
        for first in Disposition
        for second in Disposition
    )


def _key(case: Case) -> tuple[str, ...]:
    return tuple(sorted(row.file_fingerprint for row in case.rows))


def _taken(decided: Decided, places: Sequence[int]) -> Decided:
    return Decided(
        cases=tuple(decided.cases[place] for place in places),
        decisions=tuple(decided.decisions[place] for place in places),
        scores=decided.scores[places],
        positive=decided.positive[places],
        referred=decided.referred[places],
    )


def _side(bundle: Bundle, table: Predictions) -> Side:
    return Side(
        name=bundle.header.name,
        bundle_sha256=bundle.sha256,
        certificate_id=bundle.certificate.certificate_id(),
        model_sha256=table.model_sha256,
        threshold=bundle.policy.threshold,
        cases=len(table.by_case()),
        synthetic=bundle.header.synthetic,
    )
